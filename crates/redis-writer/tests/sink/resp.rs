//! A reader's view of Redis: commands over a socket of our own, independent of the sink's client.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

/// An answer of Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Status(String),
    Error(String),
    Integer(i64),
    Bytes(Vec<u8>),
    Nothing,
    Array(Vec<Answer>),
}

impl Answer {
    pub(crate) fn integer(self) -> i64 {
        match self {
            Self::Integer(number) => number,
            other => panic!("not a number: {other:?}"),
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::Status(text) | Self::Error(text) => text,
            Self::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
            other => panic!("no text: {other:?}"),
        }
    }

    pub(crate) fn list(self) -> Vec<Answer> {
        match self {
            Self::Array(list) => list,
            other => panic!("no list: {other:?}"),
        }
    }

    pub(crate) fn bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Nothing => None,
            other => panic!("not a value: {other:?}"),
        }
    }
}

/// Sends one command and waits for its answer.
pub(crate) fn command(port: u16, words: &[&str]) -> Answer {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(&encoded(words)).unwrap();
    read(&mut BufReader::new(stream))
}

/// Sends commands over one connection; the answer to the last.
pub(crate) fn conversation(port: u16, commands: &[&[&str]]) -> Answer {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    commands.iter().for_each(|words| stream.write_all(&encoded(words)).unwrap());
    let mut input = BufReader::new(stream);
    commands.iter().map(|_| read(&mut input)).last().unwrap()
}

/// Sends one command that must succeed.
pub(crate) fn ok(port: u16, words: &[&str]) {
    let answer = command(port, words);
    assert!(!matches!(answer, Answer::Error(_)), "{words:?}: {answer:?}");
}

/// Sends one command and does not wait; the connection stays open as long as the value lives.
pub(crate) fn send(port: u16, words: &[&str]) -> TcpStream {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.write_all(&encoded(words)).unwrap();
    stream
}

fn encoded(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    out
}

fn read(input: &mut impl BufRead) -> Answer {
    let mut line = String::new();
    input.read_line(&mut line).unwrap();
    let line = line.trim_end();
    let (kind, rest) = line.split_at(1);
    match kind {
        "+" => Answer::Status(rest.to_owned()),
        "-" => Answer::Error(rest.to_owned()),
        ":" => Answer::Integer(rest.parse().unwrap()),
        "$" if rest == "-1" => Answer::Nothing,
        "$" => {
            let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
            input.read_exact(&mut bytes).unwrap();
            bytes.truncate(bytes.len() - 2);
            Answer::Bytes(bytes)
        }
        "*" => Answer::Array((0..rest.parse().unwrap()).map(|_| read(input)).collect()),
        _ => panic!("not an answer: {line}"),
    }
}
