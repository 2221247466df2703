//! Responses, read as little as keeps a connection in step: status, length of the body, and whether the connection stays open.

use std::ops::Range;

use memchr::{memchr, memmem};
use serde::Deserialize;

/// Longest head that is read before the peer is given up.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Where the status code stands in `HTTP/1.1 202 Accepted`.
const STATUS: Range<usize> = 9..12;

/// A response that has arrived whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Where the body is in the bytes read.
    pub body: Range<usize>,
    /// Whether the connection may be used again.
    pub connection: After,
}

/// What becomes of the connection behind a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It may carry the next request.
    Open,
    /// The peer closes it.
    Close,
}

/// The peer does not speak HTTP/1.1 as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an HTTP/1.1 response")]
pub struct Malformed;

/// Reads one response; `None` until all of it is there.
pub fn parse(bytes: &[u8]) -> Result<Option<Response>, Malformed> {
    let Some(head) = Head::parse(bytes)? else {
        return if bytes.len() > MAX_HEAD_BYTES { Err(Malformed) } else { Ok(None) };
    };
    let rest = &bytes[head.bytes..];
    let length = match head.framing {
        Framing::Length(length) => Some(length),
        Framing::Chunked => memmem::find(rest, b"0\r\n\r\n").map(|at| at + 5),
    };
    match length {
        Some(length) if rest.len() > length => Err(Malformed),
        Some(length) if rest.len() == length => {
            let body = head.bytes..bytes.len();
            Ok(Some(Response { status: head.status, body, connection: head.connection }))
        }
        _ => Ok(None),
    }
}

enum Framing {
    Length(usize),
    Chunked,
}

struct Head {
    status: u16,
    framing: Framing,
    connection: After,
    bytes: usize,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some(mut at) = line_end(bytes, 0) else { return Ok(None) };
        let mut head = Self { status: status(bytes)?, framing: Framing::Length(0), connection: After::Open, bytes: 0 };
        while let Some(end) = line_end(bytes, at) {
            let line = bytes[at..end].trim_ascii();
            at = end;
            if line.is_empty() {
                head.bytes = end;
                return Ok(Some(head));
            }
            head.field(line)?;
        }
        Ok(None)
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Malformed> {
        // The first letter rules out nearly every field at the price of one comparison.
        match line[0] | 0x20 {
            b'c' => {
                if let Some(value) = value_of(line, b"content-length:") {
                    let text = std::str::from_utf8(value).map_err(|_| Malformed)?;
                    self.framing = Framing::Length(text.parse().map_err(|_| Malformed)?);
                } else if value_of(line, b"connection:").is_some_and(|value| value.eq_ignore_ascii_case(b"close")) {
                    self.connection = After::Close;
                }
            }
            b't' if value_of(line, b"transfer-encoding:").is_some() => self.framing = Framing::Chunked,
            _ => {}
        }
        Ok(())
    }
}

fn line_end(bytes: &[u8], from: usize) -> Option<usize> {
    memchr(b'\n', &bytes[from..]).map(|at| from + at + 1)
}

fn status(bytes: &[u8]) -> Result<u16, Malformed> {
    let digits = bytes.get(STATUS).filter(|_| bytes.starts_with(b"HTTP/1.1 ")).ok_or(Malformed)?;
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or(Malformed)
}

fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

/// The answer to an array, item by item.
#[derive(Debug, Deserialize)]
pub struct BatchAnswer {
    /// How many items were accepted.
    pub accepted: u32,
    /// The others.
    #[serde(default)]
    pub rejected: Vec<RejectedItem>,
}

/// One item that was not accepted.
#[derive(Debug, Deserialize)]
pub struct RejectedItem {
    /// Its place in the array.
    pub index: usize,
}

impl BatchAnswer {
    /// Reads the body of an answer to `items` items; `None` when it does not add up.
    #[must_use]
    pub fn parse(body: &[u8], items: u32) -> Option<Self> {
        let answer: Self = serde_json::from_slice(body).ok()?;
        let adds_up = answer.accepted as usize + answer.rejected.len() == items as usize;
        let in_range = answer.rejected.iter().all(|item| item.index < items as usize);
        (adds_up && in_range).then_some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPTED: &[u8] =
        b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 22\r\ndate: x\r\n\r\n{\"nextUpdateMs\":2000}\n";

    #[test]
    fn a_response_is_complete_with_its_last_byte_and_not_before() {
        for length in 0..ACCEPTED.len() {
            assert_eq!(parse(&ACCEPTED[..length]), Ok(None), "{length}");
        }
        let response = parse(ACCEPTED).unwrap().unwrap();
        assert_eq!(response.status, 202);
        assert_eq!(response.connection, After::Open);
        assert_eq!(&ACCEPTED[response.body], b"{\"nextUpdateMs\":2000}\n");
    }

    #[test]
    fn a_response_may_have_no_body_and_close() {
        let response = parse(b"HTTP/1.1 503 Service Unavailable\r\nconnection: Close\r\n\r\n").unwrap().unwrap();
        assert_eq!((response.status, response.connection), (503, After::Close));
    }

    #[test]
    fn a_chunked_response_ends_with_its_last_chunk() {
        let bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        assert_eq!(parse(&bytes[..bytes.len() - 1]), Ok(None));
        assert_eq!(parse(bytes).unwrap().unwrap().status, 200);
    }

    #[test]
    fn what_is_not_http_is_malformed() {
        assert_eq!(parse(b"SSH-2.0-OpenSSH\r\n"), Err(Malformed));
        assert_eq!(parse(b"HTTP/1.1 202 A\r\ncontent-length: x\r\n\r\n"), Err(Malformed));
        assert_eq!(parse(b"HTTP/1.1 202 A\r\ncontent-length: 1\r\n\r\nab"), Err(Malformed));
    }

    #[test]
    fn an_answer_that_does_not_add_up_is_none() {
        assert!(BatchAnswer::parse(br#"{"accepted":2,"rejected":[],"nextUpdateMs":2000}"#, 2).is_some());
        assert!(
            BatchAnswer::parse(br#"{"accepted":1,"rejected":[{"index":1,"code":"x","retry":false}]}"#, 2).is_some()
        );
        assert!(BatchAnswer::parse(br#"{"accepted":1,"rejected":[]}"#, 2).is_none());
        assert!(BatchAnswer::parse(br#"{"accepted":1,"rejected":[{"index":2}]}"#, 2).is_none());
    }
}
