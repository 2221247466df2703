//! The records: those of the pipeline in size and shape, the same ones for every client.
//!
//! The Java client makes its own by the same rule, see `Client.java`.

use bytes::Bytes;

/// Drivers, each with one record in the pool.
pub(crate) const DRIVERS: usize = 50_000;
/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 60;

/// A key and a value.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
}

/// One record for each driver: the name, and coordinates that do not compress well, as real ones do not.
pub(crate) fn pool() -> Vec<Payload> {
    let mut random = Random(42);
    (0..DRIVERS).map(|driver| payload(driver, &mut random)).collect()
}

fn payload(driver: usize, random: &mut Random) -> Payload {
    let key = format!("driver-{driver:05}");
    let (latitude, longitude, speed) = (random.next(), random.next(), random.next());
    let value = format!("{key}|48.{latitude:09}|11.{longitude:09}|{:03}.{:06}", speed % 360, speed / 360 % 1_000_000);
    Payload { key: Bytes::from(key), value: Bytes::from(format!("{value:<VALUE_BYTES$}")) }
}

/// The linear congruential generator of Numerical Recipes, nine decimal digits of it.
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 % 1_000_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_has_the_size_that_is_claimed() {
        let pool = pool();
        assert_eq!(pool.len(), DRIVERS);
        assert!(pool.iter().all(|payload| payload.value.len() == VALUE_BYTES && payload.key.len() == 12));
    }
}
