//! OwnTracks over HTTP: one message a request, of which only those of type `location` are positions.
//! <https://owntracks.org/booklet/tech/json/>

use event::{Invalid, Reason, Submission};
use serde_json::Value;

use super::fields::{known, name, narrow, number};
use super::{Positions, json};
use crate::problem::Problem;

const KMH_PER_MS: f64 = 3.6;

/// Who sends, as the headers or the query say.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    /// `X-Limit-U`, or `u`.
    pub(crate) user: Option<String>,
    /// `X-Limit-D`, or `d`.
    pub(crate) device: Option<String>,
}

impl Sender {
    fn driver(&self) -> Option<String> {
        match (&self.user, &self.device) {
            (Some(user), Some(device)) => Some(format!("{user}/{device}")),
            (user, device) => device.clone().or_else(|| user.clone()),
        }
    }
}

/// No position for messages of another type: they are fine, and not for us.
pub(crate) fn read(body: &[u8], sender: &Sender) -> Result<Positions, Problem> {
    let message = json(body)?;
    match message.get("_type").and_then(Value::as_str) {
        Some("location") => Ok(vec![position(&message, sender).map_err(Invalid::from)]),
        Some(_) => Ok(Vec::new()),
        None => Err(Problem::WrongFormat),
    }
}

fn position(message: &Value, sender: &Sender) -> Result<Submission<'static>, Reason> {
    let seconds = match message.get("tst") {
        None | Some(Value::Null) => None,
        Some(value) => Some(value.as_i64().ok_or(Reason::InvalidTimestamp)?),
    };
    let speed = known(message.get("vel"), Reason::InvalidSpeed)?;
    Ok(Submission {
        driver_id: sender.driver().or_else(|| by_topic(message)).or_else(|| name(message.get("tid"))).map(Into::into),
        latitude: number(message.get("lat"), Reason::InvalidLatitude)?,
        longitude: number(message.get("lon"), Reason::InvalidLongitude)?,
        heading: narrow(known(message.get("cog"), Reason::InvalidHeading)?),
        speed: narrow(speed.map(|kmh| kmh / KMH_PER_MS)),
        timestamp_ms: seconds.map(|seconds| seconds.saturating_mul(1_000)),
        sent_at_ms: None,
    })
}

/// `owntracks/USER/DEVICE`
fn by_topic(message: &Value) -> Option<String> {
    let topic = message.get("topic")?.as_str()?.strip_prefix("owntracks/")?;
    (!topic.is_empty()).then(|| topic.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_example_is_read() {
        let body = include_bytes!("../../tests/formats/owntracks.json");
        let positions = read(body, &Sender::default()).unwrap();
        let position = positions[0].as_ref().unwrap();
        assert_eq!(position.driver_id.as_deref(), Some("jane/phone"));
        assert_eq!((position.latitude, position.longitude), (Some(40.7128), Some(-74.006)));
        assert_eq!((position.speed, position.heading), (Some(15.0), Some(90.0)), "54 km/h");
        assert_eq!(position.timestamp_ms, Some(1_795_441_689_000));
    }

    #[test]
    fn the_sender_of_the_headers_wins_and_other_messages_are_no_positions() {
        let sender = Sender { user: Some("u".to_owned()), device: Some("d".to_owned()) };
        let body = br#"{"_type":"location","lat":1,"lon":2,"tst":1795441689,"vel":-1,"cog":-1,"tid":"xx"}"#;
        let position = read(body, &sender).unwrap().remove(0).unwrap();
        assert_eq!((position.driver_id.as_deref(), position.speed, position.heading), (Some("u/d"), None, None));
        let position = read(body, &Sender::default()).unwrap().remove(0).unwrap();
        assert_eq!(position.driver_id.as_deref(), Some("xx"));
        assert_eq!(read(br#"{"_type":"lwt","tst":1}"#, &sender), Ok(Vec::new()));
        assert_eq!(read(b"{}", &sender), Err(Problem::WrongFormat));
    }
}
