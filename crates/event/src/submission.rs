//! What a phone posts: one JSON object, or an array of them, read with a reason for everything that can be wrong.
//!
//! Reading is two-fold. The quick way takes a right body in one pass. When it stumbles, the thorough way looks at each
//! field by itself, so that `"latitude":"x"`, `1e400` or a repeated key is that field's fault and only a body that is
//! not JSON is `malformed_json`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::clock::{ClockNote, check_timestamp, effective_time};
use crate::location::Draft;
use crate::{DriverLocation, Invalid, Reason};

/// A position as a phone gives it, nothing checked but the JSON types. null counts as absent, unknown keys are ignored.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Submission<'a> {
    /// `driverId`
    pub driver_id: Option<Cow<'a, str>>,
    /// `latitude`, degrees
    pub latitude: Option<f64>,
    /// `longitude`, degrees
    pub longitude: Option<f64>,
    /// `heading`, degrees
    pub heading: Option<f32>,
    /// `speed`, metres per second
    pub speed: Option<f32>,
    /// `timestamp`, the phone's clock when the position was taken, milliseconds
    pub timestamp_ms: Option<i64>,
    /// `sentAt`, the phone's clock when the request was sent, milliseconds
    pub sent_at_ms: Option<i64>,
}

/// Why a batch cannot be read as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchFault {
    /// Not JSON.
    Malformed,
    /// JSON, but no array.
    NotAnArray,
    /// More items than allowed.
    TooMany,
}

impl<'a> Submission<'a> {
    /// Reads one JSON object.
    ///
    /// # Errors
    /// [`Reason::MalformedJson`], [`Reason::NotAnObject`], or the first field whose JSON type is wrong.
    pub fn from_json(body: &'a [u8]) -> Result<Self, Invalid> {
        serde_json::from_slice(body).or_else(|_| thorough(body)).map_err(Invalid::from)
    }

    /// Reads a JSON array of at most `limit` objects; an item that cannot be read does not touch the others.
    ///
    /// # Errors
    /// [`BatchFault`]: the body as a whole is not such an array.
    pub fn batch_from_json(body: &'a [u8], limit: usize) -> Result<Vec<Result<Self, Invalid>>, BatchFault> {
        if let Ok(items) = items::<Self>(body, limit) {
            return items.map(|items| items.into_iter().map(Ok).collect()).ok_or(BatchFault::TooMany);
        }
        match items::<&RawValue>(body, limit) {
            Ok(Some(items)) => Ok(items.into_iter().map(|item| Self::from_json(item.get().as_bytes())).collect()),
            Ok(None) => Err(BatchFault::TooMany),
            Err(error) if error.classify() == Category::Data => Err(BatchFault::NotAnArray),
            Err(_) => Err(BatchFault::Malformed),
        }
    }

    /// Checks every rule and decides the effective time. `sent_at_fallback` is the request's own word (its `Date`
    /// header) for when it was sent, used where the position has no `sentAt`, and ignored where it is out of range.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn accept(
        self,
        received_at_ms: i64,
        sent_at_fallback: Option<i64>,
    ) -> Result<(DriverLocation, ClockNote), Invalid> {
        let draft = Draft {
            driver_id: self.driver_id,
            latitude: self.latitude,
            longitude: self.longitude,
            heading: self.heading,
            speed: self.speed,
            timestamp_ms: self.timestamp_ms,
        };
        let mut location = draft.check(received_at_ms)?;
        let stated = self.sent_at_ms.map(|sent_at| check_timestamp(sent_at, received_at_ms)).transpose();
        let fallback = sent_at_fallback.filter(|sent_at| check_timestamp(*sent_at, received_at_ms).is_ok());
        let sent_at = stated.map_err(|_| Reason::InvalidSentAt)?.or(fallback);
        let (effective_at_ms, note) = effective_time(location.timestamp_ms, sent_at, received_at_ms);
        location.effective_at_ms = effective_at_ms;
        Ok((location, note))
    }
}

