//! How a pipeline is a member of its group: the flags, and the client's settings made from them.

use std::sync::Arc;
use std::time::Duration;

use kafka::{Assignor, ClassicConfig, GroupProtocol};

const SESSION_MIN: Duration = Duration::from_secs(1);
const SESSION_MAX: Duration = Duration::from_mins(5);
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);
const REBALANCE_MIN: Duration = Duration::from_secs(1);
const REBALANCE_MAX: Duration = Duration::from_hours(24);

/// Which of Kafka's group protocols is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ProtocolName {
    /// A member shares the partitions out.
    Classic,
    /// The broker does (KIP-848).
    Consumer,
}

/// Flags of every member of a group.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Group options")]
pub struct MembershipArgs {
    /// Protocol of the group: classic (a member shares the partitions out) or consumer (the broker does; Kafka 4.0)
    #[arg(long, value_name = "classic|consumer", default_value = "classic", hide_possible_values = true)]
    pub group_protocol: ProtocolName,

    /// Assignors to offer, the preferred one first: range, cooperative-sticky, load-aware; a list with range makes an
    /// eager member [default: load-aware]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', num_args = 1..)]
    pub assignor: Option<Vec<Assignor>>,

    /// The broker's assignor (uniform or range), with --group-protocol consumer [default: the broker's]
    #[arg(long, value_name = "NAME")]
    pub remote_assignor: Option<String>,

    /// Name of this member that outlives the process: back within the session time-out, it has its partitions again;
    /// no two members may have the same
    #[arg(long, value_name = "NAME")]
    pub group_instance_id: Option<String>,

    /// Silence after which the group gives this member's partitions to others [default: 6s; with --group-protocol
    /// consumer the broker's]
    #[arg(long, value_name = "DURATION", value_parser = service::duration(SESSION_MIN..=SESSION_MAX))]
    pub session_timeout: Option<Duration>,

    /// Interval of the heartbeats to the group; at most a third of --session-timeout. While records flow and after a
    /// rebalance, 400ms if that is less [default: 2s; with --group-protocol consumer the broker's]
    #[arg(long, value_name = "DURATION", value_parser = service::duration(HEARTBEAT_MIN..=SESSION_MAX))]
    pub heartbeat_interval: Option<Duration>,

    /// Least time between two rebalances that load-aware asks for because the load has drifted [default: 1m]
    #[arg(long, value_name = "DURATION", value_parser = service::duration(REBALANCE_MIN..=REBALANCE_MAX))]
    pub rebalance_interval: Option<Duration>,
}

impl MembershipArgs {
    /// Checks the flags against each other.
    ///
    /// # Errors
    /// The flag to blame.
    pub fn check(&self) -> Result<(), service::Usage> {
        if self.group_instance_id.as_ref().is_some_and(String::is_empty) {
            return Err(service::Usage::new("--group-instance-id", "", "give a name, another for each member"));
        }
        match self.group_protocol {
            ProtocolName::Classic => self.check_classic(),
            ProtocolName::Consumer => self.check_consumer(),
        }
    }

    fn check_classic(&self) -> Result<(), service::Usage> {
        if let Some(name) = &self.remote_assignor {
            let remedy = "is for --group-protocol consumer; with classic give --assignor";
            return Err(service::Usage::new("--remote-assignor", name, remedy));
        }
        let classic = self.classic();
        if let Some(twice) = repeated(&classic.assignors) {
            return Err(service::Usage::new("--assignor", twice, "is given twice"));
        }
        if classic.heartbeat_interval * 3 > classic.session_timeout {
            let limit = service::format_duration(classic.session_timeout / 3);
            let remedy = format!("must be at most a third of --session-timeout ({limit})");
            let given = service::format_duration(classic.heartbeat_interval);
            return Err(service::Usage::new("--heartbeat-interval", given, remedy));
        }
        Ok(())
    }

