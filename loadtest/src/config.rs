//! Flags and environment; checked whole before anything is started.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::generator::Target;
use crate::request::MAX_POSITIONS;
use crate::scenario::{Scenario, SurgeLength};

/// Fastest offer that can be asked for.
const MAX_RATE: u32 = 1_000_000;
/// Most connections that can be asked for: their ports are those of one address.
const MAX_CONNECTIONS: u64 = 20_000;
/// Longest stand-alone run.
const MAX_DURATION_S: u64 = 24 * 3_600;
/// Most events of a stand-alone run: the ledger keeps nine bytes of each.
const MAX_EVENTS: u64 = 200_000_000;

/// Plays surge and faults against the pipeline, counts every record, and shows the proof.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, about, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start Kafka, Redis, PostgreSQL and the five services, play a scenario, count every record, and judge
    Demo(DemoArgs),
    /// Offer positions to a location-ingest that runs already, and report how it answered
    Generate(GenerateArgs),
}

/// Flags of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// What happens: surge
    #[arg(long, env = "SCENARIO", default_value = "surge", value_parser = scenario)]
    pub scenario: Scenario,
    /// How long the surge lasts: short (15 s a stage) or full (60, 60, 60, 60, 120 s)
    #[arg(long, env = "SURGE", default_value = "short", value_parser = surge)]
    pub surge: SurgeLength,
    /// Positions in a POST, 1 to 1,000; 1 takes the path for single positions
    #[arg(long, env = "POSITIONS_PER_POST", default_value = "1", value_parser = positions)]
    pub positions_per_post: u32,
    /// Directory for report.json; created when it is missing
    #[arg(long, env = "REPORT_DIR", default_value = "target/proof")]
    pub report_dir: PathBuf,
}

/// Flags of `generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Base address of the service, http only
    #[arg(long, env = "URL", default_value = "http://127.0.0.1:8080", value_parser = target)]
    pub url: Target,
    /// Events per second, 1 to 1,000,000
    #[arg(long, env = "RATE", default_value = "1000", value_parser = rate)]
    pub rate: u32,
    /// Seconds that the offer lasts, 1 to 86,400
    #[arg(long, env = "DURATION", default_value = "10", value_parser = seconds)]
    pub duration: Duration,
    /// Positions in a POST, 1 to 1,000; 1 takes the path for single positions
    #[arg(long, env = "POSITIONS_PER_POST", default_value = "1", value_parser = positions)]
    pub positions_per_post: u32,
    /// Most connections, each with one request at a time, 1 to 20,000
    #[arg(long, env = "CONNECTIONS", default_value = "3072", value_parser = connections)]
    pub connections: usize,
    /// Where load may go: loopback, or anywhere (only with the leave of whoever runs the other end)
    #[arg(long, env = "REACH", default_value = "loopback", value_parser = reach)]
    pub reach: Reach,
}

/// Where load may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Addresses of this machine.
    Loopback,
    /// Any address.
    Anywhere,
}

/// A flag that cannot be used as it is: one line that names flag, value and remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error: {0}")]
pub struct Usage(pub String);

impl GenerateArgs {
    /// What no single flag can be blamed for.
    pub fn check(&self) -> Result<(), Usage> {
        if self.reach == Reach::Loopback && !self.url.address.ip().is_loopback() {
            let url = &self.url.host;
            return Err(Usage(format!(
                "--url {url}: not an address of this machine; add --reach anywhere if that is meant"
            )));
        }
        let events = u64::from(self.rate) * self.duration.as_secs();
        if events > MAX_EVENTS {
            return Err(Usage(format!(
                "--rate {} for --duration {} s: {events} events; at most {MAX_EVENTS} fit in memory",
                self.rate,
                self.duration.as_secs()
            )));
        }
        Ok(())
    }
}

/// An empty value is one that was not set: make hands on variables that nobody filled in.
fn or_default<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.trim().is_empty() { default } else { text.trim() }
}

fn scenario(text: &str) -> Result<Scenario, String> {
    let name = or_default(text, Scenario::Surge.name());
    Scenario::ALL.into_iter().find(|scenario| scenario.name() == name).ok_or_else(|| {
        let names: Vec<&str> = Scenario::ALL.iter().map(|scenario| scenario.name()).collect();
        format!("there is only {}", names.join(", "))
    })
}

