//! One HTTP GET by hand: enough to ask a service whether it is ready.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Connecting, sending and each read; a service on the same machine that needs longer is not ready.
const STEP_LIMIT: Duration = Duration::from_secs(2);
/// The longest answer that is read: `/metrics` of a service is far below.
const MAX_ANSWER_BYTES: u64 = 4 << 20;

/// An answer: its status and its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body, as text.
    pub body: String,
}

/// Gets `http://HOST:PORT/PATH`, without redirects or TLS.
///
/// # Errors
/// What the connection said, or `InvalidInput` and `InvalidData` for an address or an answer that is not HTTP.
pub fn get(url: &str) -> io::Result<Answer> {
    let (authority, path) = split(url).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not http://…"))?;
    let address = resolve(authority)?;
    let mut stream = TcpStream::connect_timeout(&address, STEP_LIMIT)?;
    stream.set_read_timeout(Some(STEP_LIMIT))?;
    stream.set_write_timeout(Some(STEP_LIMIT))?;
    // 1.0 without keep-alive: the body ends with the connection and is never chunked.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {authority}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

fn split(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    Some(rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash)))
}

fn resolve(authority: &str) -> io::Result<SocketAddr> {
    authority.to_socket_addrs()?.next().ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_path_asks_for_the_root() {
        assert_eq!(split("http://127.0.0.1:9101"), Some(("127.0.0.1:9101", "/")));
        assert_eq!(split("http://127.0.0.1:9101/readyz"), Some(("127.0.0.1:9101", "/readyz")));
        assert_eq!(split("https://127.0.0.1/"), None);
    }

    #[test]
    fn status_and_body_are_read_from_the_answer() {
        let answer = parse("HTTP/1.1 503 Service Unavailable\r\nx: y\r\n\r\n{\"ready\":false}").unwrap();
        assert_eq!(answer, Answer { status: 503, body: "{\"ready\":false}".to_owned() });
        assert_eq!(parse("SSH-2.0-x\r\n\r\n"), None);
    }
}
