// SPDX-License-Identifier: Apache-2.0
//! The command line of the program. Help and man page are made from what stands here.

use super::replicas;
use crate::program_output::About;
use crate::replication::commands::Request;
use clap::Parser;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const DETAILS: &str = "\
`tgreplica status <LOGDIR>` asks whoever serves the directory, a replica or an engine, how it stands; it is the same \
as `tgreplica --status <LOGDIR>`.

`tgreplica metrics <LOGDIR>` prints what a monitoring system collects of it, in the text form of Prometheus, as files \
for the textfile collector of its node exporter have it; with --openmetrics in that form. Both are also served over \
HTTP under /metrics, and under /healthz (with ?role=primary or ?role=replica) whether it is in order: 200 or 503.

`tgreplica promote <LOGDIR>` makes a replica's directory a primary's: it refuses one that is empty, incomplete, known \
to be behind or no replica's, begins a term, and says up to which epoch everything is there, the term and its run. \
With --force it refuses none of these; what the directory lacks is lost then, and --reason goes to the log. A \
tgreplica that serves the directory is told: it ends when the directory is promoted, and else goes on.

`tgreplica rejoin <LOGDIR>` makes the directory of a former primary, or of a replica that is ahead of its primary, a \
replica again: it waits for the primary, saves what the directory has above the highest common point below \
<LOGDIR>/cut_off/ and takes it away, and ends when the directory has everything that the primary has stored. With \
--rewind a serving replica does the same and goes on. Without either it refuses such a primary and says what would go.

`tgreplica replicas <LOGDIR>` shows the replicas of the running engine that serves the directory; with \
`add [NAME=]tcp://HOST:PORT` or `remove NAME` behind it changes them first, until the engine ends: what it starts with \
is TSURUGI_REPLICATION_REPLICAS. How many of them must have an epoch stays as it was. Refused is a replica that cannot \
be told from another one, and to remove one when fewer than that would be left.

`tgreplica compare <LOGDIR>` says whether a replica has the same content as its primary, while both run: the tgreplica \
that serves the directory asks its primary over their connection. It is the content at the last epoch that the replica \
has. The primary makes its side of it behind everything else that it does.

`tgreplica compare <A> <B>` says whether two data directories have the same content at an epoch that both have, while \
an engine and a replica use them: the same keys with the same values and BLOBs. Each of A and B is a directory, or a \
file that `tgreplica digest` has written, or - for one from stdin, so that the other side can be another machine: \
`ssh primary tgreplica digest --json <LOGDIR> | tgreplica compare - <LOGDIR>`. The epoch is the smaller one of the \
two; a file stands for all since which nothing was written. A side that is behind is waited for, --wait seconds. \
Ranges of keys that differ are named, keys in hexadecimal digits, from the first key of a range up to the first one \
behind it; `tglogutil diff` names single entries. What BLOBs hold is compared with --blobs. Write versions are not \
compared: a compaction forgets them. Whoever serves a directory holds its files meanwhile, as for `tgbackup create`, \
and compacts nothing; the program steps back behind others for disk and processors, and with --mib-per-second reads \
no faster than that. Exit codes of compare: 0 same, 1 different, 2 cannot tell.

`tgreplica digest <LOGDIR>` prints what the content comes to, in ranges of keys, at the last epoch or with --epoch at \
an earlier one, down to the one that the log was compacted up to; --json is what compare takes.

`tgreplica repair <LOGDIR>` lets a replica's directory that differs from its primary's get all of it anew: what it has \
is saved below <LOGDIR>/cut_off/, counts for nothing from then on, and is replaced by a base sync when the primary \
comes. A tgreplica that serves the directory is told, and goes on. Until the base sync is there, nothing is \
PROPAGATED by this replica, and it is not promoted.

