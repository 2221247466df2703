//! The validated position, and the rules that every way in shares.

use crate::clock::check_timestamp;
use crate::{DriverId, POSITION_LIFE_MS, Reason};

const LATITUDE_MAX: f64 = 90.0;
const LONGITUDE_MAX: f64 = 180.0;
const HEADING_MAX: f32 = 360.0;

/// One position of one driver; whoever holds one need not check it again.
#[derive(Debug, Clone, PartialEq)]
pub struct DriverLocation {
    /// Whose.
    pub driver_id: DriverId,
    /// Degrees north, −90 to 90.
    pub latitude: f64,
    /// Degrees east, −180 to 180.
    pub longitude: f64,
    /// Degrees clockwise from north, 0 to less than 360.
    pub heading: Option<f32>,
    /// Metres per second, 0 or more.
    pub speed: Option<f32>,
    /// The phone's clock, milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// The ingest's clock, milliseconds since the epoch; also the time of the Kafka record.
    pub received_at_ms: i64,
    /// The effective time, milliseconds since the epoch; never later than `received_at_ms`.
    pub effective_at_ms: i64,
}

impl DriverLocation {
    /// Late: already older than its life when it arrived. It belongs to history and never onto the map.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.received_at_ms - self.effective_at_ms > POSITION_LIFE_MS
    }
}

/// What a sender gave, before it is checked.
pub(crate) struct Draft<Id> {
    pub(crate) driver_id: Option<Id>,
    pub(crate) latitude: Option<f64>,
    pub(crate) longitude: Option<f64>,
    pub(crate) heading: Option<f32>,
    pub(crate) speed: Option<f32>,
    pub(crate) timestamp_ms: Option<i64>,
}

impl<Id> Draft<Id>
where
    DriverId: TryFrom<Id, Error = Reason>,
{
    /// Checks every rule, in the order of the fields; the effective time is the earlier of timestamp and receipt until
    /// the caller decides it.
    pub(crate) fn check(self, received_at_ms: i64) -> Result<DriverLocation, Reason> {
        let driver_id = DriverId::try_from(self.driver_id.ok_or(Reason::MissingDriverId)?)?;
        let latitude = self.latitude.ok_or(Reason::MissingLatitude)?;
        let longitude = self.longitude.ok_or(Reason::MissingLongitude)?;
        let timestamp_ms = self.timestamp_ms.ok_or(Reason::MissingTimestamp);
        Ok(DriverLocation {
            driver_id,
            latitude: within(latitude, LATITUDE_MAX).ok_or(Reason::InvalidLatitude)?,
            longitude: within(longitude, LONGITUDE_MAX).ok_or(Reason::InvalidLongitude)?,
            heading: self.heading.map(heading).transpose()?,
            speed: self.speed.map(speed).transpose()?,
            timestamp_ms: check_timestamp(timestamp_ms?, received_at_ms)?,
            received_at_ms,
            effective_at_ms: timestamp_ms?.min(received_at_ms),
        })
    }
}

/// Also refuses NaN, which is within nothing.
fn within(degrees: f64, limit: f64) -> Option<f64> {
    (-limit..=limit).contains(&degrees).then_some(degrees)
}

fn heading(degrees: f32) -> Result<f32, Reason> {
    match degrees {
        HEADING_MAX => Ok(0.0),
        0.0..HEADING_MAX => Ok(degrees),
        _ => Err(Reason::InvalidHeading),
    }
}

fn speed(metres_per_second: f32) -> Result<f32, Reason> {
    if metres_per_second.is_finite() && metres_per_second >= 0.0 {
        return Ok(metres_per_second);
    }
    Err(Reason::InvalidSpeed)
}

#[cfg(test)]
pub(crate) mod samples {
    //! Arbitrary valid positions for property tests.

    use proptest::prelude::*;

    use super::*;
    use crate::EARLIEST_MS;