/// A key of the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Key {
    DriverId,
    Latitude,
    Longitude,
    Heading,
    Speed,
    Timestamp,
    SentAt,
    #[serde(other)]
    Other,
}

impl Key {
    const COUNT: usize = Self::Other as usize;

    /// The reason when the value under this key has the wrong type or the key is repeated.
    fn invalid(self) -> Reason {
        match self {
            Self::DriverId => Reason::InvalidDriverId,
            Self::Latitude => Reason::InvalidLatitude,
            Self::Longitude => Reason::InvalidLongitude,
            Self::Heading => Reason::InvalidHeading,
            Self::Speed => Reason::InvalidSpeed,
            Self::Timestamp => Reason::InvalidTimestamp,
            Self::SentAt => Reason::InvalidSentAt,
            Self::Other => Reason::MalformedJson,
        }
    }
}

/// Borrows from the body unless the text has escapes; serde does that for a `Cow` only behind this attribute.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The quick way: one pass, stops at the first oddity and does not care what to call it.
impl<'de> Deserialize<'de> for Submission<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(QuickVisitor)
    }
}

struct QuickVisitor;

impl<'de> Visitor<'de> for QuickVisitor {
    type Value = Submission<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a position")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut position = Submission::default();
        let mut seen = [false; Key::COUNT];
        while let Some(key) = map.next_key()? {
            if let Some(seen) = seen.get_mut(key as usize)
                && std::mem::replace(seen, true)
            {
                return Err(A::Error::custom("repeated key"));
            }
            match key {
                Key::DriverId => position.driver_id = map.next_value::<Option<Text<'de>>>()?.map(|text| text.0),
                Key::Latitude => position.latitude = map.next_value()?,
                Key::Longitude => position.longitude = map.next_value()?,
                Key::Heading => position.heading = map.next_value()?,
                Key::Speed => position.speed = map.next_value()?,
                Key::Timestamp => position.timestamp_ms = map.next_value()?,
                Key::SentAt => position.sent_at_ms = map.next_value()?,
                Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(position)
    }
}

/// The thorough way: each value is first only delimited, then read by itself.
fn thorough(body: &[u8]) -> Result<Submission<'_>, Reason> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let fields = reader.deserialize_map(RawVisitor).map_err(|error| match error.classify() {
        Category::Data => Reason::NotAnObject,
        Category::Io | Category::Syntax | Category::Eof => Reason::MalformedJson,
    })?;
    reader.end().map_err(|_| Reason::MalformedJson)?;
    fields.read()
}

/// The raw text under each known key, and the first key that came twice.
#[derive(Default)]
struct RawFields<'a> {
    values: [Option<&'a RawValue>; Key::COUNT],
    repeated: Option<Key>,
}

impl<'a> RawFields<'a> {
    fn read(&self) -> Result<Submission<'a>, Reason> {
        if let Some(key) = self.repeated {
            return Err(key.invalid());
        }
        Ok(Submission {
            driver_id: self.value::<Text<'a>>(Key::DriverId)?.map(|text| text.0),
            latitude: self.value(Key::Latitude)?,
            longitude: self.value(Key::Longitude)?,
            heading: self.value(Key::Heading)?,
            speed: self.value(Key::Speed)?,
            timestamp_ms: self.value(Key::Timestamp)?,
            sent_at_ms: self.value(Key::SentAt)?,
        })
    }

    fn value<T: Deserialize<'a>>(&self, key: Key) -> Result<Option<T>, Reason> {
        let Some(raw) = self.values[key as usize] else { return Ok(None) };
        serde_json::from_str(raw.get()).map_err(|_| key.invalid())
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawFields<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a position")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = RawFields::default();
        while let Some((key, raw)) = map.next_entry::<Key, &'de RawValue>()? {
            let Some(value) = fields.values.get_mut(key as usize) else { continue };
            if value.replace(raw).is_some() {
                fields.repeated.get_or_insert(key);
            }
        }
        Ok(fields)
    }
}

