//! Flags: the common ones, the environment variable of every flag, and usage errors as one line each.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};

use crate::security::KafkaArgs;
use crate::{Info, LogFormat, exit, units};

const SHUTDOWN_TIMEOUT_MIN: Duration = Duration::from_millis(100);
const SHUTDOWN_TIMEOUT_MAX: Duration = Duration::from_mins(10);

/// Flags that mean the same in every service.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Common options")]
pub struct CommonArgs {
    /// Kafka brokers to start from, HOST:PORT, separated by commas
    #[arg(long, value_name = "HOST:PORT,…", default_value = "127.0.0.1:9092", value_delimiter = ',', value_parser = units::broker)]
    pub brokers: Vec<String>,

    /// Topic of the position events
    #[arg(long, value_name = "TOPIC", default_value = "driver-location-updates", value_parser = units::topic_name)]
    pub topic: String,

    /// Address that serves /metrics, /healthz and /readyz; port 0 takes any free one
    #[arg(long, value_name = "IP:PORT", value_parser = units::listen_address)]
    pub metrics_listen: SocketAddr,

    /// What to log: a level (error, warn, info, debug, trace) or directives such as info,kafka=debug
    #[arg(long, value_name = "DIRECTIVES", default_value = "info")]
    pub log: String,

    /// Form of the log lines on stderr
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Write driver ids into the log as they are; otherwise only a hash of them
    #[arg(long)]
    pub log_driver_ids: bool,

    /// How long the drain after SIGTERM or SIGINT may take before the process gives up, 100ms to 10m
    #[arg(long, value_name = "DURATION", default_value = "25s",
          value_parser = units::duration(SHUTDOWN_TIMEOUT_MIN..=SHUTDOWN_TIMEOUT_MAX))]
    pub shutdown_timeout: Duration,

    #[command(flatten)]
    kafka: KafkaArgs,
}

impl CommonArgs {
    /// How to reach Kafka as `client_id`: the brokers, and the security that the flags ask for.
    pub fn client_config(&self, client_id: &str) -> kafka::ClientConfig {
        kafka::ClientConfig::new(self.brokers.clone(), client_id).secured(self.kafka.security.clone())
    }
}

/// A service's flags: a `clap::Parser` that flattens [`CommonArgs`].
pub trait Config: clap::Parser + Send + 'static {
    /// The flags that every service has.
    fn common(&self) -> &CommonArgs;

    /// Whether a subcommand asks for a single task instead of the service: it may run beside the service, so it does not
    /// open the service's `--metrics-listen`.
    fn is_task(&self) -> bool {
        false
    }

    /// Exit code where `--metrics-listen` is in use by somebody else.
    fn port_taken(&self) -> u8 {
        exit::UNAVAILABLE
    }

    /// Checks what a single flag's parser cannot see, before the first socket is opened.
    ///
    /// # Errors
    /// The flag to blame, its value and what to give instead.
    fn check(&self) -> Result<(), Usage> {
        Ok(())
    }
}

/// A wrong flag. Displays as one line that names flag, value and remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    flag: String,
    value: Option<String>,
    remedy: String,
}

impl Usage {
    /// `flag` with its dashes, the value as given, and what to do about it.
    pub fn new(flag: impl Into<String>, value: impl fmt::Display, remedy: impl Into<String>) -> Self {
        Self { flag: flag.into(), value: Some(value.to_string()), remedy: remedy.into() }
    }

    pub(crate) fn without_value(flag: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { flag: flag.into(), value: None, remedy: remedy.into() }
    }

    /// For flags that are read together: clap carries it back to [`parse`] as it is.
    pub(crate) fn into_clap(self) -> clap::Error {
        let mut error = clap::Error::new(ErrorKind::ValueValidation);
        error.insert(ContextKind::InvalidArg, ContextValue::String(self.flag));
        error.insert(ContextKind::Custom, ContextValue::String(self.remedy));
        if let Some(value) = self.value {
            error.insert(ContextKind::InvalidValue, ContextValue::String(value));
        }
        error
    }

    fn carried_by(error: &clap::Error) -> Option<Self> {
        let text = |kind| error.get(kind).map(context_text);
        let value = text(ContextKind::InvalidValue);
        Some(Self { flag: text(ContextKind::InvalidArg)?, value, remedy: text(ContextKind::Custom)? })
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.as_deref() {
            Some("") => write!(out, "{} '': {}", self.flag, self.remedy),
            Some(value) => write!(out, "{} {}: {}", self.flag, value.escape_debug(), self.remedy),
            None => write!(out, "{}: {}", self.flag, self.remedy),
        }
    }
}

impl std::error::Error for Usage {}

/// Why there is no configuration to run with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// `--help` or `--version`: the text for stdout, exit code 0.
    Text(String),
    /// A wrong flag: one line for stderr, exit code 64.
    Usage(Usage),
}

