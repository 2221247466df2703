//! HTTP/1.1 as a phone speaks it: one connection that is kept, one request at a time.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// One position.
const SINGLE: &str = "/api/drivers/location";
/// Many.
const BATCH: &str = "/api/drivers/locations";

/// A connection to location-ingest.
#[derive(Debug)]
pub struct Phone {
    stream: BufReader<TcpStream>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body, as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON. Panics when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

impl Phone {
    /// Connects.
    ///
    /// # Errors
    /// What the system said.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Posts one position.
    ///
    /// # Errors
    /// The connection ended before the answer: what became of the position is unknown.
    pub async fn post(&mut self, position: &str) -> io::Result<Answer> {
        self.send(SINGLE, position).await
    }

    /// Posts an array of positions.
    ///
    /// # Errors
    /// The connection ended before the answer: what became of the positions is unknown.
    pub async fn post_batch(&mut self, positions: &str) -> io::Result<Answer> {
        self.send(BATCH, positions).await
    }

    async fn send(&mut self, path: &str, body: &str) -> io::Result<Answer> {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: ingest\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> io::Result<Answer> {
        let status = self.line().await?.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(not_http())?;
        let mut length = 0;
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(": ") else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().map_err(|_| not_http())?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(Answer { status, body: String::from_utf8(body).map_err(|_| not_http())? })
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

fn not_http() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP")
}