/// The items of a JSON array, None when there are more than `limit`.
fn items<'a, T: Deserialize<'a>>(body: &'a [u8], limit: usize) -> serde_json::Result<Option<Vec<T>>> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let items = reader.deserialize_seq(ItemsVisitor { limit, item: PhantomData })?;
    reader.end()?;
    Ok(items)
}

struct ItemsVisitor<T> {
    limit: usize,
    item: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ItemsVisitor<T> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an array of positions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while items.len() < self.limit {
            match array.next_element()? {
                Some(item) => items.push(item),
                None => return Ok(Some(items)),
            }
        }
        // The rest is read and dropped, so that a body that is not JSON further on still counts as malformed.
        let mut more = false;
        while array.next_element::<IgnoredAny>()?.is_some() {
            more = true;
        }
        Ok((!more).then_some(items))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{EARLIEST_MS, FARTHEST_AHEAD_MS};

    const NOW: i64 = 1_795_441_689_733;
    const RIGHT: &str = r#"{"driverId":"driver-17","latitude":40.7128,"longitude":-74.006,"heading":90,"speed":31.5,"timestamp":1795441689633}"#;

    /// The right body with one field's raw JSON replaced.
    fn with(field: &str, raw: &str) -> String {
        let start = RIGHT.find(&format!("\"{field}\":")).unwrap() + field.len() + 3;
        let end = start + RIGHT[start..].find([',', '}']).unwrap();
        format!("{}{raw}{}", &RIGHT[..start], &RIGHT[end..])
    }

    fn accept(body: &str) -> Result<DriverLocation, Reason> {
        let accepted = Submission::from_json(body.as_bytes()).and_then(|position| position.accept(NOW, None));
        accepted.map(|(location, _)| location).map_err(|invalid| invalid.reason)
    }

    #[test]
    fn a_right_body_becomes_a_location() {
        let location = accept(RIGHT).unwrap();
        assert_eq!(location.driver_id.as_str(), "driver-17");
        assert_eq!((location.latitude, location.longitude), (40.7128, -74.006));
        assert_eq!((location.heading, location.speed), (Some(90.0), Some(31.5)));
        assert_eq!((location.timestamp_ms, location.received_at_ms), (1_795_441_689_633, NOW));
        assert_eq!(location.effective_at_ms, 1_795_441_689_633);
    }

    #[test]
    fn optional_fields_may_be_absent_or_null() {
        let short = r#"{"driverId":"d","latitude":0,"longitude":0.0,"timestamp":1795441689633}"#;
        let nulls = r#"{"driverId":"d","latitude":0,"longitude":0.0,"timestamp":1795441689633,"heading":null,"speed":null,"sentAt":null}"#;
        for body in [short, nulls] {
            let location = accept(body).unwrap();
            assert_eq!((location.heading, location.speed), (None, None));
            assert_eq!((location.latitude, location.longitude), (0.0, 0.0));
        }
    }

