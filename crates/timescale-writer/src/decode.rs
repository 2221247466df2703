//! From a Kafka record to a position, or to the reason why it can never be one.

use event::{DriverLocation, Invalid, Reason};
use kafka::Record;
use pipeline::{Decode, RecordFault};

/// Reads the protobuf value of a record.
#[derive(Debug, Clone, Copy)]
pub struct PositionDecoder;

impl Decode for PositionDecoder {
    type Event = DriverLocation;

    fn decode(&self, record: &Record) -> Result<DriverLocation, RecordFault> {
        let Some(value) = &record.value else {
            let detail = Reason::NullValue.explanation().to_owned();
            return Err(RecordFault { reason: Reason::NullValue.as_str(), detail });
        };
        DriverLocation::decode(value, record.timestamp_ms).map_err(fault)
    }
}

fn fault(invalid: Invalid) -> RecordFault {
    RecordFault { reason: invalid.reason.as_str(), detail: invalid.detail }
}
