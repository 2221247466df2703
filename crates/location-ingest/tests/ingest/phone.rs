//! A phone: plain HTTP/1.1 over a socket, so that a test can also send what no proper client would.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::cluster::LIMIT;

pub(crate) const SINGLE: &str = "/api/drivers/location";
pub(crate) const BATCH: &str = "/api/drivers/locations";

/// One keep-alive connection.
pub(crate) struct Phone {
    stream: BufReader<TcpStream>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The code of a problem whose whole form has been checked.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], self.status, "{self:?}");
        for key in ["type", "title", "detail"] {
            assert!(body[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {self:?}");
        }
        assert_eq!(self.header("retry-after").is_some(), [429, 503].contains(&self.status), "{self:?}");
        for header in ["x-next-update-ms", "ratelimit", "ratelimit-policy"] {
            assert!(self.header(header).is_some(), "{header} in {self:?}");
        }
        body["code"].as_str().unwrap().to_owned()
    }
}

impl Phone {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: BufReader::new(TcpStream::connect(address).await.unwrap()) }
    }

    /// None when nobody listens there.
    pub(crate) async fn try_connect(address: SocketAddr) -> Option<Self> {
        Some(Self { stream: BufReader::new(TcpStream::connect(address).await.ok()?) })
    }

    /// Posts JSON and waits for the answer.
    pub(crate) async fn post(&mut self, path: &str, body: &str) -> Answer {
        self.send(&request("POST", path, &["Content-Type: application/json"], body)).await
    }

    /// Sends raw bytes and waits for one answer.
    pub(crate) async fn send(&mut self, bytes: &str) -> Answer {
        self.write(bytes).await;
        self.answer().await
    }

    pub(crate) async fn write(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).await.unwrap();
    }

    pub(crate) async fn write_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Fails when the server has closed the connection.
    pub(crate) async fn try_write(&mut self, bytes: &str) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_bytes()).await
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("an answer before the connection ends")
    }

    /// None when the server closes the connection (or has) instead of answering.
    pub(crate) async fn try_answer(&mut self) -> Option<Answer> {
        tokio::time::timeout(LIMIT, self.read()).await.expect("an answer or the end of the connection")
    }

    async fn read(&mut self) -> Option<Answer> {
        let status = self.line().await?.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut answer = Answer { status, headers, body: String::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        answer.body = String::from_utf8(body).unwrap();
        Some(answer)
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).await.ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// Whether the server has closed the connection, without a further answer.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        let read = tokio::time::timeout(LIMIT, self.stream.read(&mut byte)).await.expect("the end of the connection");
        !matches!(read, Ok(1..))
    }
}

/// A request with a right Content-Length.
pub(crate) fn request(method: &str, path: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: ingest\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

pub(crate) fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A right position of `driver`, taken at `timestamp`.
pub(crate) fn position(driver: &str, timestamp: i64) -> Value {
    json!({"driverId": driver, "latitude": 40.7128, "longitude": -74.006, "heading": 90, "speed": 31.5, "timestamp": timestamp})
}
