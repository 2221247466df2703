//! Who drives: the surge's `driver-1`, `driver-2` … and the prober's own `probe-…`, and the number that each goes by in memory.

use std::sync::Arc;

const DRIVER_PREFIX: &[u8] = b"driver-";
const PROBE_PREFIX: &[u8] = b"probe-";
/// Set in the tag of a probe.
const PROBE_BIT: u32 = 1 << 31;

/// A driver of ours as one number: what the ledger keeps in place of the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriverTag(u32);

impl DriverTag {
    /// The tag of `driver-<number>`.
    #[must_use]
    pub fn driver(number: u32) -> Self {
        Self(number & !PROBE_BIT)
    }

    /// The tag of `probe-<number>`.
    #[must_use]
    pub fn probe(number: u32) -> Self {
        Self(number | PROBE_BIT)
    }

    /// Reads a name as written by [`Roster::write_id`]; any other name is a stranger.
    #[must_use]
    pub fn parse(id: &[u8]) -> Option<Self> {
        if let Some(digits) = id.strip_prefix(DRIVER_PREFIX) {
            return number(digits).map(Self::driver);
        }
        id.strip_prefix(PROBE_PREFIX).and_then(number).map(Self::probe)
    }

    /// The bare number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    // A leading zero would give one driver two names.
    if digits.first() == Some(&b'0') && digits.len() > 1 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|number| number & PROBE_BIT == 0)
}

/// The drivers that a generator plays, counted from 0.
#[derive(Debug, Clone)]
pub enum Roster {
    /// `driver-1`, `driver-2` … as many as the plan asks for.
    Crowd,
    /// `probe-<number>` by a list of chosen numbers.
    Probes(Arc<[u32]>),
}

impl Roster {
    /// The tag of driver `slot`.
    #[must_use]
    pub fn tag(&self, slot: u32) -> DriverTag {
        match self {
            Self::Crowd => DriverTag::driver(slot + 1),
            Self::Probes(numbers) => DriverTag::probe(numbers[slot as usize % numbers.len()]),
        }
    }

    /// Appends the name of driver `slot`.
    pub fn write_id(&self, slot: u32, out: &mut Vec<u8>) {
        let (prefix, number) = match self {
            Self::Crowd => (DRIVER_PREFIX, slot + 1),
            Self::Probes(numbers) => (PROBE_PREFIX, numbers[slot as usize % numbers.len()]),
        };
        out.extend_from_slice(prefix);
        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    /// The name of driver `slot`.
    #[must_use]
    pub fn id(&self, slot: u32) -> String {
        let mut out = Vec::new();
        self.write_id(slot, &mut out);
        String::from_utf8(out).expect("prefix and digits are ASCII")
    }

    /// `each` probes for every one of `partitions`, in an order that goes round all partitions.
    #[must_use]
    pub fn probes(partitions: u32, each: u32, partition_of: impl Fn(&[u8]) -> u32) -> Self {
        let mut found = vec![Vec::new(); partitions as usize];
        let mut missing = partitions * each;
        for number in 0.. {
            if missing == 0 {
                break;
            }
            let home = &mut found[partition_of(format!("probe-{number}").as_bytes()) as usize];
            if home.len() < each as usize {
                home.push(number);
                missing -= 1;
            }
        }
        let turns = (0..each as usize).flat_map(|turn| found.iter().map(move |home| home[turn]));
        Self::Probes(turns.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_its_tag_lead_to_each_other() {
        let probes = Roster::Probes(Arc::from([7, 1_234]));
        for roster in [Roster::Crowd, probes] {
            for slot in [0, 1] {
                assert_eq!(DriverTag::parse(roster.id(slot).as_bytes()), Some(roster.tag(slot)));
            }
        }
        assert_eq!(Roster::Crowd.id(49_999), "driver-50000");
    }

    #[test]
    fn other_names_are_strangers() {
        for id in ["driver-", "driver-01", "driver-x", "driver--1", "probe-99999999999", "phone-1", ""] {
            assert_eq!(DriverTag::parse(id.as_bytes()), None, "{id}");
        }
    }

    #[test]
    fn probes_cover_every_partition_equally_and_in_turn() {
        let partition_of = |id: &[u8]| id.iter().fold(7u32, |hash, byte| hash.wrapping_mul(31) + u32::from(*byte)) % 48;
        let roster = Roster::probes(48, 10, partition_of);
        for turn in 0..10 {
            let homes: Vec<u32> = (0..48).map(|slot| partition_of(roster.id(turn * 48 + slot).as_bytes())).collect();
            assert_eq!(homes, (0..48).collect::<Vec<u32>>());
        }
    }
}
