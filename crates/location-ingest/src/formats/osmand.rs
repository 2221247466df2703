//! OsmAnd's live tracking, which Traccar's older clients speak as well: one position in a query or a form.
//! <https://www.traccar.org/osmand/>

use event::{Invalid, Reason, Submission};

use super::{Positions, time};
use crate::problem::Problem;

const MS_PER_KNOT: f64 = 1_852.0 / 3_600.0;
/// A number below this is seconds, from it on milliseconds: as seconds it would be the year 2286.
const SECONDS_BELOW: i64 = 10_000_000_000;

/// A request without any of these fields is not of this format; one without a timestamp is of `now_ms`.
pub(crate) fn read(parameters: &[(String, String)], now_ms: i64) -> Result<Positions, Problem> {
    let get = |names: &[&str]| {
        let found = parameters.iter().find(|(name, value)| names.contains(&name.as_str()) && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    };
    if get(&["id", "deviceid", "device_id", "lat", "lon", "location"]).is_none() {
        return Err(Problem::WrongFormat);
    }
    Ok(vec![position(get, now_ms).map_err(Invalid::from)])
}

fn position<'a>(get: impl Fn(&[&str]) -> Option<&'a str>, now_ms: i64) -> Result<Submission<'static>, Reason> {
    let pair = get(&["location"]).and_then(|pair| pair.split_once(','));
    let (latitude, longitude) = (get(&["lat"]).or(pair.map(|pair| pair.0)), get(&["lon"]).or(pair.map(|pair| pair.1)));
    let heading = number(get(&["bearing", "heading"]), Reason::InvalidHeading)?;
    let knots = number(get(&["speed"]), Reason::InvalidSpeed)?;
    let known = |value: Option<f64>| value.filter(|value| *value >= 0.0);
    Ok(Submission {
        driver_id: get(&["id", "deviceid", "device_id"]).map(|id| id.to_owned().into()),
        latitude: number(latitude, Reason::InvalidLatitude)?,
        longitude: number(longitude, Reason::InvalidLongitude)?,
        heading: known(heading).map(|degrees| degrees as f32),
        speed: known(knots).map(|knots| (knots * MS_PER_KNOT) as f32),
        timestamp_ms: Some(get(&["timestamp"]).map_or(Ok(now_ms), timestamp_ms)?),
        sent_at_ms: None,
    })
}

fn number(text: Option<&str>, wrong: Reason) -> Result<Option<f64>, Reason> {
    // NaN and infinity are numbers to the standard library, and to nobody's phone.
    text.map(|text| text.trim().parse().ok().filter(|number: &f64| number.is_finite()).ok_or(wrong)).transpose()
}

fn timestamp_ms(text: &str) -> Result<i64, Reason> {
    let text = text.trim();
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    match whole.parse::<i64>() {
        Ok(seconds) if seconds < SECONDS_BELOW => Ok(seconds.saturating_mul(1_000)),
        Ok(ms) => Ok(ms),
        Err(_) => time::parse_ms(text).ok_or(Reason::InvalidTimestamp),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields::parameters;
    use super::*;

    const NOW: i64 = 1_795_441_689_633;

    fn one(text: &str) -> Result<Submission<'static>, Reason> {
        read(&parameters(text.as_bytes()), NOW).unwrap().remove(0).map_err(|invalid| invalid.reason)
    }

    #[test]
    fn its_own_example_is_read() {
        let position = one(
            "id=123456&lat=40.7128&lon=-74.006&timestamp=1795441689&hdop=3&altitude=10&speed=10&bearing=90&batt=80",
        )
        .unwrap();
        assert_eq!(position.driver_id.as_deref(), Some("123456"));
        assert_eq!((position.latitude, position.longitude), (Some(40.7128), Some(-74.006)));
        assert_eq!((position.heading, position.timestamp_ms), (Some(90.0), Some(1_795_441_689_000)));
        assert!((position.speed.unwrap() - 5.144_444).abs() < 1e-5, "ten knots");
    }

    #[test]
    fn other_spellings_are_read() {
        for (timestamp, ms) in [
            ("1795441689633", NOW),
            ("2026-11-24T03:46:08Z", 1_795_491_968_000),
            ("1795441689.5", 1_795_441_689_000),
            ("", NOW),
        ] {
            let position =
                one(&format!("deviceid=d&location=1.5,2.5&speed=-1&heading=-1&timestamp={timestamp}")).unwrap();
            assert_eq!(
                (position.latitude, position.longitude, position.timestamp_ms),
                (Some(1.5), Some(2.5), Some(ms))
            );
            assert_eq!((position.speed, position.heading), (None, None));
        }
    }

    #[test]
    fn wrong_fields_are_named_and_a_request_without_any_is_no_position() {
        assert_eq!(one("id=d&lat=x&lon=1"), Err(Reason::InvalidLatitude));
        assert_eq!(one("id=d&lat=1&lon=nan"), Err(Reason::InvalidLongitude));
        assert_eq!(one("id=d&lat=1&lon=1&timestamp=soon"), Err(Reason::InvalidTimestamp));
        assert_eq!(one("lat=1").unwrap().driver_id, None);
        assert_eq!(read(&parameters(b"a=b"), NOW), Err(Problem::WrongFormat));
    }
}
