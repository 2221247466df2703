//! The binaries of this workspace, for those who start them: tests, the demo and `make up`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::{Error, paths};

/// The path of the binary `name` in the profile of the running program. Under cargo (in a test) it is built first, so
/// that a test never runs yesterday's service; once per process.
///
/// # Errors
/// What the compiler said, or that the binary is not there and what builds it.
pub fn service_binary(name: &str) -> Result<PathBuf, Error> {
    static BUILT: Mutex<bool> = Mutex::new(false);
    find(name, "--bins", "", &BUILT)
}

/// The same for an example: a program that tests start and nobody ships.
///
/// # Errors
/// See [`service_binary`].
pub fn example_binary(name: &str) -> Result<PathBuf, Error> {
    static BUILT: Mutex<bool> = Mutex::new(false);
    find(name, "--examples", "examples", &BUILT)
}

fn find(name: &str, which: &str, subdir: &str, built: &Mutex<bool>) -> Result<PathBuf, Error> {
    let profile_dir = profile_dir();
    if let Some(cargo) = env::var_os("CARGO") {
        let mut built = built.lock().unwrap_or_else(PoisonError::into_inner);
        if !*built {
            build(Path::new(&cargo), which, &profile_dir)?;
            *built = true;
        }
    }
    let binary = profile_dir.join(subdir).join(name);
    if binary.is_file() {
        return Ok(binary);
    }
    Err(Error::Missing(format!("{} is not there: build it with `cargo build {which}`", binary.display())))
}

/// `target/debug` or `target/release`: where the running program lies, or above its `deps`.
fn profile_dir() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    let dir = program.parent().unwrap_or(Path::new("."));
    match dir.file_name().and_then(|name| name.to_str()) {
        Some("deps" | "examples") => dir.parent().unwrap_or(dir).to_owned(),
        _ => dir.to_owned(),
    }
}

/// All at once: one by one, each would be built with features of its own, and most dependencies five times.
fn build(cargo: &Path, which: &str, profile_dir: &Path) -> Result<(), Error> {
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => "dev",
        Some(profile) => profile,
    };
    let output = Command::new(cargo)
        .args(["build", "--quiet", which, "--profile", profile])
        .current_dir(paths::root_dir())
        .stdin(Stdio::null())
        .output()
        .map_err(Error::io("run", cargo))?;
    if output.status.success() {
        return Ok(());
    }
    let detail = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Step { what: format!("cargo build {which}"), detail })
}
