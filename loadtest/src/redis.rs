//! The little of Redis' protocol (RESP2) that a reader needs: PING, MGET and INFO, each within a limit, on one connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Limit for connecting and for one command.
const COMMAND_WITHIN: Duration = Duration::from_millis(500);
/// Longest value that is read.
const MAX_VALUE_BYTES: usize = 1024 * 1024;

/// One connection.
#[derive(Debug)]
pub struct Redis {
    stream: BufStream<TcpStream>,
}

/// An answer of the kinds that these commands have.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Simple(String),
    Bulk(Option<Vec<u8>>),
    Array(usize),
}

impl Redis {
    /// Connects and makes sure that the server serves: while it loads its data it refuses.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        limited(async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut redis = Self { stream: BufStream::new(stream) };
            redis.send(&[b"PING"]).await?;
            match redis.reply().await? {
                Reply::Simple(pong) if pong == "PONG" => Ok(redis),
                other => Err(unexpected(&other)),
            }
        })
        .await
    }

    /// The values of `keys`, in their order.
    pub async fn mget(&mut self, keys: &[Vec<u8>]) -> io::Result<Vec<Option<Vec<u8>>>> {
        limited(async {
            let mut command: Vec<&[u8]> = vec![b"MGET"];
            command.extend(keys.iter().map(Vec::as_slice));
            self.send(&command).await?;
            let Reply::Array(length) = self.reply().await? else { return Err(unexpected("no array")) };
            let mut values = Vec::with_capacity(keys.len());
            for _ in 0..length {
                match self.reply().await? {
                    Reply::Bulk(value) => values.push(value),
                    other => return Err(unexpected(&other)),
                }
            }
            Ok(values)
        })
        .await
    }

    /// Version of the server.
    pub async fn version(&mut self) -> io::Result<String> {
        limited(async {
            self.send(&[b"INFO", b"server"]).await?;
            let Reply::Bulk(Some(text)) = self.reply().await? else { return Err(unexpected("no text")) };
            let text = String::from_utf8_lossy(&text).into_owned();
            let version = text.lines().find_map(|line| line.strip_prefix("redis_version:"));
            version.map(|version| version.trim().to_owned()).ok_or_else(|| unexpected("no redis_version"))
        })
        .await
    }

    async fn send(&mut self, command: &[&[u8]]) -> io::Result<()> {
        self.stream.write_all(format!("*{}\r\n", command.len()).as_bytes()).await?;
        for part in command {
            self.stream.write_all(format!("${}\r\n", part.len()).as_bytes()).await?;
            self.stream.write_all(part).await?;
            self.stream.write_all(b"\r\n").await?;
        }
        self.stream.flush().await
    }

    async fn reply(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| unexpected("an empty line"))?;
        match kind {
            "+" => Ok(Reply::Simple(rest.to_owned())),
            "*" => rest.parse().map(Reply::Array).map_err(|_| unexpected(line)),
            "$" if rest == "-1" => Ok(Reply::Bulk(None)),
            "$" => self.bulk(rest.parse().map_err(|_| unexpected(line))?).await,
            _ => Err(unexpected(line)),
        }
    }

    async fn bulk(&mut self, length: usize) -> io::Result<Reply> {
        if length > MAX_VALUE_BYTES {
            return Err(unexpected("a value beyond the limit"));
        }
        let mut value = vec![0; length + 2];
        self.stream.read_exact(&mut value).await?;
        value.truncate(length);
        Ok(Reply::Bulk(Some(value)))
    }
}

async fn limited<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(COMMAND_WITHIN, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn unexpected(what: impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("Redis answered {what:?}"))
}
