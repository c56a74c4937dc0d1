// SPDX-License-Identifier: Apache-2.0
//! What stands between a connection and its socket where TLS is used. Both halves share one state, which is locked
//! while bytes are turned and never while one waits for the socket.

use crate::lock_order::{Mutex, Rank};
use rustls::{AlertDescription, CertificateError, Connection, Error};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

/// Bytes that are read from the socket at a time: some records.
const RAW_BYTES: usize = 64 << 10;

/// The receiving direction.
pub(super) struct Receiving {
    state: Arc<Mutex<Connection>>,
    raw: Box<[u8]>,
    begin: usize,
    end: usize,
}

/// The sending direction. There is one for a connection: what it has encrypted has to go out in that order.
pub(super) struct Sending {
    state: Arc<Mutex<Connection>>,
    encrypted: Vec<u8>,
    sent: usize,
}

impl fmt::Debug for Receiving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiving({} bytes)", self.end - self.begin)
    }
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sending({} bytes)", self.encrypted.len() - self.sent)
    }
}

/// Goes through the handshake, after which both sides have shown their certificates. The other side is told of a
/// failure.
pub(super) fn handshake(state: &mut Connection, socket: &mut (impl Read + Write)) -> io::Result<()> {
    while state.is_handshaking() {
        if let Err(e) = state.complete_io(socket) {
            // Not all of what tells the other side may be on its way; it may have gone as well.
            while state.wants_write() && state.write_tls(socket).is_ok_and(|written| written > 0) {}
            return Err(why_it_failed(e));
        }
    }
    Ok(())
}

fn why_it_failed(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
        Some(error) => in_words(error),
        None if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => io::Error::new(
            error.kind(),
            "the other side ended the TLS handshake: does it use TLS, and accept this side's certificate?",
        ),
        None => error,
    }
}

/// Both directions behind a handshake.
pub(super) fn split(state: Connection) -> (Receiving, Sending) {
    let state = Arc::new(Mutex::new(Rank::Leaf, state));
    let raw = vec![0; RAW_BYTES].into();
    let receiving = Receiving { state: state.clone(), raw, begin: 0, end: 0 };
    (receiving, Sending { state, encrypted: Vec::new(), sent: 0 })
}

fn in_words(error: &Error) -> io::Error {
    let text = match error {
        Error::InvalidMessage(_) => {
            "the other side does not speak TLS: set TSURUGI_REPLICATION_TLS_CERT on both sides or on none".to_owned()
        }
        Error::AlertReceived(alert) => format!("TLS: the other side refuses: {}", refusal(*alert)),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "TLS: the other side's certificate is of no CA in TSURUGI_REPLICATION_TLS_CA".to_owned()
        }
        Error::InvalidCertificate(CertificateError::UnknownRevocationStatus) => {
            "TLS: no list in TSURUGI_REPLICATION_TLS_CRL is of the CA of the other side's certificate".to_owned()
        }
        Error::NoCertificatesPresented => "TLS: the other side shows no certificate".to_owned(),
        other => format!("TLS: {other}"),
    };
    io::Error::new(ErrorKind::InvalidData, text)
}

fn refusal(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateExpired => "this side's certificate has expired".to_owned(),
        AlertDescription::CertificateRevoked => "this side's certificate was revoked".to_owned(),
        AlertDescription::UnknownCA => "this side's certificate is of a CA that it does not know".to_owned(),
        AlertDescription::BadCertificate => "this side's certificate is not one that it accepts".to_owned(),
        AlertDescription::CertificateRequired => "this side shows no certificate".to_owned(),
        other => format!("{other:?}"),
    }
}

impl Receiving {
    /// Bytes that were sent, and 0 at the end. A connection that was cut ends like one that was closed: here neither
    /// is an end in good order.
    pub(super) fn read(&mut self, socket: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut state = self.state.lock();
            match state.reader().read(buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            if self.begin < self.end {
                let mut raw = &self.raw[self.begin..self.end];
                self.begin += state.read_tls(&mut raw)?;
                state.process_new_packets().map_err(|e| in_words(&e))?;
                continue;
            }
            drop(state);
            (self.begin, self.end) = (0, socket.read(&mut self.raw)?);
            if self.end == 0 {
                return Ok(0);
            }
        }
    }

    /// Bytes that were taken from the socket and not read, decrypted or not.
    pub(super) fn waiting_bytes(&self) -> usize {
        let decrypted = self.state.lock().process_new_packets().map_or(0, |state| state.plaintext_bytes_to_read());
        self.end - self.begin + decrypted
    }
}

impl Sending {
    /// Sends some of the bytes, and says how many.
    pub(super) fn write(&mut self, socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
        self.flush(socket)?;
        let taken = {
            let mut state = self.state.lock();
            let taken = state.writer().write(bytes)?;
            take(&mut state, &mut self.encrypted)?;
            taken
        };
        self.flush(socket)?;
        Ok(taken)
    }

    /// Says that nothing more comes.
    pub(super) fn end(&mut self, socket: &mut impl Write) -> io::Result<()> {
        {
            let mut state = self.state.lock();
            state.send_close_notify();
            take(&mut state, &mut self.encrypted)?;
        }
        self.flush(socket)
    }

    fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while self.sent < self.encrypted.len() {
            match socket.write(&self.encrypted[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => self.sent += sent,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.encrypted.clear();
        self.sent = 0;
        Ok(())
    }
}

fn take(state: &mut Connection, encrypted: &mut Vec<u8>) -> io::Result<()> {
    while state.wants_write() {
        state.write_tls(encrypted)?;
    }
    Ok(())
}