    #[test]
    fn unknown_keys_are_ignored_whatever_they_hold() {
        let body =
            RIGHT.replacen('{', r#"{"battery":0.5,"extra":{"latitude":[1,{"a":"\ud83d\ude95"}]},"huge":1e400,"#, 1);
        assert!(accept(&body).is_ok());
    }

    #[test]
    fn escapes_in_a_driver_id_are_read() {
        assert_eq!(accept(&with("driverId", r#""J\u00f6rg\/1""#)).unwrap().driver_id.as_str(), "Jörg/1");
    }

    #[test]
    fn each_field_has_its_reason() {
        let cases: &[(&str, &[&str], Reason)] = &[
            ("driverId", &["null"], Reason::MissingDriverId),
            ("driverId", &["17", "true", "{}", "[]", r#""""#, r#""a\u0000b""#, r#""\ud800""#], Reason::InvalidDriverId),
            ("latitude", &["null"], Reason::MissingLatitude),
            (
                "latitude",
                &["\"40.7\"", "true", "{}", "[40.7]", "90.1", "-91", "1e400", "123456789012345678901234567890"],
                Reason::InvalidLatitude,
            ),
            ("longitude", &["null"], Reason::MissingLongitude),
            ("longitude", &["\"\"", "false", "180.5", "-1e400"], Reason::InvalidLongitude),
            ("heading", &["-1", "361", "\"N\"", "1e39", "1e400"], Reason::InvalidHeading),
            ("speed", &["-0.5", "1e39", "\"fast\"", "1e400"], Reason::InvalidSpeed),
            ("timestamp", &["null"], Reason::MissingTimestamp),
            (
                "timestamp",
                &["\"1795441689633\"", "1795441689633.0", "1.795e12", "9223372036854775808", "true", "1e400"],
                Reason::InvalidTimestamp,
            ),
            ("timestamp", &["0", "1795441689", "-1", "946684799999", "-9223372036854775808"], Reason::TimestampTooOld),
            ("timestamp", &["1795528089734", "9223372036854775807"], Reason::TimestampTooFarAhead),
        ];
        for (field, values, reason) in cases {
            for value in *values {
                assert_eq!(accept(&with(field, value)), Err(*reason), "{field}: {value}");
                assert_eq!(reason.field(), Some(*field));
            }
        }
    }

    #[test]
    fn absent_fields_are_missing() {
        assert_eq!(accept("{}"), Err(Reason::MissingDriverId));
        assert_eq!(accept(r#"{"driverId":"d"}"#), Err(Reason::MissingLatitude));
        assert_eq!(accept(r#"{"driverId":"d","latitude":1}"#), Err(Reason::MissingLongitude));
        assert_eq!(accept(r#"{"driverId":"d","latitude":1,"longitude":1}"#), Err(Reason::MissingTimestamp));
    }

    #[test]
    fn a_repeated_key_is_that_fields_fault() {
        assert_eq!(accept(&RIGHT.replacen('{', r#"{"latitude":1,"#, 1)), Err(Reason::InvalidLatitude));
        assert_eq!(accept(&RIGHT.replacen('{', r#"{"driverId":null,"#, 1)), Err(Reason::InvalidDriverId));
        assert!(accept(&RIGHT.replacen('{', r#"{"x":1,"x":2,"#, 1)).is_ok());
    }

    #[test]
    fn a_body_that_is_not_json_is_malformed() {
        let truncated = &RIGHT[..RIGHT.len() - 1];
        let trailing = format!("{RIGHT}x");
        for body in [
            "",
            " ",
            "{",
            truncated,
            &trailing,
            "{'a':1}",
            "{\"latitude\":NaN}",
            "{\"latitude\":+1}",
            "{\"latitude\":01}",
            "{,}",
        ] {
            assert_eq!(accept(body), Err(Reason::MalformedJson), "{body}");
        }
        assert_eq!(Submission::from_json(b"{\"driverId\":\"\xff\"}").unwrap_err().reason, Reason::MalformedJson);
    }

    #[test]
    fn json_that_is_no_object_says_so() {
        for body in ["null", "1", "\"x\"", "true", "[]", r#"["driver-17",40.7,-74.0,90,31.5,1795441689633]"#] {
            assert_eq!(accept(body), Err(Reason::NotAnObject), "{body}");
        }
    }

    #[test]
    fn the_requests_date_stands_in_for_sent_at() {
        let phone = NOW - 300_000;
        let body = with("timestamp", &(phone - 100).to_string());
        let effective = |body: &str, date| {
            Submission::from_json(body.as_bytes())
                .unwrap()
                .accept(NOW, date)
                .map(|(location, _)| location.effective_at_ms)
        };
        assert_eq!(effective(&body, None), Ok(phone - 100));
        assert_eq!(effective(&body, Some(phone)), Ok(NOW - 100));
        let stated = body.replacen('{', &format!("{{\"sentAt\":{phone},"), 1);
        assert_eq!(effective(&stated, Some(NOW - 7_200_000)), Ok(NOW - 100));
        for garbage in [0, i64::MIN, i64::MAX] {
            assert_eq!(effective(&body, Some(garbage)), Ok(phone - 100));
        }
    }

    #[test]
    fn a_sent_at_out_of_range_is_refused() {
        for wrong in [0, EARLIEST_MS - 1, NOW + FARTHEST_AHEAD_MS + 1, i64::MIN, i64::MAX] {
            assert_eq!(accept(&RIGHT.replacen('{', &format!("{{\"sentAt\":{wrong},"), 1)), Err(Reason::InvalidSentAt));
        }
        assert_eq!(accept(&RIGHT.replacen('{', "{\"sentAt\":\"now\",", 1)), Err(Reason::InvalidSentAt));
    }

    #[test]
    fn one_bad_item_leaves_the_rest_of_a_batch() {
        let body = format!("[{RIGHT},{},7,{{}},{RIGHT}]", with("latitude", "\"x\""));
        let batch = Submission::batch_from_json(body.as_bytes(), 1_000).unwrap();
        let reasons: Vec<_> = batch.into_iter().map(|item| item.err().map(|invalid| invalid.reason)).collect();
        assert_eq!(reasons, [None, Some(Reason::InvalidLatitude), Some(Reason::NotAnObject), None, None]);
    }

    #[test]
    fn a_batch_has_a_limit() {
        let batch = |count| format!("[{}]", vec![RIGHT; count].join(","));
        let length = |body: &str| Submission::batch_from_json(body.as_bytes(), 3).map(|items| items.len());
        assert_eq!(length("[]"), Ok(0));
        assert_eq!(length(&batch(3)), Ok(3));
        assert_eq!(length(&batch(4)), Err(BatchFault::TooMany));
        assert_eq!(length("[1,2,3,4]"), Err(BatchFault::TooMany));
    }

    #[test]
    fn a_batch_that_is_no_array_is_told_from_one_that_is_no_json() {
        for (body, fault) in [
            ("", BatchFault::Malformed),
            ("[", BatchFault::Malformed),
            ("[1,]", BatchFault::Malformed),
            ("[1,2,3,4,5,x]", BatchFault::Malformed),
            ("[]x", BatchFault::Malformed),
            (RIGHT, BatchFault::NotAnArray),
            ("7", BatchFault::NotAnArray),
        ] {
            assert_eq!(Submission::batch_from_json(body.as_bytes(), 3), Err(fault), "{body}");
        }
    }

    proptest! {
        #[test]
        fn both_ways_agree_on_right_bodies(
            id in "[ -~é]{0,20}", latitude: f64, longitude in -1e3..1e3, heading: Option<u16>, speed: Option<f32>, timestamp: i64,
        ) {
            let speed = speed.filter(|speed| speed.is_finite());
            let latitude = if latitude.is_finite() { latitude } else { 0.0 };
            let body = serde_json::json!({
                "driverId": id, "latitude": latitude, "longitude": longitude, "heading": heading, "speed": speed, "timestamp": timestamp,
            }).to_string();
            let quick: Submission<'_> = serde_json::from_str(&body).unwrap();
            prop_assert_eq!(thorough(body.as_bytes()), Ok(quick.clone()));
            prop_assert_eq!(quick.latitude, Some(latitude));
            prop_assert_eq!(quick.timestamp_ms, Some(timestamp));
        }

        #[test]
        fn no_body_makes_it_panic(body: Vec<u8>) {
            let _ = Submission::from_json(&body).and_then(|position| position.accept(NOW, None));
            let _ = Submission::batch_from_json(&body, 3);
        }

        #[test]
        fn no_mutation_makes_it_panic(at in 0..RIGHT.len(), byte: u8) {
            let mut body = RIGHT.as_bytes().to_vec();
            body[at] = byte;
            if let Ok((location, _)) = Submission::from_json(&body).and_then(|position| position.accept(NOW, None)) {
                prop_assert!(location.latitude.abs() <= 90.0 && location.effective_at_ms <= NOW);
            }
        }
    }
}
