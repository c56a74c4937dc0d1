// SPDX-License-Identifier: Apache-2.0
//! Metrics as text, in the two forms that monitoring systems read.

use std::fmt::Write;

/// What a number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while a process lives.
    Counter,
    Gauge,
    Histogram,
}

/// One metric with all its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Of a counter without `_total`.
    pub name: &'static str,
    /// One line.
    pub help: &'static str,
    pub kind: Kind,
    pub samples: Vec<Sample>,
}

/// One number.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What the name ends with, for the parts of a histogram.
    pub suffix: &'static str,
    pub labels: Vec<(&'static str, String)>,
    pub value: Value,
}

/// A number as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    Whole(u64),
    Seconds(f64),
}

/// How the text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The text form of Prometheus, version 0.0.4, which files for its node exporter have.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Form {
    /// As HTTP names it.
    pub fn content_type(self) -> &'static str {
        match self {
            Form::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All families as one text.
pub fn write(families: &[Family], form: Form) -> String {
    let mut text = String::new();
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        write_family(&mut text, family, form);
    }
    if form == Form::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

fn write_family(text: &mut String, family: &Family, form: Form) {
    let Family { name, help, kind, samples } = family;
    let (kind_name, total) = match kind {
        Kind::Counter => ("counter", "_total"),
        Kind::Gauge => ("gauge", ""),
        Kind::Histogram => ("histogram", ""),
    };
    // OpenMetrics declares a counter without the end that its numbers have.
    let declared = if form == Form::Prometheus { total } else { "" };
    line(text, format_args!("# HELP {name}{declared} {help}"));
    line(text, format_args!("# TYPE {name}{declared} {kind_name}"));
    let unit = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit));
    if let Some(unit) = unit.filter(|_| form == Form::OpenMetrics) {
        line(text, format_args!("# UNIT {name} {unit}"));
    }
    for Sample { suffix, labels, value } in samples {
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.iter().map(label).collect::<Vec<_>>().join(",")),
        };
        match value {
            Value::Whole(value) => line(text, format_args!("{name}{total}{suffix}{labels} {value}")),
            Value::Seconds(value) => line(text, format_args!("{name}{total}{suffix}{labels} {value}")),
        }
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes everything");
}

fn label((name, value): &(&'static str, String)) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{value}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_differ_in_how_a_counter_is_declared_in_units_and_in_the_end() {
        let labels = vec![("peer", "a\"b\\c\nd".to_owned())];
        let families = [
            Family {
                name: "x_bytes",
                help: "Help.",
                kind: Kind::Counter,
                samples: vec![Sample { suffix: "", labels, value: Value::Whole(7) }],
            },
            Family { name: "y", help: "Nothing is known of it.", kind: Kind::Gauge, samples: Vec::new() },
        ];
        let number = "x_bytes_total{peer=\"a\\\"b\\\\c\\nd\"} 7\n";
        assert_eq!(
            write(&families, Form::Prometheus),
            format!("# HELP x_bytes_total Help.\n# TYPE x_bytes_total counter\n{number}")
        );
        assert_eq!(
            write(&families, Form::OpenMetrics),
            format!("# HELP x_bytes Help.\n# TYPE x_bytes counter\n# UNIT x_bytes bytes\n{number}# EOF\n")
        );
    }
}