fn surge(text: &str) -> Result<SurgeLength, String> {
    match or_default(text, "short") {
        "short" => Ok(SurgeLength::Short),
        "full" => Ok(SurgeLength::Full),
        _ => Err("use short or full".to_owned()),
    }
}

fn reach(text: &str) -> Result<Reach, String> {
    match or_default(text, "loopback") {
        "loopback" => Ok(Reach::Loopback),
        "anywhere" => Ok(Reach::Anywhere),
        _ => Err("use loopback or anywhere".to_owned()),
    }
}

fn positions(text: &str) -> Result<u32, String> {
    within(or_default(text, "1"), 1, u64::from(MAX_POSITIONS)).map(|number| number as u32)
}

fn connections(text: &str) -> Result<usize, String> {
    within(or_default(text, "3072"), 1, MAX_CONNECTIONS).map(|number| number as usize)
}

fn rate(text: &str) -> Result<u32, String> {
    within(or_default(text, "1000"), 1, u64::from(MAX_RATE)).map(|number| number as u32)
}

fn seconds(text: &str) -> Result<Duration, String> {
    within(or_default(text, "10"), 1, MAX_DURATION_S).map(Duration::from_secs)
}

fn within(text: &str, low: u64, high: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (low..=high).contains(number));
    number.ok_or_else(|| format!("use a whole number from {low} to {high}"))
}

fn target(text: &str) -> Result<Target, String> {
    let url = or_default(text, "http://127.0.0.1:8080");
    let host = url.strip_prefix("http://").ok_or("use http://host:port")?.trim_end_matches('/');
    let named = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let found = named.to_socket_addrs().ok().and_then(|mut found| found.find(SocketAddr::is_ipv4));
    let address = found.ok_or("use http://host:port with a host that resolves")?;
    Ok(Target { address, host: named })
}

/// Reads the command line. An error that is no mistake (`--help`) comes back as it is.
pub fn parse(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(arguments)
}

/// The parser's complaint on one line.
#[must_use]
pub fn usage(error: &clap::Error) -> Usage {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Usage("say what to do: loadtest demo, or loadtest generate; --help shows their flags".to_owned());
    }
    let text = error.render().to_string();
    let lines =
        text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let line = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    Usage(line.trim_start_matches("error: ").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(arguments: &[&str]) -> String {
        let arguments = ["loadtest"].iter().chain(arguments).map(Into::into);
        usage(&parse(arguments).unwrap_err()).to_string()
    }

    fn demo(arguments: &[&str]) -> DemoArgs {
        let arguments = ["loadtest", "demo"].iter().chain(arguments).map(Into::into);
        match parse(arguments).unwrap().command {
            Command::Demo(demo) => demo,
            Command::Generate(_) => panic!("demo was asked for"),
        }
    }

    #[test]
    fn a_wrong_value_is_one_line_with_flag_value_and_remedy() {
        let surge = complaint(&["demo", "--surge", "foo"]);
        assert_eq!(surge, "error: invalid value 'foo' for '--surge <SURGE>': use short or full");
        let positions = complaint(&["demo", "--positions-per-post", "0"]);
        assert_eq!(
            positions,
            "error: invalid value '0' for '--positions-per-post <POSITIONS_PER_POST>': use a whole number from 1 to 1000"
        );
        assert!(complaint(&["demo", "--scenario", "flood"]).ends_with("there is only surge"));
        assert!(complaint(&[]).starts_with("error: say what to do"));
        for complaint in [surge, positions, complaint(&["demo", "--nonsense"]), complaint(&[])] {
            assert_eq!(complaint.lines().count(), 1, "{complaint}");
        }
    }

    #[test]
    fn an_empty_value_is_the_default() {
        let demo = demo(&["--surge", "", "--positions-per-post", "", "--scenario", ""]);
        assert_eq!((demo.surge, demo.positions_per_post), (SurgeLength::Short, 1));
    }

    #[test]
    fn load_stays_on_this_machine_unless_told_otherwise() {
        let mut args = GenerateArgs {
            url: target("http://192.0.2.1:80").unwrap(),
            rate: 1,
            duration: Duration::from_secs(1),
            positions_per_post: 1,
            connections: 1,
            reach: Reach::Loopback,
        };
        assert!(args.check().unwrap_err().to_string().contains("--reach anywhere"));
        args.reach = Reach::Anywhere;
        assert_eq!(args.check(), Ok(()));
    }
}
