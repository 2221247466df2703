//! Events as tests make them: around New York, each told from all others by its driver and its time.

use std::time::{SystemTime, UNIX_EPOCH};

use event::{DriverId, DriverLocation};

const LATITUDE: f64 = 40.7128;
const LONGITUDE: f64 = -74.006;

/// A driver and the time of a position, in ms since the epoch: what a row of the history is told by.
pub type Moment = (String, i64);

/// The system's clock.
pub fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock behind 1970");
    i64::try_from(since_epoch.as_millis()).expect("a clock before the year 292,000,000")
}

/// The body of a request: a right position.
pub fn position(driver: &str, timestamp_ms: i64) -> String {
    format!(
        r#"{{"driverId":"{driver}","latitude":{LATITUDE},"longitude":{LONGITUDE},"heading":90,"speed":31.5,"timestamp":{timestamp_ms}}}"#
    )
}

/// The same as it travels through Kafka, received when it was true.
pub fn event(driver: &str, timestamp_ms: i64) -> Vec<u8> {
    let location = DriverLocation {
        driver_id: DriverId::try_from(driver).expect("a driver id"),
        latitude: LATITUDE,
        longitude: LONGITUDE,
        heading: Some(90.0),
        speed: Some(31.5),
        timestamp_ms,
        received_at_ms: timestamp_ms,
        effective_at_ms: timestamp_ms,
    };
    location.encode().to_vec()
}
