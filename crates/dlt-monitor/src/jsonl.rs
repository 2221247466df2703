//! Letters as JSON lines: what `export` writes, and what `import` reads back after somebody has repaired it. Pure.
//!
//! Bytes are `{"base64": …}`, or `{"text": …}` where they are printable; null stays null. For repair `value` may also be
//! `{"event": {"driverId": …, "latitude": …}}`, with the fields of the HTTP interface, times in ms since the epoch.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use event::{DriverId, DriverLocation, Reason};
use kafka::{Offset, PartitionId, Record, TimestampType, TopicPartition};
use serde_json::{Map, Value, json};

use crate::anatomy::dissect;
use crate::letter::Letter;
use crate::moment::show_ms;
use crate::scan::{Found, Place};
use crate::story::Story;

/// A letter as one object.
pub(crate) fn export(found: &Found) -> Value {
    let record = &found.record;
    let headers = record.headers.iter().map(|(name, value)| json!({"name": name, "value": bytes_out(value.as_ref())}));
    let mut json = Story::of(found).json();
    let more = json!({
        "letter_topic": &*found.place.partition.topic,
        "partition": found.place.partition.partition.0,
        "offset": found.place.offset.0,
        "timestamp": record.timestamp_ms,
        "time": show_ms(record.timestamp_ms),
        "key": bytes_out(record.key.as_ref()),
        "value": bytes_out(record.value.as_ref()),
        "decoded": decoded(record),
        "headers": headers.collect::<Vec<_>>(),
    });
    if let (Some(json), Value::Object(more)) = (json.as_object_mut(), more) {
        json.extend(more);
    }
    json
}

/// The fields of the value as far as they can be read: to look at, not read back.
fn decoded(record: &Record) -> Value {
    let fields = dissect(record.value.as_deref().unwrap_or_default()).fields;
    fields.iter().map(|field| (field.name.to_owned(), field.value.json())).collect::<Map<_, _>>().into()
}

fn bytes_out(bytes: Option<&Bytes>) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => json!({ "text": text }),
        _ => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

/// Reads a line of `import` back into a letter.
///
/// # Errors
/// What is wrong with it, without its number.
pub(crate) fn import(line: &str, dead_letter_topic: &Arc<str>) -> Result<Found, String> {
    let json: Value = serde_json::from_str(line).map_err(|error| format!("not JSON: {error}"))?;
    let object = json.as_object().ok_or("not a JSON object")?;
    let record = Record {
        offset: Offset(number(object, "offset")?),
        timestamp_ms: number(object, "timestamp")?,
        timestamp_type: TimestampType::CreateTime,
        key: bytes_in("key", object.get("key"))?,
        value: value_in(object)?,
        headers: headers_in(object.get("headers"))?,
    };
    let partition = i32::try_from(number(object, "partition")?).map_err(|_| "partition: not a partition".to_owned())?;
    let partition = TopicPartition::new(Arc::clone(dead_letter_topic), PartitionId(partition));
    let place = Place { partition, offset: record.offset };
    Ok(Found { place, letter: Letter::of(&record), record, is_undecodable: false })
}

fn number(object: &Map<String, Value>, name: &str) -> Result<i64, String> {
    object.get(name).and_then(Value::as_i64).ok_or_else(|| format!("{name}: give a whole number, as export wrote it"))
}

fn bytes_in(name: &str, value: Option<&Value>) -> Result<Option<Bytes>, String> {
    let form = || format!("{name}: give null, {{\"text\": …}} or {{\"base64\": …}}");
    match value {
        Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) if object.len() == 1 => match (object.get("text"), object.get("base64")) {
            (Some(Value::String(text)), _) => Ok(Some(Bytes::from(text.clone()))),
            (_, Some(Value::String(text))) => {
                let bytes = STANDARD.decode(text).map_err(|error| format!("{name}: not base64: {error}"))?;
                Ok(Some(Bytes::from(bytes)))
            }
            _ => Err(form()),
        },
        _ => Err(form()),
    }
}

fn value_in(object: &Map<String, Value>) -> Result<Option<Bytes>, String> {
    match object.get("value").and_then(|value| value.get("event")) {
        Some(event) => event_in(event, number(object, "timestamp")?).map(Some),
        None => bytes_in("value", object.get("value")),
    }
}

fn headers_in(headers: Option<&Value>) -> Result<Vec<(String, Option<Bytes>)>, String> {
    let headers = headers.and_then(Value::as_array).ok_or("headers: give a list, as export wrote it")?;
    let header = |header: &Value| {
        let name = header.get("name").and_then(Value::as_str).ok_or("headers: one has no name")?;
        Ok((name.to_owned(), bytes_in(name, header.get("value"))?))
    };
    headers.iter().map(header).collect()
}

