// SPDX-License-Identifier: Apache-2.0
//! Serves `/metrics` and `/healthz` over HTTP. One request for each connection, a bounded number of connections, and a
//! bound on the time of each: when there are too many the oldest goes, so that no client keeps others away.

use super::request::{self, Request};
use super::settings::MetricsEndpoint;
use super::text::{self, Form};
use super::{families, health};
use crate::error::Error;
use crate::replication::net::connection::{close_in_order, Connection};
use crate::replication::net::deadline::Deadline;
use crate::replication::net::limits::Limits;
use crate::replication::net::listener::{listen, Listener};
use crate::replication::report::Report;
use crate::replication::status::Side;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// Connections at a time; scrapers and load balancers need a few.
const CONNECTIONS: Limits = Limits { known_max: 1, strangers_max: 16 };
/// For a whole request and its answer.
const DEADLINE: Duration = Duration::from_secs(2);

/// Answers while it lives.
#[derive(Debug)]
pub struct Server(Listener);

/// What is answered.
struct Response {
    status: &'static str,
    content_type: &'static str,
    body: String,
}

impl Server {
    /// Begins to answer with what `report` says.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn start(
        endpoint: &MetricsEndpoint,
        report: impl Fn() -> Report + Send + Sync + 'static,
    ) -> io::Result<Server> {
        let serve = move |connection: Connection, _: &_| answer(connection, &report);
        let panicked = |panic: &Error| log::error!("metrics are not served any more: {panic}");
        Listener::start(listen(&endpoint.0)?, CONNECTIONS, serve, panicked).map(Server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }
}

fn answer(connection: Connection, report: &impl Fn() -> Report) {
    let (mut read, mut write) = connection.split(Deadline::after(DEADLINE));
    let (response, head_only) = match request::read(&mut read) {
        Ok(request) => (respond(&request, report), request.head_only),
        Err(Some(status)) => (Response::plain(status, status.to_owned()), false),
        Err(None) => return,
    };
    let Response { status, content_type, body } = response;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Allow: GET, HEAD\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let body = if head_only { "" } else { &body };
    // Who asked and does not listen gets nothing.
    if write.write_all(format!("{head}{body}").as_bytes()).is_ok() {
        close_in_order(read, &mut write);
    }
}

fn respond(request: &Request, report: &impl Fn() -> Report) -> Response {
    match (request.path.as_str(), request.query.as_deref()) {
        ("/metrics", _) => {
            let form = if request.accepts_openmetrics { Form::OpenMetrics } else { Form::Prometheus };
            let body = text::write(&families::of(&report()), form);
            Response { status: "200 OK", content_type: form.content_type(), body }
        }
        ("/healthz", None) => of_health(health::of(&report(), None)),
        ("/healthz", Some("role=primary")) => of_health(health::of(&report(), Some(Side::Primary))),
        ("/healthz", Some("role=replica")) => of_health(health::of(&report(), Some(Side::Replica))),
        ("/healthz", Some(_)) => {
            Response::plain("400 Bad Request", "role=primary or role=replica was expected".to_owned())
        }
        _ => Response::plain("404 Not Found", "/metrics, /healthz".to_owned()),
    }
}

fn of_health(health: health::Health) -> Response {
    match health {
        Ok(why) => Response::plain("200 OK", why),
        Err(why) => Response::plain("503 Service Unavailable", why),
    }
}

impl Response {
    fn plain(status: &'static str, line: String) -> Response {
        Response { status, content_type: "text/plain; charset=utf-8", body: line + "\n" }
    }
}
