//! Overland (iOS): batches of GeoJSON features, `{"locations":[…]}`.
//! <https://github.com/aaronpk/Overland-iOS#api>

use event::{Invalid, Reason, Submission};
use serde_json::Value;

use super::fields::{known, name, narrow, number};
use super::{Positions, json, time};
use crate::problem::Problem;

/// `device` stands in where a feature has no `device_id`.
pub(crate) fn read(body: &[u8], device: Option<&str>) -> Result<Positions, Problem> {
    let body = json(body)?;
    let locations = body.get("locations").and_then(Value::as_array).ok_or(Problem::WrongFormat)?;
    Ok(locations.iter().map(|feature| position(feature, device).map_err(Invalid::from)).collect())
}

fn position(feature: &Value, device: Option<&str>) -> Result<Submission<'static>, Reason> {
    let feature = feature.as_object().ok_or(Reason::NotAnObject)?;
    let properties = feature.get("properties");
    let property = |key: &str| properties.and_then(|properties| properties.get(key));
    // RFC 7946: longitude first.
    let coordinates = feature.get("geometry").and_then(|geometry| geometry.get("coordinates"));
    let timestamp = property("timestamp").and_then(Value::as_str).ok_or(Reason::MissingTimestamp)?;
    Ok(Submission {
        driver_id: name(property("device_id")).or_else(|| device.map(str::to_owned)).map(Into::into),
        latitude: number(coordinates.and_then(|pair| pair.get(1)), Reason::InvalidLatitude)?,
        longitude: number(coordinates.and_then(|pair| pair.get(0)), Reason::InvalidLongitude)?,
        heading: narrow(known(property("course"), Reason::InvalidHeading)?),
        speed: narrow(known(property("speed"), Reason::InvalidSpeed)?),
        timestamp_ms: Some(time::parse_ms(timestamp).ok_or(Reason::InvalidTimestamp)?),
        sent_at_ms: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_example_is_read() {
        let positions = read(include_bytes!("../../tests/formats/overland.json"), None).unwrap();
        let first = positions[0].as_ref().unwrap();
        assert_eq!(first.driver_id.as_deref(), Some("overland-1"));
        assert_eq!((first.latitude, first.longitude), (Some(45.520_43), Some(-122.681_29)));
        assert_eq!((first.speed, first.heading), (Some(4.0), None), "m/s as they are, −1 is unknown");
        assert_eq!(first.timestamp_ms, Some(1_443_711_600_000));
        assert_eq!(positions.len(), 2);
    }

    #[test]
    fn a_wrong_feature_leaves_the_others() {
        let body = br#"{"locations":[7,{"geometry":{"coordinates":["x",1]},"properties":{"timestamp":"2026-11-24T03:46:08Z"}},{"properties":{"timestamp":"yesterday"}},{"properties":{}}]}"#;
        let reasons: Vec<_> = read(body, Some("d")).unwrap().into_iter().map(|item| item.unwrap_err().reason).collect();
        assert_eq!(
            reasons,
            [Reason::NotAnObject, Reason::InvalidLongitude, Reason::InvalidTimestamp, Reason::MissingTimestamp]
        );
        assert_eq!(read(b"[]", None), Err(Problem::WrongFormat));
    }
}
