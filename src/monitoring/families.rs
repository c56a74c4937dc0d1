// SPDX-License-Identifier: Apache-2.0
//! Which metrics there are, and which number of a report each shows. What is unknown is left out, never 0.

use super::text::{Family, Kind, Sample, Value};
use crate::metrics::{Distribution, Snapshot, BOUNDS_US};
use crate::replication::report::{Counted, Report};
use crate::replication::status::{LinkState, Side, Status};

/// The metrics of a report.
pub fn of(report: &Report) -> Vec<Family> {
    let mut families = of_status(&report.status);
    if let Some(Counted { numbers, disk }) = &report.counted {
        families.extend(of_numbers(numbers));
        families.push(gauge(
            "limestone_disk_size_bytes",
            "Size of the file system of the directory.",
            disk.map(|d| d.size_bytes),
        ));
        families.push(gauge("limestone_disk_free_bytes", "What is free of it.", disk.map(|d| d.free_bytes)));
    }
    families
}

fn of_status(status: &Status) -> Vec<Family> {
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    let role = |side| {
        flag(
            vec![("role", if side == Side::Primary { "primary" } else { "replica" }.to_owned())],
            status.role == Some(side),
        )
    };
    let state = |state: LinkState| flag(vec![("state", state.name().to_owned())], status.state == state);
    // A replica does not know what its primary does without it.
    let degraded = status.policy.as_ref().map(|_| u64::from(status.degraded_since.is_some()));
    let seconds = |ms: Option<u64>| ms.map(|ms| ms as f64 / 1e3);
    let lag = &status.lag;
    let mut families = vec![
        family("limestone_build_info", "The version that answers; always 1.", Kind::Gauge, vec![flag(version, true)]),
        family(
            "limestone_role",
            "1 for the role that the directory has.",
            Kind::Gauge,
            vec![role(Side::Primary), role(Side::Replica)],
        ),
        family(
            "limestone_state",
            "1 for the state of the link between the two sides, 0 for all others.",
            Kind::Gauge,
            LinkState::ALL.into_iter().map(state).collect(),
        ),
        time_gauge("limestone_state_seconds", "How long the state has lasted.", seconds(status.state_ms)),
        time_gauge("limestone_heard_seconds", "How long ago the other side was heard last.", seconds(status.heard_ms)),
        gauge("limestone_term", "Term of the history that the directory belongs to.", status.term),
        gauge("limestone_switched_epoch", "The current epoch of the primary.", status.switched_epoch),
        gauge("limestone_stored_epoch", "The last epoch that is durable on the primary.", status.stored_epoch),
        gauge("limestone_propagated_epoch", "The last epoch that is durable on the replica.", status.propagated_epoch),
        gauge("limestone_lag_epochs", "Stored epochs that are not propagated.", lag.epochs),
        gauge("limestone_lag_bytes", "Bytes of the log that are on their way to the disk of the replica.", lag.bytes),
        time_gauge("limestone_lag_seconds", "How long something has been stored and not propagated.", seconds(lag.ms)),
        time_gauge(
            "limestone_lag_age_seconds",
            "How old the part of the lag is that the other side told.",
            seconds(lag.age_ms),
        ),
        gauge("limestone_degraded", "1 while epochs are reported without the replica.", degraded),
    ];
    if let Some(scrub) = &status.scrub {
        families.extend([
            counter("limestone_scrub_rounds", "Rounds over all log files.", scrub.rounds),
            counter("limestone_scrubbed_bytes", "Bytes of log files that were read again.", scrub.bytes),
            counter("limestone_found_damage", "Times that a log file was found to be damaged.", scrub.found),
            gauge(
                "limestone_damaged_files",
                "Log files that are damaged and not replaced yet.",
                Some(scrub.damaged.len() as u64),
            ),
        ]);
    }
    families
}