Settings come from the environment: TSURUGI_REPLICATION_ENDPOINT (tcp://host:port to listen on), \
TSURUGI_REPLICATION_PROTOCOL (native or upstream, default native), TSURUGI_REPLICATION_TIMEOUT_MS (default 10000), \
TSURUGI_REPLICATION_SECRET_FILE, TSURUGI_REPLICATION_ALLOW_NO_SECRET (1: peers on other machines need no secret), \
TSURUGI_REPLICATION_VERSION_MIN (2: frames without a MAC are taken as well), TSURUGI_REPLICATION_TLS_CERT, _KEY, _CA, \
_CRL and _PEER_NAME (with these, connections are taken over TLS only), \
TSURUGI_REPLICATION_CUT_OFF_MAX and TSURUGI_REPLICATION_CUT_OFF_MB (what is kept below cut_off/, default 4 directories \
and 10240 MiB; the newest always), TSURUGI_REPLICATION_SCRUB_MB_S and TSURUGI_REPLICATION_SCRUB_PERIOD_S (log files \
are read again at 8 MiB a second, 0: never, and 86400 s after they were read last), LIMESTONE_METRICS_LISTEN \
(tcp://host:port to serve metrics on, default none), LIMESTONE_METRICS_ALLOW_REMOTE (1: other machines may read them). \
LIMESTONE_COMMIT=journal (default) makes what comes durable with one sync of a commit journal, \
which is bounded by LIMESTONE_JOURNAL_MIB (default 256); direct syncs the log files.

SIGTERM and SIGINT end the program; everything received is on the disk then. SIGHUP reads the secret file and the \
certificates again. To \
take over, call `tgreplica promote` and start the engine on the directory.

Exit codes: 0 ended by a signal or, with --once, by the primary in good order; 1 wrong use, a setting that is not \
understood, or an address that cannot be listened on; 2 the directory cannot be used, nothing was changed: see \
`tglogutil inspect`; 3 another process uses the directory; 4 the disk failed or is full, or the system lacks memory \
or descriptors, and nothing was acknowledged since: it may work when it is started again; 5 with --once, the session \
was lost or refused, with rejoin, the primary was refused or did not come before a signal; 6 with status, metrics and \
replicas, nobody serves the directory; 7 with them, the process that has it does not answer within a second, or starts \
or ends just then. With --json every failure is one object with `error` and `exit`.";

/// Words behind which a directory stands.
const NEED_A_DIRECTORY: [&str; 7] = ["status", "metrics", "promote", "rejoin", "repair", "replicas", "digest"];
/// The word whose exit codes are others.
pub const COMPARE: &str = "compare";

/// Serves a data directory as the replica of a primary, or says how it stands.
#[derive(Debug, Parser)]
#[command(name = "tgreplica", version, disable_version_flag = true, after_help = DETAILS)]
#[command(
    override_usage = "tgreplica [OPTIONS] <LOGDIR>\n       tgreplica status [--json] [--watch[=SECONDS]] <LOGDIR>\n\
                      \x20      tgreplica metrics [--openmetrics] <LOGDIR>\n\
                      \x20      tgreplica promote [--force [--reason=TEXT]] [--above=TERM] [--json] <LOGDIR>\n\
                      \x20      tgreplica rejoin [OPTIONS] <LOGDIR>\n\
                      \x20      tgreplica replicas [--json] <LOGDIR> \
                      [list | add [NAME=]tcp://HOST:PORT | remove NAME]\n\
                      \x20      tgreplica compare [OPTIONS] <LOGDIR>\n\
                      \x20      tgreplica compare [OPTIONS] <A> <B>\n\
                      \x20      tgreplica digest [OPTIONS] <LOGDIR>\n\
                      \x20      tgreplica repair [--json] <LOGDIR>"
)]
pub struct Arguments {
    /// The data directory; it must exist and may be empty.
    #[arg(value_name = "LOGDIR", required_unless_present_any = ["generate_man", "version"], num_args = 1..=4)]
    pub logdir: Vec<PathBuf>,
    /// Address to listen on, instead of TSURUGI_REPLICATION_ENDPOINT.
    #[arg(long, value_name = "tcp://HOST:PORT")]
    pub listen: Option<OsString>,
    /// File with the shared secret, instead of TSURUGI_REPLICATION_SECRET_FILE.
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<OsString>,
    /// Certificate of this side, in PEM, instead of TSURUGI_REPLICATION_TLS_CERT.
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<OsString>,
    /// Its private key, instead of TSURUGI_REPLICATION_TLS_KEY.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<OsString>,
    /// The CAs that primaries' certificates come from, instead of TSURUGI_REPLICATION_TLS_CA.
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<OsString>,
    /// What these have revoked, instead of TSURUGI_REPLICATION_TLS_CRL.
    #[arg(long, value_name = "FILE")]
    pub tls_crl: Option<OsString>,
    /// Name in the primary's certificate, instead of TSURUGI_REPLICATION_TLS_PEER_NAME.
    #[arg(long, value_name = "NAME")]
    pub tls_peer_name: Option<OsString>,
    /// Serve one session of a primary and end with it.
    #[arg(long)]
    pub once: bool,
    /// Save and take away what the primary does not have, instead of refusing it.
    #[arg(long)]
    pub rewind: bool,
    /// Say how whoever serves the directory stands, and end.
    #[arg(long)]
    pub status: bool,
    /// With promote: also what is fenced, incomplete, behind, empty or no replica's.
    #[arg(long)]
    pub force: bool,
    /// With promote --force: why, for the log.
    #[arg(long, value_name = "TEXT", requires = "force")]
    pub reason: Option<String>,
    /// With promote: for a cluster manager that has compared the claims of so many directories that one of them has
    /// everything, of which this one's is the largest: begin a term above this one, the largest of all of them, also on
    /// a primary's directory, whether another primary has taken over or not.
    #[arg(long, value_name = "TERM")]
    pub above: Option<u64>,
    /// With compare and digest: also what BLOBs hold.
    #[arg(long)]
    pub blobs: bool,
    /// With compare and digest: read at most so much in a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub mib_per_second: Option<u64>,
    /// With compare of A and B: wait so long for a side that is behind [default: 30].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub wait: Option<u64>,
    /// With digest: of the content at this epoch.
    #[arg(long, value_name = "N")]
    pub epoch: Option<u64>,
    /// With all commands but metrics: one JSON document. Failures are told as one, too.
    #[arg(long)]
    pub json: bool,
    /// With status: again after so many seconds, until the program is ended [default: 1].
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "1",
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub watch: Option<u32>,
    /// With metrics: the form OpenMetrics 1.0.0.
    #[arg(long)]
    pub openmetrics: bool,
    #[command(flatten)]
    pub about: About,
}