/// A position that somebody wrote by hand, as the bytes that a writer reads. The original's time of receipt may be left
/// out; then the letter's own time stands in.
fn event_in(event: &Value, letter_ms: i64) -> Result<Bytes, String> {
    let missing = |name: &str| format!("value: event: {name} is missing, or not what it should be");
    let real = |name: &str| event.get(name).and_then(Value::as_f64);
    let integer = |name: &str| event.get(name).and_then(Value::as_i64);
    let id = event.get("driverId").and_then(Value::as_str).ok_or_else(|| missing("driverId"))?;
    let timestamp_ms = integer("timestamp").ok_or_else(|| missing("timestamp"))?;
    let received_at_ms = integer("receivedAt").unwrap_or(letter_ms);
    #[expect(clippy::cast_possible_truncation, reason = "the schema has these two as 32-bit floats")]
    let location = DriverLocation {
        driver_id: DriverId::try_from(id).map_err(fault)?,
        latitude: real("latitude").ok_or_else(|| missing("latitude"))?,
        longitude: real("longitude").ok_or_else(|| missing("longitude"))?,
        heading: real("heading").map(|heading| heading as f32),
        speed: real("speed").map(|speed| speed as f32),
        timestamp_ms,
        received_at_ms,
        effective_at_ms: integer("effectiveAt").unwrap_or(timestamp_ms).min(received_at_ms),
    };
    let bytes = location.encode();
    check(Some(&bytes), received_at_ms)?;
    Ok(bytes)
}

fn fault(reason: Reason) -> String {
    format!("value: event: {}", reason.explanation())
}

/// Whether the writers of this version take a value.
///
/// # Errors
/// The rule that it breaks.
pub(crate) fn check(value: Option<&[u8]>, timestamp_ms: i64) -> Result<(), String> {
    let value = value.ok_or_else(|| format!("{}: {}", Reason::NullValue, Reason::NullValue.explanation()))?;
    DriverLocation::decode(value, timestamp_ms).map(drop).map_err(|invalid| invalid.to_string())
}

#[cfg(test)]
mod tests {
    use kafka::dead_letter::headers as names;

    use super::*;
    use crate::scan::samples::found;

    fn topic() -> Arc<str> {
        Arc::from("t.DLT")
    }

    fn letter() -> Found {
        let mut letter = found(3, 17, 1_795_441_689_633, b"driver-1", "g", "undecodable");
        letter.record.value = Some(Bytes::from_static(&[0x0a, 1, 0xff]));
        let binary = Some(Bytes::from_static(&[0, 0, 0, 3]));
        letter.record.headers = vec![
            (names::ORIGINAL_TOPIC.to_owned(), Some(Bytes::from_static(b"t"))),
            (names::ORIGINAL_PARTITION.to_owned(), binary),
            ("empty".to_owned(), Some(Bytes::new())),
            ("null".to_owned(), None),
        ];
        letter.letter = Letter::of(&letter.record);
        letter
    }

    fn edited(change: impl FnOnce(&mut Map<String, Value>)) -> Result<Found, String> {
        let mut json = export(&letter());
        change(json.as_object_mut().unwrap());
        import(&json.to_string(), &topic())
    }

    #[test]
    fn what_is_exported_reads_back() {
        let back = edited(|_| ()).unwrap();
        assert_eq!((back.record, back.place, back.letter), (letter().record, letter().place, letter().letter));
    }

    #[test]
    fn a_value_can_be_repaired_as_an_event() {
        let event =
            json!({"driverId": "driver-1", "latitude": 40.7, "longitude": -74, "timestamp": 1_795_441_689_000_i64});
        let repaired = edited(|json| drop(json.insert("value".to_owned(), json!({ "event": event })))).unwrap();
        let position = DriverLocation::decode(&repaired.record.value.unwrap(), 1_795_441_689_633).unwrap();
        assert_eq!((position.driver_id.as_str(), position.latitude, position.heading), ("driver-1", 40.7, None));
        assert_eq!(position.effective_at_ms, 1_795_441_689_000);
    }

    #[test]
    fn lines_that_cannot_be_say_what_is_wrong() {
        let set = |name: &'static str, value: Value| edited(move |json| drop(json.insert(name.to_owned(), value)));
        for (result, part) in [
            (import("{", &topic()), "not JSON"),
            (import("[]", &topic()), "not a JSON object"),
            (import("{}", &topic()), "offset: give a whole number"),
            (set("key", json!("driver-1")), "key: give null"),
            (set("value", json!({"base64": "***"})), "value: not base64"),
            (set("value", json!({"hex": "00"})), "value: give null"),
            (set("headers", json!(null)), "headers: give a list"),
            (set("headers", json!([{"value": null}])), "headers: one has no name"),
            (set("partition", json!(99_999_999_999_i64)), "partition: not a partition"),
            (set("value", json!({"event": {}})), "driverId is missing"),
            (
                set(
                    "value",
                    json!({"event": {"driverId": "d", "latitude": 91, "longitude": 0, "timestamp": 1_795_441_689_000_i64}}),
                ),
                "latitude must be",
            ),
        ] {
            let line = result.unwrap_err();
            assert!(line.contains(part) && !line.contains('\n'), "{line}");
        }
    }
}
