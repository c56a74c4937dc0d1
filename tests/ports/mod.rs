// SPDX-License-Identifier: Apache-2.0
//! Ports for servers that tests stop and start again at the same place. The system gives a port that it chose itself to
//! the next who asks, and to connections that go out, as soon as it is free; so these come from below its range.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const FIRST: u32 = 10_240;
/// Where the range of Linux begins.
const END: u32 = 32_768;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port of 127.0.0.1 that nobody listens on, and that no other caller in this process gets soon.
pub fn free_port() -> u16 {
    loop {
        // Processes that run at one time begin at different places.
        let number = std::process::id().wrapping_mul(193).wrapping_add(NEXT.fetch_add(1, Relaxed));
        let port = (FIRST + number % (END - FIRST)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