    /// Any position that passes every rule.
    pub(crate) fn locations() -> impl Strategy<Value = DriverLocation> {
        let id = prop_oneof!["[ -~]{1,128}", "[a-zé運🚕]{1,32}"];
        let received = EARLIEST_MS..4_102_444_800_000_i64;
        let heading = proptest::option::of(0.0_f32..360.0);
        let speed = proptest::option::of(0.0_f32..f32::MAX);
        (id, -90.0..=90.0, -180.0..=180.0, heading, speed, received, 0..=1_000_000_i64, 0..=1_000_000_i64).prop_map(
            |(id, latitude, longitude, heading, speed, received_at_ms, behind, age)| DriverLocation {
                driver_id: DriverId::try_from(id).unwrap(),
                latitude,
                longitude,
                heading,
                speed,
                timestamp_ms: (received_at_ms - behind).max(EARLIEST_MS),
                received_at_ms,
                effective_at_ms: (received_at_ms - age).max(EARLIEST_MS),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_441_689_633;

    fn draft() -> Draft<&'static str> {
        Draft {
            driver_id: Some("driver-17"),
            latitude: Some(40.7128),
            longitude: Some(-74.006),
            heading: Some(90.0),
            speed: Some(31.5),
            timestamp_ms: Some(NOW - 100),
        }
    }

    fn reason(draft: Draft<&'static str>) -> Reason {
        draft.check(NOW).unwrap_err()
    }

    #[test]
    fn each_absent_required_field_has_its_own_reason() {
        assert_eq!(reason(Draft { driver_id: None, ..draft() }), Reason::MissingDriverId);
        assert_eq!(reason(Draft { latitude: None, ..draft() }), Reason::MissingLatitude);
        assert_eq!(reason(Draft { longitude: None, ..draft() }), Reason::MissingLongitude);
        assert_eq!(reason(Draft { timestamp_ms: None, ..draft() }), Reason::MissingTimestamp);
    }

    #[test]
    fn coordinates_are_within_the_globe() {
        for latitude in [-90.0, -0.0, 0.0, 90.0] {
            assert!(Draft { latitude: Some(latitude), ..draft() }.check(NOW).is_ok());
        }
        for longitude in [-180.0, 0.0, 180.0] {
            assert!(Draft { longitude: Some(longitude), ..draft() }.check(NOW).is_ok());
        }
        for wrong in [-90.000_001, 90.000_001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(reason(Draft { latitude: Some(wrong), ..draft() }), Reason::InvalidLatitude);
        }
        for wrong in [-180.000_001, 180.000_001, f64::NAN, f64::INFINITY] {
            assert_eq!(reason(Draft { longitude: Some(wrong), ..draft() }), Reason::InvalidLongitude);
        }
    }

    #[test]
    fn a_heading_of_360_is_north() {
        let heading = |degrees| Draft { heading: Some(degrees), ..draft() }.check(NOW).map(|event| event.heading);
        assert_eq!(heading(360.0), Ok(Some(0.0)));
        assert_eq!(heading(0.0), Ok(Some(0.0)));
        assert_eq!(heading(359.9), Ok(Some(359.9)));
        for wrong in [-0.1, 360.1, f32::NAN, f32::INFINITY] {
            assert_eq!(heading(wrong), Err(Reason::InvalidHeading), "{wrong}");
        }
    }

    #[test]
    fn speed_is_not_negative() {
        for wrong in [-0.1, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(reason(Draft { speed: Some(wrong), ..draft() }), Reason::InvalidSpeed);
        }
        assert!(Draft { speed: Some(0.0), heading: None, ..draft() }.check(NOW).is_ok());
        assert!(Draft { speed: None, ..draft() }.check(NOW).is_ok());
    }

    #[test]
    fn late_is_older_than_its_life_on_arrival() {
        let aged = |age| DriverLocation { effective_at_ms: NOW - age, ..draft().check(NOW).unwrap() };
        assert!(!aged(POSITION_LIFE_MS).is_late());
        assert!(aged(POSITION_LIFE_MS + 1).is_late());
    }
}
