// SPDX-License-Identifier: Apache-2.0
//! Reads a text of OpenMetrics 1.0.0 and is strict: families in one piece, each declared before its numbers, names that
//! fit their type, histograms that add up, and the end.

use std::collections::{BTreeMap, BTreeSet};

/// Numbers by their name with labels.
pub type Numbers = BTreeMap<String, f64>;

struct Family {
    name: String,
    kind: String,
    has_help: bool,
}

pub fn parse(text: &str) -> Result<Numbers, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("it does not end with # EOF")?;
    let (mut numbers, mut seen) = (Numbers::new(), BTreeSet::new());
    let mut family: Option<Family> = None;
    for line in body.lines() {
        let wrong = |what: &str| Err(format!("{what}: {line}"));
        match line.strip_prefix("# ").map(|comment| comment.splitn(3, ' ').collect::<Vec<_>>()).as_deref() {
            Some(["HELP", name, help]) if !help.is_empty() => {
                if !seen.insert(name.to_string()) {
                    return wrong("a family comes twice");
                }
                family = Some(Family { name: name.to_string(), kind: String::new(), has_help: true });
            }
            Some(["TYPE", name, kind]) => match &mut family {
                Some(family) if family.name == *name && family.has_help && family.kind.is_empty() => {
                    family.kind = kind.to_string();
                }
                _ => return wrong("a type without the help of the same family before it"),
            },
            Some(["UNIT", name, unit]) => match &family {
                Some(family) if family.name == *name && name.ends_with(&format!("_{unit}")) => {}
                _ => return wrong("a unit that the name does not end with"),
            },
            Some(_) => return wrong("a comment that is none of the known"),
            None => {
                let (name, value) = line.rsplit_once(' ').ok_or(format!("no number: {line}"))?;
                let value: f64 = value.parse().map_err(|e| format!("{e}: {line}"))?;
                let Some(family) = &family else { return wrong("a number without a family") };
                check_name(family, name, value).map_err(|e| format!("{e}: {line}"))?;
                if numbers.insert(name.to_owned(), value).is_some() {
                    return wrong("a number comes twice");
                }
            }
        }
    }
    check_histograms(&numbers)?;
    Ok(numbers)
}

fn check_name(family: &Family, name: &str, value: f64) -> Result<(), String> {
    let (bare, labels) = match name.split_once('{') {
        Some((bare, labels)) => (bare, labels.strip_suffix('}').ok_or("labels without an end")?),
        None => (name, ""),
    };
    for label in labels.split_terminator(',') {
        let (key, quoted) = label.split_once('=').ok_or("a label without a value")?;
        let is_quoted = quoted.len() >= 2 && quoted.starts_with('"') && quoted.ends_with('"');
        if !is_quoted || key.is_empty() || !key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
            return Err(format!("the label {label} is malformed"));
        }
    }
    let suffix = bare.strip_prefix(&family.name).ok_or("a number of another family")?;
    let fits = match family.kind.as_str() {
        "counter" => suffix == "_total" && value >= 0.0,
        "gauge" => suffix.is_empty(),
        "histogram" if labels.contains("le=") => suffix == "_bucket",
        "histogram" => suffix == "_sum" || suffix == "_count",
        _ => false,
    };
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    match fits && value.is_finite() && is_name(bare) {
        true => Ok(()),
        false => Err(format!("the name or the number does not fit a {}", family.kind)),
    }
}

/// Buckets grow with their bounds, and the last is the count.
fn check_histograms(numbers: &Numbers) -> Result<(), String> {
    let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (name, count) in numbers.iter().filter(|(name, _)| name.contains("_bucket{")) {
        let (head, bound) = name.split_once("le=\"").ok_or(format!("{name} has no bound"))?;
        let bound: f64 = bound.trim_end_matches("\"}").parse().map_err(|e| format!("{e}: {name}"))?;
        let head = head.trim_end_matches([',', '{']).replace("_bucket", "_count");
        let count_name = if head.contains('{') { format!("{head}}}") } else { head };
        series.entry(count_name).or_default().push((bound, *count));
    }
    for (count_name, mut buckets) in series {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let grows = buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1 && pair[0].0 < pair[1].0);
        let last = buckets.last().filter(|last| last.0 == f64::INFINITY).map(|last| last.1);
        if !grows || last.is_none() || numbers.get(&count_name).copied() != last {
            return Err(format!("{count_name}: {buckets:?}"));
        }
    }
    Ok(())
}

#[test]
fn a_text_that_breaks_a_rule_is_refused() {
    let good = "# HELP a_seconds Help.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
                a_seconds_bucket{x=\"y\",le=\"0.5\"} 1\na_seconds_bucket{x=\"y\",le=\"+Inf\"} 2\n\
                a_seconds_sum{x=\"y\"} 3.5\na_seconds_count{x=\"y\"} 2\n\
                # HELP b Help.\n# TYPE b counter\nb_total 1\n# EOF\n";
    assert_eq!(parse(good).unwrap()["b_total"], 1.0);
    let breaks = [
        ("# EOF\n", ""),
        ("b_total 1", "b 1"),
        ("b_total 1", "b_total 1\nb_total 1"),
        ("b_total 1", "b_total -1"),
        ("b_total 1", "b_total one"),
        ("# HELP b Help.\n", ""),
        ("# HELP b Help.\n# TYPE b", "# HELP a_seconds Help.\n# TYPE a_seconds"),
        ("le=\"0.5\"} 1", "le=\"0.5\"} 3"),
        ("_count{x=\"y\"} 2", "_count{x=\"y\"} 1"),
        ("+Inf", "1"),
        ("seconds\na", "bytes\na"),
    ];
    for (from, to) in breaks {
        assert!(good.contains(from) && parse(&good.replacen(from, to, 1)).is_err(), "{from:?} -> {to:?}");
    }
}