    /// With the consumer protocol the broker decides what these flags would say.
    fn check_consumer(&self) -> Result<(), service::Usage> {
        let assignors = self.assignor.as_deref().map(names);
        let shown = |duration: Option<Duration>| duration.map(service::format_duration);
        let given = [
            (
                "--assignor",
                assignors,
                "does not go with --group-protocol consumer: the broker assigns (--remote-assignor)",
            ),
            ("--session-timeout", shown(self.session_timeout), CONSUMER_SESSION),
            ("--heartbeat-interval", shown(self.heartbeat_interval), CONSUMER_HEARTBEAT),
            ("--rebalance-interval", shown(self.rebalance_interval), "is for --assignor load-aware"),
        ];
        match given.into_iter().find_map(|(flag, value, remedy)| Some((flag, value?, remedy))) {
            Some((flag, value, remedy)) => Err(service::Usage::new(flag, value, remedy)),
            None => Ok(()),
        }
    }

    fn classic(&self) -> ClassicConfig {
        let default = ClassicConfig::default();
        ClassicConfig {
            assignors: self.assignor.clone().unwrap_or(default.assignors),
            session_timeout: self.session_timeout.unwrap_or(default.session_timeout),
            heartbeat_interval: self.heartbeat_interval.unwrap_or(default.heartbeat_interval),
            rebalance_interval: self.rebalance_interval.unwrap_or(default.rebalance_interval),
        }
    }

    /// The client's settings.
    pub fn membership(&self) -> Membership {
        let protocol = match self.group_protocol {
            ProtocolName::Classic => GroupProtocol::Classic(self.classic()),
            ProtocolName::Consumer => GroupProtocol::Consumer { remote_assignor: self.remote_assignor.clone() },
        };
        Membership { protocol, instance_id: self.group_instance_id.as_deref().map(Arc::from) }
    }
}

const CONSUMER_SESSION: &str =
    "does not go with --group-protocol consumer: set group.consumer.session.timeout.ms at the broker";
const CONSUMER_HEARTBEAT: &str =
    "does not go with --group-protocol consumer: set group.consumer.heartbeat.interval.ms at the broker";

/// How the pipeline is a member of its group.
#[derive(Debug, Clone)]
pub struct Membership {
    /// By which protocol.
    pub protocol: GroupProtocol,
    /// Its static identity, if it has one.
    pub instance_id: Option<Arc<str>>,
}

fn repeated(assignors: &[Assignor]) -> Option<Assignor> {
    assignors.iter().enumerate().find(|(index, one)| assignors[..*index].contains(one)).map(|(_, one)| *one)
}

fn names(assignors: &[Assignor]) -> String {
    assignors.iter().map(|assignor| assignor.name()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Sample {
        #[command(flatten)]
        membership: MembershipArgs,
    }

    fn parse(args: &[&str]) -> MembershipArgs {
        Sample::try_parse_from([&["sample"], args].concat()).unwrap().membership
    }

    fn refusal(args: &[&str]) -> String {
        parse(args).check().unwrap_err().to_string()
    }

    #[test]
    fn a_list_of_assignors_keeps_its_order() {
        let GroupProtocol::Classic(classic) = parse(&["--assignor", "range,cooperative-sticky"]).membership().protocol
        else {
            panic!("not classic");
        };
        assert_eq!(classic.assignors, [Assignor::Range, Assignor::CooperativeSticky]);
        assert_eq!(classic.session_timeout, Duration::from_secs(6));
    }

    #[test]
    fn contradictions_name_the_flag() {
        assert!(refusal(&["--group-protocol", "consumer", "--assignor", "load-aware"]).starts_with("--assignor"));
        assert!(refusal(&["--group-protocol=consumer", "--session-timeout=9s"]).starts_with("--session-timeout 9s"));
        assert!(refusal(&["--remote-assignor", "uniform"]).starts_with("--remote-assignor uniform"));
        assert!(refusal(&["--assignor", "range,range"]).starts_with("--assignor range: is given twice"));
        assert!(refusal(&["--heartbeat-interval=3s"]).starts_with("--heartbeat-interval 3s"));
        assert!(parse(&["--group-protocol=consumer", "--remote-assignor=uniform"]).check().is_ok());
    }

    #[test]
    fn an_unknown_assignor_is_named_with_those_that_there_are() {
        let Err(error) = Sample::try_parse_from(["sample", "--assignor", "sticky"]) else { panic!("taken") };
        assert!(error.to_string().contains("range, cooperative-sticky or load-aware"), "{error}");
    }
}
