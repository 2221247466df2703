//! Traccar's client, whose location library (transistorsoft) posts `{"location":{…},"device_id":…}`, or many locations.
//! <https://www.traccar.org/osmand/>, <https://transistorsoft.github.io/capacitor-background-geolocation/interfaces/location.html>

use event::{Invalid, Reason, Submission};
use serde_json::Value;

use super::fields::{known, name, narrow, number};
use super::{Positions, json, time};
use crate::problem::Problem;

/// `device` stands in where neither body nor location has a `device_id`.
pub(crate) fn read(body: &[u8], device: Option<&str>) -> Result<Positions, Problem> {
    let body = json(body)?;
    let root = name(body.get("device_id")).or_else(|| device.map(str::to_owned));
    let locations = match &body {
        Value::Array(locations) => locations.as_slice(),
        Value::Object(object) => match object.get("location") {
            Some(Value::Array(locations)) => locations,
            Some(location) => std::slice::from_ref(location),
            None => return Err(Problem::WrongFormat),
        },
        _ => return Err(Problem::WrongFormat),
    };
    Ok(locations.iter().map(|location| position(location, root.as_deref()).map_err(Invalid::from)).collect())
}

fn position(location: &Value, device: Option<&str>) -> Result<Submission<'static>, Reason> {
    // In an array each may be wrapped as it is when it comes alone.
    let inner = location.get("location").unwrap_or(location);
    let location = inner.as_object().ok_or(Reason::NotAnObject)?;
    let coordinate = |key: &str| location.get("coords").and_then(|coordinates| coordinates.get(key));
    let own = name(location.get("device_id"))
        .or_else(|| name(location.get("extras").and_then(|extras| extras.get("device_id"))));
    Ok(Submission {
        driver_id: own.or_else(|| device.map(str::to_owned)).map(Into::into),
        latitude: number(coordinate("latitude"), Reason::InvalidLatitude)?,
        longitude: number(coordinate("longitude"), Reason::InvalidLongitude)?,
        heading: narrow(known(coordinate("heading"), Reason::InvalidHeading)?),
        speed: narrow(known(coordinate("speed"), Reason::InvalidSpeed)?),
        timestamp_ms: timestamp_ms(location.get("timestamp"))?,
        sent_at_ms: None,
    })
}

fn timestamp_ms(value: Option<&Value>) -> Result<Option<i64>, Reason> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => time::parse_ms(text).map(Some).ok_or(Reason::InvalidTimestamp),
        Some(number) => number.as_i64().map(Some).ok_or(Reason::InvalidTimestamp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_example_is_read() {
        let positions = read(include_bytes!("../../tests/formats/traccar.json"), None).unwrap();
        let position = positions[0].as_ref().unwrap();
        assert_eq!(position.driver_id.as_deref(), Some("traccar-1"));
        assert_eq!((position.latitude, position.longitude), (Some(40.7128), Some(-74.006)));
        assert_eq!((position.speed, position.heading), (Some(12.5), None));
        assert_eq!(position.timestamp_ms, Some(1_795_491_968_250));
    }

    #[test]
    fn many_locations_are_read_and_a_wrong_one_leaves_the_others() {
        let right = r#"{"timestamp":1795441689633,"coords":{"latitude":1,"longitude":2}}"#;
        let body = format!(r#"{{"device_id":"d","location":[{right},7,{{"coords":{{"latitude":"x"}}}},{right}]}}"#);
        let positions = read(body.as_bytes(), None).unwrap();
        let reasons: Vec<_> = positions.iter().map(|item| item.as_ref().err().map(|invalid| invalid.reason)).collect();
        assert_eq!(reasons, [None, Some(Reason::NotAnObject), Some(Reason::InvalidLatitude), None]);
        assert_eq!(positions[3].as_ref().unwrap().driver_id.as_deref(), Some("d"));
        let wrapped = format!(r#"[{{"location":{right}}}]"#);
        assert_eq!(read(wrapped.as_bytes(), Some("q")).unwrap()[0].as_ref().unwrap().driver_id.as_deref(), Some("q"));
        assert_eq!(read(b"{}", None), Err(Problem::WrongFormat));
    }
}
