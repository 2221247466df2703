//! The script by which Redis decides the order of positions, and the arguments of a call of it.
//!
//! Why the order is decided there: members overlap for a moment, partitions grow and a driver moves to another, a
//! frozen process wakes and flushes what it held. No client can know that its position is the newest.
//!
//! Of two positions with the same effective time the one with the greater [`Place`] is newer. Readers of the map want the
//! five fields of a position and nothing else, and ties are rare: so a value tells its place only once it has been
//! preferred to another of its driver and time, here or in a batch. Whoever still holds that other one finds the place.
//!
//! What is compared is the effective time inside the stored value. The expiry would say the same (it is effective time
//! plus life) and its key type would not matter, but after a change of `--position-ttl` the expiries of old and new
//! processes are not comparable, and a value without expiry would have no time. Reading first (`GET` or `MGET`, then
//! `SET`) costs Redis more, `PEXPIRETIME` first more still. Of the time that Redis takes for a position (1.7 µs against
//! 1.5 µs for `SET … PXAT` without any order in a script, calls of 1,000 over 50,000 keys, Redis 7.0) a quarter goes into
//! reading and freeing the arguments, and a sixth into hashing: Lua keeps each text once, and Redis's hashes every byte.
//! So one argument that holds all values gains nothing: each is cut out of it, and hashed, once more.

use std::time::Duration;

use bytes::Bytes;
use event::DriverLocation;

use crate::place::{Place, Placed};

/// The script's text.
pub(crate) const SCRIPT: &str = include_str!("order.lua");

/// Key, JSON value, expiry and place of a usual position.
const TYPICAL_BYTES: usize = 172;
/// Arguments of a call before those of its first position.
const CALL_ARGUMENTS: usize = 3;
/// Bytes of a place in the third of them.
const PLACE_BYTES: usize = 12;
/// Protobuf tags of `partition` (field 9, fixed32) and `offset` (field 10, fixed64).
const PARTITION_TAG: u8 = 9 << 3 | 5;
const OFFSET_TAG: u8 = 10 << 3 | 1;

/// The form of the value under a driver's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ValueFormat {
    /// `{"latitude":…,"longitude":…,"heading":…,"speed":…,"timestamp":…}`
    Json,
    /// The protobuf message `driverlocation.v1.DriverLocation`
    Protobuf,
}

/// How positions look in Redis.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    pub(crate) key_prefix: String,
    pub(crate) value_format: ValueFormat,
    pub(crate) life: Duration,
}

/// Arguments of one call of the script. They share one buffer, so that a copy costs no copying of bytes.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) keys: Vec<Bytes>,
    pub(crate) args: Vec<Bytes>,
}

impl Call {
    /// The same positions one by one, in their order.
    pub(crate) fn by_position(&self) -> Vec<Self> {
        let (whole, positions) = self.args.split_at(CALL_ARGUMENTS);
        let one = |(index, key): (usize, &Bytes)| {
            let place = whole[2].slice(index * PLACE_BYTES..(index + 1) * PLACE_BYTES);
            let args = [&whole[..2], &[place], &positions[index * 2..index * 2 + 2]].concat();
            Self { keys: vec![key.clone()], args }
        };
        self.keys.iter().enumerate().map(one).collect()
    }
}

/// Adds to the reply of a call that of a part of it, whose positions begin at `first` in the call.
pub(crate) fn merge_reply(total: &mut Vec<i64>, first: usize, part: &[i64]) {
    let Some((foreign_keys, superseded)) = part.split_first() else { return };
    if total.is_empty() {
        total.push(0);
    }
    total[0] += foreign_keys;
    let first = i64::try_from(first).unwrap_or(i64::MAX);
    total.extend(superseded.iter().map(|index| index.saturating_add(first)));
    // Parts come back in any order.
    total[1..].sort_unstable();
}

/// What Redis did with the positions of a call.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Keys that held another type; overwritten.
    pub(crate) foreign_keys: u64,
    /// Indexes of positions that were older than what their key held.
    pub(crate) superseded: Vec<usize>,
}

