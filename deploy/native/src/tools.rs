//! The servers' programs on this machine: found, or installed, by `deploy/native/install`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::{Error, paths};

/// Kafka counts as there only with exactly this pom beside its jars.
const POM: &str = include_str!("../pom.xml");
const INSTALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/install");

/// Where each program is, and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// The Java runtime.
    pub java: PathBuf,
    /// Its version.
    pub java_version: String,
    /// Its compiler.
    pub javac: PathBuf,
    /// The jars of Apache Kafka.
    pub kafka_lib: PathBuf,
    /// `redis-server`.
    pub redis: PathBuf,
    /// Its version.
    pub redis_version: String,
    /// The directory of PostgreSQL's programs.
    pub postgres: PathBuf,
    /// Its version.
    pub postgres_version: String,
}

/// Finds everything, after installing what is missing. Later calls in the same process cost nothing.
///
/// # Errors
/// [`Error::Missing`] with one line that says what to install.
pub fn ensure() -> Result<Tools, Error> {
    static FOUND: Mutex<Option<Tools>> = Mutex::new(None);
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(tools) = &*found {
        return Ok(tools.clone());
    }
    let tools = match recall() {
        Some(tools) => tools,
        None => {
            install("servers")?;
            recall().ok_or_else(|| Error::Missing(format!("{INSTALL} ended well, but something is still missing")))?
        }
    };
    Ok(found.insert(tools).clone())
}

/// Where Prometheus' programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrometheusTools {
    /// The server.
    pub prometheus: PathBuf,
    /// What checks and tests rules.
    pub promtool: PathBuf,
}

/// Finds Prometheus, after installing it where it is missing: only some tests want it.
///
/// # Errors
/// [`Error::Missing`] with one line that says what to install.
pub fn ensure_prometheus() -> Result<PrometheusTools, Error> {
    static FOUND: Mutex<Option<PrometheusTools>> = Mutex::new(None);
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(tools) = &*found {
        return Ok(tools.clone());
    }
    let tools = match recall_prometheus() {
        Some(tools) => tools,
        None => {
            install("prometheus")?;
            recall_prometheus()
                .ok_or_else(|| Error::Missing(format!("{INSTALL} ended well, and Prometheus is missing")))?
        }
    };
    Ok(found.insert(tools).clone())
}

fn recall_prometheus() -> Option<PrometheusTools> {
    let text = fs::read_to_string(paths::native_dir().join("prometheus")).ok()?;
    let values: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let path = |name| values.get(name).map(PathBuf::from).filter(|path: &PathBuf| path.exists());
    Some(PrometheusTools { prometheus: path("prometheus")?, promtool: path("promtool")? })
}

/// What the last installation found, if all of it is still there.
fn recall() -> Option<Tools> {
    let native = paths::native_dir();
    let tools = parse(&fs::read_to_string(native.join("tools")).ok()?, native.join("kafka/lib"))?;
    let is_there = |path: &Path| path.exists();
    let java = is_there(&tools.java) && is_there(&tools.javac);
    let programs = java && is_there(&tools.redis) && is_there(&tools.postgres.join("initdb"));
    let kafka = fs::read_to_string(tools.kafka_lib.join("pom.xml")).is_ok_and(|pom| pom == POM);
    (programs && kafka).then_some(tools)
}

fn parse(text: &str, kafka_lib: PathBuf) -> Option<Tools> {
    let values: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let value = |name: &str| values.get(name).filter(|value| !value.is_empty()).map(|value| (*value).to_owned());
    Some(Tools {
        java: value("java")?.into(),
        java_version: value("java_version")?,
        javac: value("javac")?.into(),
        kafka_lib,
        redis: value("redis")?.into(),
        redis_version: value("redis_version")?,
        postgres: value("postgres")?.into(),
        postgres_version: value("postgres_version")?,
    })
}

/// Runs the installation; what it says on the way goes to our standard error.
fn install(scope: &str) -> Result<(), Error> {
    let failed = |detail: String| Error::Missing(detail);
    let output = Command::new("sh")
        .args([INSTALL, scope])
        .env("CARGO_TARGET_DIR", paths::target_dir())
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .stderr(Stdio::piped())
        .output()
        .map_err(Error::io("run", Path::new(INSTALL)))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().next_back().unwrap_or("it said nothing");
    Err(failed(line.strip_prefix("native: ").unwrap_or(line).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: &str =
        "java=/j\njava_version=17.0.1\njavac=/jc\nredis=/r\nredis_version=7.2\npostgres=/p\npostgres_version=16.1\n";

    #[test]
    fn every_tool_is_read_from_what_the_installation_wrote() {
        let tools = parse(FOUND, PathBuf::from("/k")).unwrap();
        assert_eq!((tools.java.to_str(), tools.postgres_version.as_str()), (Some("/j"), "16.1"));
    }

    #[test]
    fn a_tool_that_was_not_found_means_another_look() {
        assert_eq!(parse(&FOUND.replace("redis=/r", "redis="), PathBuf::from("/k")), None);
    }
}
