//! What phones send already, read into our own form: units converted, −1 and empty as unknown.
//!
//! ```text
//! Overland    GeoJSON, many        m/s, [longitude, latitude]      answer {"result":"ok"}
//! OwnTracks   JSON, one            km/h, seconds                   answer []
//! OsmAnd      query or form, one   knots, seconds or ISO 8601      answer without a body
//! Traccar     JSON, one or many    m/s, ISO 8601                   answer as to a batch
//! ```

mod fields;
mod osmand;
mod overland;
mod owntracks;
mod time;
mod traccar;

use event::{Invalid, Reason, Submission};
use serde_json::Value;

use crate::problem::Problem;

pub(crate) use fields::{base64, parameters};
pub(crate) use osmand::read as osmand;
pub(crate) use overland::read as overland;
pub(crate) use owntracks::{Sender, read as owntracks};
pub(crate) use traccar::read as traccar;

/// Positions in the order of the body, or what is wrong with each.
pub(crate) type Positions = Vec<Result<Submission<'static>, Invalid>>;

/// A body that must be JSON.
fn json(body: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(body).map_err(|_| Problem::Invalid(Reason::MalformedJson.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bodies that are nearly right: examples of each format with some bytes changed.
    const SEEDS: [&str; 4] = [
        include_str!("../tests/formats/overland.json"),
        include_str!("../tests/formats/owntracks.json"),
        include_str!("../tests/formats/traccar.json"),
        "id=123456&lat=40.7&lon=-74.0&timestamp=1795441689&speed=10&bearing=90",
    ];

    fn read_all(body: &[u8]) {
        let _ = overland(body, None);
        let _ = owntracks(body, &Sender::default());
        let _ = traccar(body, None);
        let _ = osmand(&parameters(body), 0);
        let _ = base64(&String::from_utf8_lossy(body));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(body: Vec<u8>) {
            read_all(&body);
        }

        #[test]
        fn no_mutation_makes_a_parser_panic(seed in 0..SEEDS.len(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
            let mut body = SEEDS[seed].as_bytes().to_vec();
            for (at, byte) in changes {
                let at = at.index(body.len());
                body[at] = byte;
            }
            read_all(&body);
        }
    }
}