impl Form {
    /// The key of a position, as bytes appended to `out`.
    pub(crate) fn key(&self, position: &DriverLocation, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key_prefix.as_bytes());
        out.extend_from_slice(position.driver_id.as_str().as_bytes());
    }

    /// The call that writes `positions`, in their order.
    pub(crate) fn call(&self, positions: &[Placed<'_>]) -> Call {
        let life_ms = i64::try_from(self.life.as_millis()).unwrap_or(i64::MAX);
        let mut text = Text::with_capacity(positions.len());
        let mut ends = Vec::with_capacity(positions.len() * 3 + CALL_ARGUMENTS);
        let earliest = positions.iter().map(|placed| placed.position.effective_at_ms).min().unwrap_or(0);
        ends.push(text.number(life_ms));
        ends.push(text.number(earliest));
        ends.push(text.append(|out| positions.iter().for_each(|placed| out.extend(bytes_of(placed.place)))));
        for placed in positions {
            ends.push(text.append(|out| self.key(placed.position, out)));
            ends.push(text.append(|out| self.value(placed, out)));
            ends.push(text.number(placed.position.effective_at_ms.saturating_add(life_ms)));
        }
        text.cut(&ends)
    }

    fn value(&self, placed: &Placed<'_>, out: &mut Vec<u8>) {
        let Placed { position, place, won_tie } = placed;
        let Place { partition, offset } = place;
        match (self.value_format, won_tie) {
            (ValueFormat::Json, false) => position.to_json(out),
            (ValueFormat::Json, true) => {
                out.extend_from_slice(format!("{{\"partition\":{partition},\"offset\":{offset}").as_bytes());
                let start = out.len();
                position.to_json(out);
                // The opening brace of the position becomes the comma behind the place.
                out[start] = b',';
            }
            (ValueFormat::Protobuf, false) => out.extend_from_slice(&position.encode()),
            (ValueFormat::Protobuf, true) => {
                let [partition, offset] = [&bytes_of(*place)[..4], &bytes_of(*place)[4..]];
                out.extend([&[PARTITION_TAG], partition, &[OFFSET_TAG], offset].concat());
                out.extend_from_slice(&position.encode());
            }
        }
    }
}

/// Four bytes of partition and eight of offset, little-endian.
fn bytes_of(place: Place) -> [u8; PLACE_BYTES] {
    let mut bytes = [0; PLACE_BYTES];
    bytes[..4].copy_from_slice(&place.partition.0.to_le_bytes());
    bytes[4..].copy_from_slice(&place.offset.0.to_le_bytes());
    bytes
}

/// All arguments of a call, one behind the other.
struct Text(Vec<u8>);

impl Text {
    fn with_capacity(positions: usize) -> Self {
        Self(Vec::with_capacity(positions * TYPICAL_BYTES))
    }

    /// Appends and answers with the new end.
    fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        write(&mut self.0);
        self.0.len()
    }

    fn number(&mut self, number: i64) -> usize {
        self.append(|out| out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()))
    }

    /// What holds for the whole call first, then key, value and expiry of each position.
    fn cut(self, ends: &[usize]) -> Call {
        let text = Bytes::from(self.0);
        let mut start = 0;
        let mut parts = ends.iter().map(|end| text.slice(std::mem::replace(&mut start, *end)..*end));
        let positions = ends.len() / 3;
        let mut call = Call { keys: Vec::with_capacity(positions), args: Vec::with_capacity(ends.len()) };
        call.args.extend(parts.by_ref().take(CALL_ARGUMENTS));
        while let Some(key) = parts.next() {
            call.keys.push(key);
            call.args.extend(parts.by_ref().take(2));
        }
        call
    }
}

