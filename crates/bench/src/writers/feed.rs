//! The records of a backlog: events of 50,000 drivers who post one after the other at a steady rate, by their timestamps.
//!
//! Record `number` is told by its number alone: whose it is, when it was sent and where the driver was. So whoever
//! knows how many records there are knows what the map and the history must hold.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use event::{DriverId, DriverLocation};
use kafka::OutRecord;

use super::DRIVERS;
use crate::error::Error;

/// Of so many records one is poison, where there is any.
pub(super) const POISON_EVERY: u64 = 100;
/// A value that is no protobuf message, as long as one that is.
const POISON: [u8; 63] = [0xff; 63];
/// A millionth of a degree is 11 cm: phones do not know their place better.
const DEGREE: f64 = 1e-6;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Feed {
    pub(super) topic: Arc<str>,
    /// Time of the first record.
    pub(super) base_ms: i64,
    /// Records a second, by their timestamps.
    pub(super) rate: u64,
    /// Whether every hundredth record is poison.
    pub(super) is_poisoned: bool,
}

impl Feed {
    /// A feed of `rate` whose first `backlog` records are over by now.
    pub(super) fn behind(topic: &str, rate: u64, backlog: u64) -> Self {
        let base_ms = now_ms() - (backlog * 1_000 / rate).cast_signed();
        Self { topic: topic.into(), base_ms, rate, is_poisoned: false }
    }

    /// When record `number` was sent, ms since the epoch.
    pub(super) fn at_ms(&self, number: u64) -> i64 {
        self.base_ms + (number * 1_000 / self.rate).cast_signed()
    }

    /// How many records have been sent until `now_ms`, that moment included.
    pub(super) fn due(&self, now_ms: i64) -> u64 {
        u64::try_from(now_ms + 1 - self.base_ms).unwrap_or(0) * self.rate / 1_000
    }

    /// Of the first `count` records the number of a driver's last one.
    pub(super) fn last_of(driver: u64, count: u64) -> Option<u64> {
        let last = count.checked_sub(driver + 1)?;
        Some(last / DRIVERS * DRIVERS + driver)
    }

    /// Whether record `number` is poison; another driver's in each turn.
    pub(super) fn is_poison(&self, number: u64) -> bool {
        self.is_poisoned && (number + number / DRIVERS).is_multiple_of(POISON_EVERY)
    }

    /// The position in record `number`.
    pub(super) fn position(&self, number: u64) -> Result<DriverLocation, Error> {
        let at_ms = self.at_ms(number);
        // Digits that do not compress well, as real ones do not: Knuth's multiplicative hash.
        let random = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let digits = |shift: u32, below: u64| (random >> shift) % below;
        let driver = driver_name(number % DRIVERS);
        Ok(DriverLocation {
            driver_id: DriverId::try_from(driver).map_err(Error::client)?,
            latitude: (48_000_000 + digits(8, 1_000_000)) as f64 * DEGREE,
            longitude: (11_000_000 + digits(24, 1_000_000)) as f64 * DEGREE,
            heading: Some(digits(40, 3_600) as f32 / 10.0),
            speed: Some(digits(50, 400) as f32 / 10.0),
            timestamp_ms: at_ms,
            received_at_ms: at_ms,
            effective_at_ms: at_ms,
        })
    }

    /// Record `number` as it goes to Kafka.
    pub(super) fn record(&self, number: u64) -> Result<OutRecord, Error> {
        let value = match self.is_poison(number) {
            true => bytes::Bytes::from_static(&POISON),
            false => self.position(number)?.encode(),
        };
        Ok(OutRecord {
            topic: Arc::clone(&self.topic),
            partition: None,
            key: Some(driver_name(number % DRIVERS).into()),
            value: Some(value),
            headers: Vec::new(),
            timestamp_ms: self.at_ms(number),
        })
    }
}

/// Names of one length, as ids are.
pub(super) fn driver_name(driver: u64) -> String {
    format!("driver-{driver:05}")
}

pub(super) fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed() -> Feed {
        Feed { topic: "t".into(), base_ms: 1_795_441_689_000, rate: 20_000, is_poisoned: false }
    }

    #[test]
    fn values_have_the_size_that_is_claimed() {
        for number in (0..1_000_000).step_by(997) {
            let value = feed().record(number).unwrap().value.unwrap();
            assert!((60..=70).contains(&value.len()), "{} bytes", value.len());
        }
    }

    #[test]
    fn a_feed_that_is_behind_has_its_backlog_due_at_once() {
        let feed = Feed::behind("t", 20_000, 200_000);
        assert!((200_000..240_000).contains(&feed.due(now_ms())), "{}", feed.due(now_ms()));
        assert_eq!(feed.due(feed.base_ms - 5), 0);
        assert_eq!(feed.due(feed.at_ms(40)), 60, "20 records share a millisecond");
    }

    #[test]
    fn the_last_record_of_a_driver_is_known_from_the_number_of_records() {
        let brute = |driver: u64, count: u64| (0..count).rev().find(|number| number % DRIVERS == driver);
        for count in [0, 1, 7, 8, DRIVERS, DRIVERS + 7, DRIVERS + 8, 3 * DRIVERS] {
            assert_eq!(Feed::last_of(7, count), brute(7, count), "{count}");
        }
    }

    #[test]
    fn one_record_in_a_hundred_is_poison_and_no_message() {
        let feed = Feed { is_poisoned: true, ..feed() };
        let poison: Vec<u64> = (0..1_000_000).filter(|number| feed.is_poison(*number)).collect();
        assert_eq!(poison.len(), 10_000);
        let value = feed.record(poison[1]).unwrap().value.unwrap();
        assert!(DriverLocation::decode(&value, 0).is_err());
    }
}