fn of_numbers(numbers: &Snapshot) -> Vec<Family> {
    let recovery = Some(numbers.recovery_ns).filter(|&ns| ns > 0);
    let commit = |state: &'static str, distribution| histogram(vec![("state", state.to_owned())], distribution);
    let mut commits = commit("stored", &numbers.stored);
    commits.extend(commit("propagated", &numbers.propagated));
    vec![
        gauge(
            "limestone_failed",
            "1 after a failure with which nothing is acknowledged any more.",
            Some(numbers.failed.into()),
        ),
        gauge(
            "limestone_certificate_seconds",
            "For how long the TLS certificate of this side counts still.",
            numbers.certificate_seconds,
        ),
        counter("limestone_sessions", "Sessions that ended.", numbers.sessions),
        counter("limestone_aborted_sessions", "Sessions that were given up.", numbers.aborted_sessions),
        counter("limestone_entries", "Entries of sessions that ended.", numbers.entries),
        counter("limestone_session_bytes", "Bytes of sessions that ended.", numbers.session_bytes),
        counter("limestone_written_bytes", "Bytes that were written to files of the directory.", numbers.written_bytes),
        family("limestone_commit_seconds", "From the end of an epoch to the report of it.", Kind::Histogram, commits),
        family(
            "limestone_sync_seconds",
            "Time of a sync of a file or a directory.",
            Kind::Histogram,
            histogram(Vec::new(), &numbers.syncs),
        ),
        counters(
            ("limestone_disk_errors", "Writes and syncs that failed."),
            "operation",
            &[("sync", numbers.sync_errors), ("write", numbers.write_errors)],
        ),
        counters(
            ("limestone_compactions", "Online compactions that are over."),
            "result",
            &[("done", numbers.compactions), ("failed", numbers.failed_compactions)],
        ),
        family(
            "limestone_compaction_seconds",
            "Time that compactions took that are over.",
            Kind::Counter,
            vec![Sample { suffix: "", labels: Vec::new(), value: in_seconds(numbers.compaction_ns) }],
        ),
        gauge("limestone_running_compactions", "Compactions at work.", Some(numbers.running_compactions)),
        counter("limestone_blobs", "BLOBs that were registered.", numbers.blobs),
        counter("limestone_deleted_blobs", "Unused BLOBs that were deleted.", numbers.deleted_blobs),
        time_gauge("limestone_recovery_seconds", "How long the last start took.", recovery.map(|ns| ns as f64 / 1e9)),
        gauge(
            "limestone_recovered_entries",
            "Entries that the last start read.",
            recovery.map(|_| numbers.recovered_entries),
        ),
    ]
}

fn family(name: &'static str, help: &'static str, kind: Kind, samples: Vec<Sample>) -> Family {
    Family { name, help, kind, samples }
}

/// One counter for each value of a label.
fn counters(
    (name, help): (&'static str, &'static str),
    label: &'static str,
    numbers: &[(&'static str, u64)],
) -> Family {
    let sample = |&(value, number): &(&str, u64)| Sample {
        suffix: "",
        labels: vec![(label, value.to_owned())],
        value: Value::Whole(number),
    };
    family(name, help, Kind::Counter, numbers.iter().map(sample).collect())
}

fn counter(name: &'static str, help: &'static str, number: u64) -> Family {
    let samples = vec![Sample { suffix: "", labels: Vec::new(), value: Value::Whole(number) }];
    family(name, help, Kind::Counter, samples)
}

fn gauge(name: &'static str, help: &'static str, number: Option<u64>) -> Family {
    let sample = |number| Sample { suffix: "", labels: Vec::new(), value: Value::Whole(number) };
    family(name, help, Kind::Gauge, number.map(sample).into_iter().collect())
}

fn time_gauge(name: &'static str, help: &'static str, seconds: Option<f64>) -> Family {
    let sample = |seconds| Sample { suffix: "", labels: Vec::new(), value: Value::Seconds(seconds) };
    family(name, help, Kind::Gauge, seconds.map(sample).into_iter().collect())
}

fn flag(labels: Vec<(&'static str, String)>, is_set: bool) -> Sample {
    Sample { suffix: "", labels, value: Value::Whole(is_set.into()) }
}

fn in_seconds(ns: u64) -> Value {
    Value::Seconds(ns as f64 / 1e9)
}

/// Counts up to each bound, each with those before it.
fn histogram(labels: Vec<(&'static str, String)>, distribution: &Distribution) -> Vec<Sample> {
    let sample = |suffix, labels, value| Sample { suffix, labels, value };
    let mut up_to = 0;
    let bounds = BOUNDS_US.iter().map(|us| (*us as f64 / 1e6).to_string()).chain(["+Inf".to_owned()]);
    let parts = distribution.parts.iter().copied().chain(std::iter::repeat(0));
    let mut samples: Vec<Sample> = bounds
        .zip(parts)
        .map(|(bound, part)| {
            up_to += part;
            let labels = labels.iter().cloned().chain([("le", bound)]).collect();
            sample("_bucket", labels, Value::Whole(up_to))
        })
        .collect();
    samples.push(sample("_sum", labels.clone(), in_seconds(distribution.sum_ns)));
    samples.push(sample("_count", labels, Value::Whole(up_to)));
    samples
}
