//! As whom PostgreSQL runs: it refuses root, so root runs it as the system's `postgres` user (or `nobody`).

use std::ffi::OsString;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Uid, User, geteuid};

use crate::Error;

/// Users to run as, in order of preference.
const USERS: [&str; 2] = ["postgres", "nobody"];
/// What lets another user pass the directories above its own, least first: a checkout below /root or a directory of
/// mode 0700 bars everybody else. Their modes are not ours to change. A container may lack the first one.
const PASSES: [&str; 2] = ["dac_read_search", "dac_override"];

/// The user of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Account {
    /// We are not root: the server runs as we do.
    Ourselves,
    /// We are root: it runs as this user.
    Other {
        uid: Uid,
        gid: Gid,
        /// The capability that it needs to get at its directory.
        pass: Option<&'static str>,
    },
}

impl Account {
    /// Chooses the user for a server that owns `dir`, and gives it the directory.
    pub(crate) fn owning(dir: &Path) -> Result<Self, Error> {
        if !geteuid().is_root() {
            return Ok(Self::Ourselves);
        }
        let user = USERS.iter().find_map(|name| User::from_name(name).ok().flatten());
        let user =
            user.ok_or_else(|| Error::Missing("neither a user `postgres` nor `nobody`: create one".to_owned()))?;
        chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(Error::io("give away", dir))?;
        let with = |pass| Self::Other { uid: user.uid, gid: user.gid, pass };
        let mut candidates = std::iter::once(None).chain(PASSES.map(Some)).map(with);
        candidates.find(|account| account.reaches(dir)).ok_or_else(|| Error::Step {
            what: format!("reaching {} as user {}", dir.display(), user.name),
            detail: "a directory above it bars the user, and the capability dac_override is not to be had: put the \
                     target directory elsewhere with CARGO_TARGET_DIR"
                .to_owned(),
        })
    }

    /// The program and the arguments that run `program` as this user; the process number stays the same.
    pub(crate) fn command(&self, program: &Path) -> (PathBuf, Vec<OsString>) {
        let Self::Other { uid, gid, pass } = self else { return (program.to_owned(), Vec::new()) };
        let mut args: Vec<OsString> =
            [format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()].map(Into::into).into();
        if let Some(pass) = pass {
            let only = format!("-all,+{pass}");
            args.extend([format!("--inh-caps={only}"), format!("--ambient-caps={only}")].map(OsString::from));
        }
        args.extend(["--".into(), program.into()]);
        (PathBuf::from("setpriv"), args)
    }

    fn reaches(&self, dir: &Path) -> bool {
        let (program, args) = self.command(Path::new("sh"));
        let status = Command::new(program)
            .args(args)
            .args(["-c", r#"cd "$1""#, "sh"])
            .arg(dir)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_runs_the_server_as_somebody_else_with_nothing_but_the_pass() {
        let account = Account::Other { uid: Uid::from_raw(5), gid: Gid::from_raw(6), pass: Some("dac_read_search") };
        let (program, args) = account.command(Path::new("/p"));
        assert_eq!(program, Path::new("setpriv"));
        let passes = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"];
        let expected = [["--reuid=5", "--regid=6", "--clear-groups"].as_slice(), &passes, &["--", "/p"]].concat();
        assert_eq!(args, expected);
    }
}
