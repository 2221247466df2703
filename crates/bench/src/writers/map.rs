//! Redis as it is seen from outside: its own counters and the values in it, over a socket of the bench's own.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::DRIVERS;
use super::feed::driver_name;
use crate::error::Error;
use crate::meter;

const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Keys in one MGET: it holds Redis up for about a millisecond.
const KEYS_PER_LOOK: usize = 1_000;
/// `--key-prefix` of redis-writer.
const KEY_PREFIX: &str = "driver:loc:";

/// A connection to Redis.
pub(super) struct Map {
    stream: BufReader<TcpStream>,
    benchmark: PathBuf,
    port: u16,
}

/// What Redis answers.
enum Reply {
    Text(Vec<u8>),
    Nothing,
    List(Vec<Reply>),
}

/// What redis-benchmark reached, and used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plain {
    pub(super) rate: f64,
    pub(super) client_us: f64,
}

impl Map {
    pub(super) fn open(redis: &native::Redis) -> Result<Self, Error> {
        let failed = || Error::io("connect to", "Redis");
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, redis.port())).map_err(failed())?;
        stream.set_read_timeout(Some(ANSWER_LIMIT)).map_err(failed())?;
        stream.set_nodelay(true).map_err(failed())?;
        let benchmark = native::ensure_tools()?.redis.with_file_name("redis-benchmark");
        Ok(Self { stream: BufReader::new(stream), benchmark, port: redis.port() })
    }

    /// Nothing in it, all counters at zero.
    pub(super) fn reset(&mut self) -> Result<(), Error> {
        self.command(&["FLUSHALL"])?;
        self.command(&["CONFIG", "RESETSTAT"]).map(drop)
    }

    /// SET commands that Redis counted, those of scripts included.
    pub(super) fn writes(&mut self) -> Result<u64, Error> {
        let text = self.info("commandstats")?;
        let line = text.lines().find_map(|line| line.strip_prefix("cmdstat_set:calls="));
        number("cmdstat_set", line.map_or("0", |rest| rest.split(',').next().unwrap_or(rest)))
    }

    /// Keys whose time was over.
    pub(super) fn expired(&mut self) -> Result<u64, Error> {
        let text = self.info("stats")?;
        number("expired_keys", text.lines().find_map(|line| line.strip_prefix("expired_keys:")).unwrap_or("none"))
    }

    /// Keys that are there.
    pub(super) fn keys(&mut self) -> Result<u64, Error> {
        let reply = self.command(&["DBSIZE"])?;
        number("DBSIZE", &text_of(reply))
    }

    /// The value under a driver's key.
    pub(super) fn value(&mut self, driver: &str) -> Result<Option<Vec<u8>>, Error> {
        match self.command(&["GET", &format!("{KEY_PREFIX}{driver}")])? {
            Reply::Text(value) => Ok(Some(value)),
            _ => Ok(None),
        }
    }

    /// The first driver whose value is not `right`, if there is one, looking at every `step`th.
    pub(super) fn first_wrong(
        &mut self,
        step: usize,
        right: impl Fn(u64, &[u8]) -> bool,
    ) -> Result<Option<String>, Error> {
        let drivers: Vec<u64> = (0..DRIVERS).step_by(step).collect();
        for drivers in drivers.chunks(KEYS_PER_LOOK) {
            for (driver, value) in drivers.iter().zip(self.values(drivers)?) {
                if !right(*driver, &value) {
                    return Ok(Some(format!("{}: {:?}", driver_name(*driver), String::from_utf8_lossy(&value))));
                }
            }
        }
        Ok(None)
    }

    /// The values of some drivers; nothing in those that are not there.
    fn values(&mut self, drivers: &[u64]) -> Result<Vec<Vec<u8>>, Error> {
        let keys: Vec<String> = drivers.iter().map(|driver| format!("{KEY_PREFIX}{}", driver_name(*driver))).collect();
        let words: Vec<&str> = ["MGET"].into_iter().chain(keys.iter().map(String::as_str)).collect();
        let Reply::List(values) = self.command(&words)? else { return Err(Error::client("MGET: no list")) };
        let bytes = |value| if let Reply::Text(bytes) = value { bytes } else { Vec::new() };
        Ok(values.into_iter().map(bytes).collect())
    }

    /// SETs of `value_bytes` under random keys, pipelined: what Redis takes from its own benchmark.
    pub(super) fn benchmark(&self, commands: u64, value_bytes: usize) -> Result<Plain, Error> {
        let (port, commands_text) = (self.port.to_string(), commands.to_string());
        let (drivers, value_bytes) = (DRIVERS.to_string(), value_bytes.to_string());
        let cpu_s = meter::children_cpu_s();
        let output = Command::new(&self.benchmark)
            .args(["-h", "127.0.0.1", "-p", &port, "-t", "set", "-P", "200", "-c", "12", "--csv"])
            .args(["-r", &drivers, "-n", &commands_text, "-d", &value_bytes])
            .output()
            .map_err(Error::io("run", &self.benchmark))?;
        let cpu_s = meter::children_cpu_s() - cpu_s;
        let text = String::from_utf8_lossy(&output.stdout);
        let rate = text.lines().find_map(|line| line.strip_prefix("\"SET\",\"")?.split('"').next()?.parse().ok());
        let rate = rate.ok_or_else(|| Error::Client(format!("redis-benchmark: {text}")))?;
        Ok(Plain { rate, client_us: cpu_s / commands as f64 * 1e6 })
    }

    fn info(&mut self, section: &str) -> Result<String, Error> {
        self.command(&["INFO", section]).map(text_of)
    }

    fn command(&mut self, words: &[&str]) -> Result<Reply, Error> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        self.stream.get_mut().write_all(&bytes).map_err(Error::io("write to", "Redis"))?;
        self.reply()
    }

    fn reply(&mut self) -> Result<Reply, Error> {
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(Error::io("read from", "Redis"))?;
        let line = line.trim_end();
        match line.split_at_checked(1) {
            Some(("+" | ":", text)) => Ok(Reply::Text(text.as_bytes().to_vec())),
            Some(("$" | "*", "-1")) => Ok(Reply::Nothing),
            Some(("$", length)) => self.bytes(number("length", length)?).map(Reply::Text),
            Some(("*", count)) => {
                (0..number("count", count)?).map(|_| self.reply()).collect::<Result<_, _>>().map(Reply::List)
            }
            _ => Err(Error::Client(format!("Redis answered {line:?}"))),
        }
    }

    fn bytes(&mut self, length: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; length as usize + 2];
        std::io::Read::read_exact(&mut self.stream, &mut bytes).map_err(Error::io("read from", "Redis"))?;
        bytes.truncate(length as usize);
        Ok(bytes)
    }
}

fn text_of(reply: Reply) -> String {
    match reply {
        Reply::Text(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Reply::Nothing | Reply::List(_) => String::new(),
    }
}

fn number(what: &str, text: &str) -> Result<u64, Error> {
    text.parse().map_err(|_| Error::Client(format!("Redis: {what} is {text:?}")))
}
