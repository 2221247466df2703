//! Asks a broker for the cluster's metadata: it lists the brokers that are registered and take requests, which an open
//! port alone does not mean. Two requests' worth of protocol by hand, as a witness that shares nothing with `crates/kafka`.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::config::Node;
use crate::process::Probe;

const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// A few brokers and no topic: far below this.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// Metadata (3), version 1, correlation 1, no client id, an empty list of topics.
const METADATA_REQUEST: [u8; 18] = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0];

/// Whether the broker knows itself to be part of the cluster.
pub(super) fn is_registered(node: Node) -> Probe {
    let ids = registered(node.port).map_err(|error| error.to_string())?;
    if ids.contains(&node.id) { Ok(()) } else { Err(format!("its cluster has the brokers {ids:?}")) }
}

/// How many brokers the one at `port` sees.
pub(super) fn brokers_seen(port: u16) -> Option<usize> {
    registered(port).ok().map(|ids| ids.len())
}

fn registered(port: u16) -> io::Result<Vec<usize>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PROBE_LIMIT)?;
    stream.set_read_timeout(Some(PROBE_LIMIT))?;
    stream.write_all(&METADATA_REQUEST)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_ANSWER_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    parse(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The node ids of a Metadata v1 response: correlation, then an array of (id, host, port, rack or null).
fn parse(mut answer: &[u8]) -> Option<Vec<usize>> {
    take(&mut answer, 4)?;
    let count = number(&mut answer)?;
    (0..count)
        .map(|_| {
            let id = number(&mut answer)?;
            skip_string(&mut answer)?;
            take(&mut answer, 4)?;
            skip_string(&mut answer)?;
            Some(id)
        })
        .collect()
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn number(bytes: &mut &[u8]) -> Option<usize> {
    let value = i32::from_be_bytes(take(bytes, 4)?.try_into().ok()?);
    usize::try_from(value).ok()
}

/// Its length is −1 when there is none.
fn skip_string(bytes: &mut &[u8]) -> Option<()> {
    let length = i16::from_be_bytes(take(bytes, 2)?.try_into().ok()?);
    take(bytes, usize::try_from(length).unwrap_or(0)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_of_a_response_are_read() {
        let one = |id: u8| [&[0, 0, 0, id, 0, 1, b'h', 0, 0, 0x23, 0x84][..], &[0xff, 0xff]].concat();
        let answer = [&[0, 0, 0, 1, 0, 0, 0, 2][..], &one(1), &one(3), &[0, 0, 0, 1, 0, 0, 0, 0]].concat();
        assert_eq!(parse(&answer), Some(vec![1, 3]));
        assert_eq!(parse(&answer[..20]), None);
    }
}
