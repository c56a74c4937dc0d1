// SPDX-License-Identifier: Apache-2.0
//! What an HTTP client asks for, from a bounded number of bytes.

use std::io::Read;

/// Of a request's line and headers together.
const HEAD_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub path: String,
    /// What stands behind the question mark.
    pub query: Option<String>,
    /// Only the head of the answer is wanted.
    pub head_only: bool,
    pub accepts_openmetrics: bool,
}

/// Why there is no request: the status of the answer, or nothing when the client is gone or too slow.
pub type Refused = Option<&'static str>;

/// Reads the head of one request.
pub fn read(client: &mut impl Read) -> Result<Request, Refused> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let got = client.read(&mut piece).map_err(|_| None)?;
        head.extend_from_slice(&piece[..got]);
        if let Some(request) = parse(&head)? {
            return Ok(request);
        }
        match got {
            0 => return Err(None),
            _ if head.len() >= HEAD_BYTES_MAX => return Err(Some("431 Request Header Fields Too Large")),
            _ => {}
        }
    }
}

/// `None` while the end is missing.
fn parse(head: &[u8]) -> Result<Option<Request>, Refused> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Some("431 Request Header Fields Too Large")),
        Err(_) => return Err(Some("400 Bad Request")),
    }
    let head_only = match parsed.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Some("405 Method Not Allowed")),
    };
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query.to_owned())));
    let accepts_openmetrics = parsed.headers.iter().any(|header| {
        let value = header.value.to_ascii_lowercase();
        header.name.eq_ignore_ascii_case("accept")
            && value.windows(b"openmetrics-text".len()).any(|part| part == b"openmetrics-text")
    });
    Ok(Some(Request { path: path.to_owned(), query, head_only, accepts_openmetrics }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_read_in_pieces_and_its_body_is_not() {
        struct Dripping<'a>(&'a [u8]);
        impl Read for Dripping<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                self.0.read(&mut buffer[..1])
            }
        }
        let sent = b"GET /healthz?role=replica HTTP/1.1\r\nHost: a\r\n\
            Accept: text/plain, application/OpenMetrics-text;q=1\r\n\r\nbody";
        let request = read(&mut Dripping(sent)).unwrap();
        assert_eq!((request.path.as_str(), request.query.as_deref()), ("/healthz", Some("role=replica")));
        assert!(request.accepts_openmetrics && !request.head_only);
        let plain = read(&mut &b"HEAD / HTTP/1.0\r\n\r\n"[..]).unwrap();
        assert!(plain.head_only && !plain.accepts_openmetrics && plain.query.is_none());
    }

    #[test]
    fn what_is_no_request_or_too_long_is_refused() {
        let refusal = |sent: &[u8]| read(&mut &sent[..]).unwrap_err();
        assert_eq!(refusal(b"POST /metrics HTTP/1.1\r\n\r\n"), Some("405 Method Not Allowed"));
        assert_eq!(refusal(b"\x16\x03\x01\x02\x00"), Some("400 Bad Request"));
        assert_eq!(refusal(b"GET / HTTP/1.1\r\nHost"), None);
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(100_000));
        assert!(refusal(long.as_bytes()).unwrap().starts_with("431"));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));
        assert!(refusal(many.as_bytes()).unwrap().starts_with("431"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = read(&mut &bytes[..]);
        }
    }
}