impl Verdict {
    /// Reads the script's reply; `None` when it is not of its form.
    pub(crate) fn read(reply: &[i64], positions: usize) -> Option<Self> {
        let (foreign_keys, superseded) = reply.split_first()?;
        let index = |one_based: &i64| usize::try_from(one_based - 1).ok().filter(|index| *index < positions);
        Some(Self {
            foreign_keys: u64::try_from(*foreign_keys).ok()?,
            superseded: superseded.iter().map(index).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use event::DriverId;
    use kafka::{Offset, PartitionId};

    use super::*;

    fn position(driver: &str, effective_at_ms: i64) -> DriverLocation {
        DriverLocation {
            driver_id: DriverId::try_from(driver).unwrap(),
            latitude: 40.7128,
            longitude: -74.006,
            heading: Some(90.0),
            speed: None,
            timestamp_ms: effective_at_ms,
            received_at_ms: effective_at_ms,
            effective_at_ms,
        }
    }

    fn placed(position: &DriverLocation, won_tie: bool) -> Placed<'_> {
        Placed { position, place: Place { partition: PartitionId(3), offset: Offset(258) }, won_tie }
    }

    fn form(value_format: ValueFormat) -> Form {
        Form { key_prefix: "driver:loc:".to_owned(), value_format, life: Duration::from_secs(30) }
    }

    #[test]
    fn a_call_holds_life_earliest_time_places_and_the_three_parts_of_each_position() {
        let (a, b) = (position("a", 1_795_441_689_633), position("b", 1_795_441_689_600));
        let call = form(ValueFormat::Json).call(&[placed(&a, false), placed(&b, false)]);
        assert_eq!(call.keys, ["driver:loc:a", "driver:loc:b"]);
        let value = |time| {
            format!(r#"{{"latitude":40.7128,"longitude":-74.006,"heading":90.0,"speed":null,"timestamp":{time}}}"#)
        };
        let expected = [
            "30000".to_owned(),
            "1795441689600".to_owned(),
            "\u{3}\0\0\0\u{2}\u{1}\0\0\0\0\0\0".repeat(2),
            value("1795441689633"),
            "1795441719633".to_owned(),
            value("1795441689600"),
            "1795441719600".to_owned(),
        ];
        assert_eq!(call.args, expected);
    }

    #[test]
    fn a_call_position_by_position_says_the_same() {
        let (a, b) = (position("a", 1_795_441_689_633), position("b", 1_795_441_689_600));
        let form = form(ValueFormat::Json);
        let parts = form.call(&[placed(&a, false), placed(&b, true)]).by_position();
        for (part, alone) in parts.iter().zip([placed(&a, false), placed(&b, true)]) {
            let alone = form.call(&[alone]);
            assert_eq!((&part.keys, &part.args[2..]), (&alone.keys, &alone.args[2..]));
            assert_eq!(part.args[..2], ["30000", "1795441689600"], "the earliest of all is early enough for each");
        }
        assert_eq!(parts.len(), 2);
    }

    #[test]
    fn replies_of_parts_make_the_reply_of_the_whole() {
        let mut total = Vec::new();
        for (first, part) in [(4, &[1, 1][..]), (0, &[0, 1]), (2, &[1]), (7, &[])] {
            merge_reply(&mut total, first, part);
        }
        assert_eq!(total, [2, 1, 5]);
    }

    #[test]
    fn a_protobuf_value_is_the_message_and_ends_with_its_effective_time() {
        let a = position("a", 1_795_441_689_633);
        let call = form(ValueFormat::Protobuf).call(&[placed(&a, false)]);
        let value = &call.args[3];
        assert_eq!(*value, a.encode());
        // The script finds the time by this: tag 64, then a varint of six bytes.
        assert_eq!(value[value.len() - 7], 64);
        assert_ne!(value.last(), Some(&b'}'));
    }

    #[test]
    fn a_value_that_has_won_a_tie_tells_its_place_and_is_the_same_position() {
        let a = position("a", 1_795_441_689_633);
        let json = form(ValueFormat::Json).call(&[placed(&a, true)]).args[3].clone();
        assert!(json.starts_with(br#"{"partition":3,"offset":258,"latitude":40.7128,"#), "{json:?}");
        let mut read: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let fields = read.as_object_mut().unwrap();
        assert_eq!((fields.remove("partition"), fields.remove("offset")), (Some(3.into()), Some(258.into())));
        let mut plain = Vec::new();
        a.to_json(&mut plain);
        assert_eq!(read, serde_json::from_slice::<serde_json::Value>(&plain).unwrap());
        let protobuf = form(ValueFormat::Protobuf).call(&[placed(&a, true)]).args[3].clone();
        assert_eq!(protobuf[..14], [77, 3, 0, 0, 0, 81, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(DriverLocation::decode(&protobuf, a.received_at_ms), Ok(a));
    }

    #[test]
    fn a_reply_is_read_into_a_verdict() {
        let verdict = Verdict { foreign_keys: 2, superseded: vec![0, 4] };
        assert_eq!(Verdict::read(&[2, 1, 5], 5), Some(verdict));
        assert_eq!(Verdict::read(&[0], 5), Some(Verdict::default()));
        for wrong in [&[][..], &[-1], &[0, 0], &[0, 6]] {
            assert_eq!(Verdict::read(wrong, 5), None, "{wrong:?}");
        }
    }
}
