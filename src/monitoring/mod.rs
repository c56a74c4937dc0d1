// SPDX-License-Identifier: Apache-2.0
//! How whoever serves a directory is seen from outside: its status on the socket in the directory, metrics as text
//! ([`families`], [`text`]), whether it is in order ([`health`]), and both over HTTP ([`http`]). Reads reports and
//! changes nothing; holds nobody up who works.

pub mod families;
pub mod health;
pub mod http;
mod request;
pub mod settings;
pub mod text;

use crate::replication::report::Report;
use crate::replication::status_socket::StatusSocket;
use settings::MetricsEndpoint;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// Answers for a directory while it lives.
#[derive(Debug)]
pub struct Monitoring {
    _socket: Option<StatusSocket>,
    server: Option<http::Server>,
}

impl Monitoring {
    /// Begins to answer on the socket in the directory `location`, and over HTTP where `endpoint` says. `report` must
    /// not wait for anything that can take long. What cannot be answered is logged: the directory is served all the
    /// same.
    pub fn start(
        location: &Path,
        endpoint: Option<&MetricsEndpoint>,
        report: impl Fn() -> Report + Send + Sync + 'static,
    ) -> Monitoring {
        let report = Arc::new(report);
        let _socket = {
            let report = report.clone();
            StatusSocket::start(location, move || report())
                .inspect_err(|e| log::warn!("questions for the status of {} are not answered: {e}", location.display()))
                .ok()
        };
        let server = endpoint.and_then(|endpoint| {
            http::Server::start(endpoint, move || report())
                .inspect(|server| log::info!("metrics: listening on {}", server.address()))
                .inspect_err(|e| log::error!("metrics: {endpoint} cannot be served, the rest goes on without: {e}"))
                .ok()
        });
        Monitoring { _socket, server }
    }

    /// Where it answers over HTTP.
    pub fn address(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(http::Server::address)
    }
}
