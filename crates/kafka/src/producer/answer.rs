//! What a broker's answer to one batch means: whether it is in the log, and whether another attempt can help.

use kafka_protocol::error::ResponseError;

use crate::error::Error;
use crate::types::Offset;

/// The end of one attempt to append a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The batch is in the log, at this offset where the broker still knows it.
    Appended(Option<Offset>),
    /// This attempt has certainly not appended it; a later one may.
    NotAppended,
    /// This attempt may have appended it; a repetition under the same sequence is safe.
    InDoubt,
    /// This attempt has not appended it, nor will any other.
    Refused(ResponseError),
    /// As `Refused`, for something in it: its other records may still be welcome.
    RefusedForContent(ResponseError),
    /// This attempt has not appended it: the broker expects another sequence from us.
    OutOfSequence,
    /// This attempt has not appended it: the broker does not take our producer id any more.
    IdentityLost,
}

impl Answer {
    /// The broker's code for one partition of a produce request.
    pub(crate) fn from_code(code: i16, base_offset: i64) -> Self {
        use ResponseError as Code;
        let Some(code) = Code::try_from_code(code) else {
            return Self::Appended((base_offset >= 0).then_some(Offset(base_offset)));
        };
        match code {
            // Older than the batches whose offsets the broker remembers.
            Code::DuplicateSequenceNumber => Self::Appended(None),
            // Checked before the append, and in no other place.
            Code::NotEnoughReplicas | Code::LeaderNotAvailable | Code::ThrottlingQuotaExceeded => Self::NotAppended,
            // A leader that has appended, and loses its office while it waits for the replicas, answers with the same
            // code as a broker that never was the leader – but with the offset of what it has appended.
            Code::NotLeaderOrFollower | Code::UnknownTopicOrPartition if base_offset < 0 => Self::NotAppended,
            Code::OutOfOrderSequenceNumber | Code::UnknownProducerId => Self::OutOfSequence,
            Code::InvalidProducerEpoch | Code::InvalidProducerIdMapping | Code::ProducerFenced => Self::IdentityLost,
            Code::MessageTooLarge
            | Code::RecordListTooLarge
            | Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::CorruptMessage => Self::RefusedForContent(code),
            _ if crate::error::is_transient(code) || matches!(code, Code::Unknown(_)) => Self::InDoubt,
            _ => Self::Refused(code),
        }
    }

    /// The request got no answer at all.
    pub(crate) fn from_error(error: &Error) -> Self {
        match error {
            // These come before the first byte is sent.
            Error::Connect { .. }
            | Error::Tls { .. }
            | Error::WrongListener { .. }
            | Error::Authentication { .. }
            | Error::UnknownBroker(_)
            | Error::NoLeader(_)
            | Error::UnknownTopic(_)
            | Error::UnsupportedVersion { .. }
            | Error::Config(_) => Self::NotAppended,
            _ => Self::InDoubt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_and_duplicates_are_in_the_log() {
        assert_eq!(Answer::from_code(0, 17), Answer::Appended(Some(Offset(17))));
        assert_eq!(Answer::from_code(ResponseError::DuplicateSequenceNumber.code(), -1), Answer::Appended(None));
    }

    #[test]
    fn silence_of_the_replicas_and_unknown_codes_leave_doubt() {
        let codes = [
            ResponseError::RequestTimedOut,
            ResponseError::NotEnoughReplicasAfterAppend,
            ResponseError::KafkaStorageError,
            ResponseError::UnknownServerError,
            ResponseError::Unknown(999),
        ];
        for code in codes {
            assert_eq!(Answer::from_code(code.code(), -1), Answer::InDoubt, "{code:?}");
        }
        assert_eq!(Answer::from_code(ResponseError::NotEnoughReplicas.code(), -1), Answer::NotAppended);
    }

    /// Kafka's `DelayedProduce` replaces the code of a response that already holds the offset.
    #[test]
    fn a_deposed_leader_is_told_by_its_offset_from_a_broker_that_never_led() {
        for code in [ResponseError::NotLeaderOrFollower, ResponseError::UnknownTopicOrPartition] {
            assert_eq!(Answer::from_code(code.code(), -1), Answer::NotAppended);
            assert_eq!(Answer::from_code(code.code(), 17), Answer::InDoubt);
        }
    }

    #[test]
    fn lasting_refusals_are_told_from_refusals_of_the_content() {
        let code = ResponseError::TopicAuthorizationFailed;
        assert_eq!(Answer::from_code(code.code(), -1), Answer::Refused(code));
        let code = ResponseError::MessageTooLarge;
        assert_eq!(Answer::from_code(code.code(), -1), Answer::RefusedForContent(code));
    }

    #[test]
    fn only_a_request_that_never_left_is_certain() {
        let address = "127.0.0.1:1".to_owned();
        let source = std::sync::Arc::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        let refused = Error::Connect { address: address.clone(), source };
        assert_eq!(Answer::from_error(&refused), Answer::NotAppended);
        assert_eq!(Answer::from_error(&Error::Disconnected { address }), Answer::InDoubt);
    }
}