/// What is wanted of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    Serve(&'a Path),
    Status(&'a Path),
    Metrics(&'a Path),
    Promote(&'a Path),
    Rejoin(&'a Path),
    Repair(&'a Path),
    Replicas(&'a Path, Request),
    Digest(&'a Path),
    Compare(&'a Path, &'a Path),
    /// A replica's directory with what its primary has.
    CompareWithPrimary(&'a Path),
}

impl Arguments {
    /// What is wanted, or why that cannot be said.
    pub fn wanted(&self) -> Result<Wanted<'_>, String> {
        match &self.logdir[..] {
            [logdir] if self.status => Ok(Wanted::Status(logdir)),
            [word, logdir] if word == Path::new("promote") => Ok(Wanted::Promote(logdir)),
            [word, logdir] if word == Path::new("metrics") => Ok(Wanted::Metrics(logdir)),
            [word, logdir] if word == Path::new("digest") && self.wait.is_none() => Ok(Wanted::Digest(logdir)),
            [word, a, b] if word == Path::new(COMPARE) && self.epoch.is_none() => Ok(Wanted::Compare(a, b)),
            [word, logdir] if word == Path::new(COMPARE) && self.epoch.is_none() && self.wait.is_none() => {
                Ok(Wanted::CompareWithPrimary(logdir))
            }
            [word, ..] if word == Path::new(COMPARE) => {
                Err("expected: tgreplica compare [OPTIONS] <LOGDIR>, or <A> <B>, of which one may be behind".to_owned())
            }
            _ if self.epoch.is_some() => Err("--epoch is for: tgreplica digest".to_owned()),
            _ if self.wait.is_some() => Err("--wait is for: tgreplica compare".to_owned()),
            _ if self.blobs || self.mib_per_second.is_some() => {
                Err("--blobs and --mib-per-second are for: tgreplica compare and digest".to_owned())
            }
            _ if self.openmetrics => Err("--openmetrics is for: tgreplica metrics".to_owned()),
            _ if self.above.is_some() => Err("--above is for: tgreplica promote".to_owned()),
            _ if self.force => Err("--force is for: tgreplica promote".to_owned()),
            [word, logdir, words @ ..] if word == Path::new("replicas") => {
                Ok(Wanted::Replicas(logdir, replicas::request(words)?))
            }
            [logdir] if self.watch.is_some() => Err(format!("--watch is for: tgreplica status {}", logdir.display())),
            [word] if NEED_A_DIRECTORY.iter().any(|known| word == Path::new(known)) => {
                let word = word.display();
                Err(format!("expected: tgreplica {word} <LOGDIR> (a directory of this name is ./{word})"))
            }
            [logdir] => Ok(Wanted::Serve(logdir)),
            [word, logdir] if word == Path::new("repair") => Ok(Wanted::Repair(logdir)),
            [word, logdir] if word == Path::new("rejoin") => Ok(Wanted::Rejoin(logdir)),
            [word, logdir] if word == Path::new("status") => Ok(Wanted::Status(logdir)),
            [] => Err("expected one argument, found none".to_owned()),
            more => Err(format!("expected one argument, found {}", more.len())),
        }
    }
}