/// Reads flags, then environment, then defaults, and checks them together.
///
/// # Errors
/// [`Stop`]: help was asked for, or a flag is wrong.
pub fn parse<C: Config>(info: &Info, args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<C, Stop> {
    let matches = command::<C>(info).try_get_matches_from(args).map_err(|error| stop(info, &error))?;
    let config = C::from_arg_matches(&matches).map_err(|error| stop(info, &error))?;
    config.check().map_err(Stop::Usage)?;
    Ok(config)
}

fn command<C: Config>(info: &Info) -> Command {
    let command = C::command()
        .name(info.name)
        .bin_name(info.name)
        .version(info.version)
        .about(info.about)
        .mut_arg("metrics_listen", |arg| arg.default_value(info.metrics_listen).required(false))
        .mut_args(with_environment);
    // The service's own flags may stand before a subcommand or behind it, but for those that a subcommand has a meaning
    // of its own for. A subcommand's flags have no environment variables: what a task is to do is said each time anew.
    let taken = flags_of_subcommands(&command);
    let is_taken = |arg: &Arg| arg.get_long().is_some_and(|flag| taken.contains(flag));
    if command.has_subcommands() {
        command.mut_args(|arg| if is_taken(&arg) { arg } else { arg.global(true) })
    } else {
        command
    }
}

fn flags_of_subcommands(command: &Command) -> HashSet<String> {
    let arguments = command.get_subcommands().flat_map(Command::get_arguments);
    arguments.filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
}

/// Gives every flag the environment variable of its name, so that none can be forgotten.
fn with_environment(arg: Arg) -> Arg {
    let Some(name) = arg.get_long().map(environment_name) else { return arg };
    if matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version) {
        return arg;
    }
    let arg =
        if matches!(arg.get_action(), ArgAction::SetTrue) { arg.value_parser(BoolishValueParser::new()) } else { arg };
    // --help names the variable and not what it holds: that may be a password.
    let arg = arg.hide_env_values(true);
    if arg.get_env().is_some() { arg } else { arg.env(name) }
}

fn environment_name(flag: &str) -> String {
    flag.replace('-', "_").to_ascii_uppercase()
}

fn stop(info: &Info, error: &clap::Error) -> Stop {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Stop::Text(error.to_string()),
        _ => Stop::Usage(Usage::carried_by(error).unwrap_or_else(|| condensed(info, error))),
    }
}

/// Clap's paragraph in one line: the flag, the value, what is allowed.
fn condensed(info: &Info, error: &clap::Error) -> Usage {
    let text = |kind| error.get(kind).map(context_text);
    let flag = text(ContextKind::InvalidArg).map_or_else(|| info.name.to_owned(), |flag| bare_flag(&flag));
    let help = format!("see {} --help", info.name);
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let near = text(ContextKind::SuggestedArg).map(|near| format!("did you mean {near}? "));
            Usage::without_value(flag, format!("no such flag; {}{help}", near.unwrap_or_default()))
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = text(ContextKind::InvalidValue).unwrap_or_default();
            Usage::new(flag, value, allowed(error).unwrap_or_else(|| format!("a value is needed; {help}")))
        }
        ErrorKind::MissingRequiredArgument => Usage::without_value(flag, format!("is required; {help}")),
        ErrorKind::ArgumentConflict => {
            let prior = text(ContextKind::PriorArg).filter(|prior| bare_flag(prior) != flag);
            let remedy =
                prior.map_or_else(|| "give it once".to_owned(), |prior| format!("cannot be combined with {prior}"));
            Usage::without_value(flag, remedy)
        }
        _ => Usage::without_value(flag, one_line(&error.render().to_string())),
    }
}

fn allowed(error: &clap::Error) -> Option<String> {
    if let Some(values) = error.get(ContextKind::ValidValue).map(context_text).filter(|values| !values.is_empty()) {
        return Some(format!("allowed: {values}"));
    }
    std::error::Error::source(error).map(|source| {
        if source.is::<std::num::ParseIntError>() { "give a whole number".to_owned() } else { source.to_string() }
    })
}

fn context_text(value: &ContextValue) -> String {
    match value {
        ContextValue::String(text) => text.clone(),
        ContextValue::Strings(texts) => texts.join(", "),
        other => other.to_string(),
    }
}

/// `--brokers <HOST:PORT,…>` as `--brokers`.
fn bare_flag(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c == ',' || c == '=').next().unwrap_or(text).to_owned()
}

fn one_line(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    const INFO: Info = Info {
        name: "sample-service",
        version: "1.2.3",
        about: "A sample.",
        metrics_listen: "127.0.0.1:9199",
        buckets: &[],
    };

    #[derive(Debug, Parser)]
    struct Sample {
        #[command(flatten)]
        common: CommonArgs,
        /// How many
        #[arg(long, default_value_t = 5, value_parser = units::number(1..=10_u32))]
        sample_count: u32,
        /// How long
        #[arg(long, default_value = "1s", value_parser = units::duration(Duration::from_millis(1)..=Duration::from_secs(60)))]
        sample_wait: Duration,
        /// By clap's own parser
        #[arg(long, default_value_t = 5)]
        sample_size: u32,
        /// Never with the count
        #[arg(long, conflicts_with = "sample_count")]
        sample_all: bool,
    }

    impl Config for Sample {
        fn common(&self) -> &CommonArgs {
            &self.common
        }

        fn check(&self) -> Result<(), Usage> {
            if self.sample_count == 7 {
                return Err(Usage::new("--sample-count", 7, "7 is unlucky; give 6 or 8"));
            }
            Ok(())
        }
    }

    fn parse_sample(args: &[&str]) -> Result<Sample, Stop> {
        parse(&INFO, [&["sample-service"], args].concat())
    }

    fn usage(args: &[&str]) -> String {
        match parse_sample(args) {
            Err(Stop::Usage(usage)) => usage.to_string(),
            other => panic!("no usage error: {other:?}"),
        }
    }

    #[test]
    fn defaults_work_against_localhost() {
        let sample = parse_sample(&[]).unwrap();
        assert_eq!(sample.common.brokers, ["127.0.0.1:9092"]);
        assert_eq!(sample.common.topic, "driver-location-updates");
        assert_eq!(sample.common.metrics_listen, "127.0.0.1:9199".parse().unwrap());
        assert_eq!(sample.common.shutdown_timeout, Duration::from_secs(25));
        assert_eq!((sample.common.log.as_str(), sample.common.log_format), ("info", LogFormat::Text));
    }

    #[test]
    fn flags_are_typed() {
        let sample = parse_sample(&["--brokers", "a:1,b:2", "--sample-wait", "20ms", "--log-format=json"]).unwrap();
        assert_eq!(sample.common.brokers, ["a:1", "b:2"]);
        assert_eq!(sample.sample_wait, Duration::from_millis(20));
        assert_eq!(sample.common.log_format, LogFormat::Json);
    }

    #[test]
    fn a_usage_error_is_one_line_with_flag_value_and_remedy() {
        for (args, line) in [
            (&["--sample-count", "0"][..], "--sample-count 0: give 1 to 10"),
            (&["--sample-count", "x"], "--sample-count x: give 1 to 10"),
            (&["--sample-size", "x"], "--sample-size x: give a whole number"),
            (&["--sample-count=7"], "--sample-count 7: 7 is unlucky; give 6 or 8"),
            (&["--sample-wait", "5"], "--sample-wait 5: give 1ms to 1m as a whole number with unit ms, s, m or h"),
            (&["--sample-wait", ""], "--sample-wait '': give 1ms to 1m as a whole number with unit ms, s, m or h"),
            (&["--log-format", "xml"], "--log-format xml: allowed: text, json"),
            (
                &["--sample-cuont", "1"],
                "--sample-cuont: no such flag; did you mean --sample-count? see sample-service --help",
            ),
            (&["--zzz"], "--zzz: no such flag; see sample-service --help"),
            (&["stray"], "stray: no such flag; see sample-service --help"),
            (&["--topic"], "--topic '': a value is needed; see sample-service --help"),
            (
                &["--sample-all", "--sample-count", "1"],
                "--sample-all: cannot be combined with --sample-count <SAMPLE_COUNT>",
            ),
            (&["--topic", "a", "--topic", "b"], "--topic: give it once"),
            (
                &["--kafka-tls-ca", "ca.pem"],
                "--kafka-tls-ca ca.pem: has no use with --kafka-security plaintext; give --kafka-security tls or sasl-tls",
            ),
            (
                &["--kafka-security", "sasl-tls", "--kafka-tls-ca", "/nowhere/ca.pem"],
                "--kafka-tls-ca /nowhere/ca.pem: cannot be read (No such file or directory (os error 2)); give a file that we \
                 may read",
            ),
        ] {
            let usage = usage(args);
            assert_eq!(usage, line, "{args:?}");
        }
    }

    #[test]
    fn addresses_and_brokers_say_what_to_give() {
        assert!(usage(&["--metrics-listen", "localhost"]).starts_with("--metrics-listen localhost: give IP:PORT"));
        assert!(usage(&["--brokers", "a:1,b"]).starts_with("--brokers b: give HOST:PORT"));
        assert!(usage(&["--topic", "a\nb"]).starts_with("--topic a\\nb: give 1 to 249"));
    }

    #[test]
    fn help_names_every_flags_environment_and_default() {
        let Err(Stop::Text(help)) = parse_sample(&["--help"]) else { panic!("no help") };
        for part in ["A sample.", "[env: SAMPLE_COUNT]", "[default: 5]", "[env: BROKERS]", "[default: 127.0.0.1:9199]"]
        {
            assert!(help.contains(part), "{part} is not in:\n{help}");
        }
        let command = command::<Sample>(&INFO);
        for arg in command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())) {
            assert!(arg.get_env().is_some(), "{} has no environment variable", arg.get_id());
            assert!(arg.get_help().is_some(), "{} has no help", arg.get_id());
        }
        Sample::command().debug_assert();
    }

    #[test]
    fn version_is_the_services_own() {
        assert_eq!(parse_sample(&["--version"]).unwrap_err(), Stop::Text("sample-service 1.2.3\n".to_owned()));
    }
}
