//! Who we are to Redis and whom we trust: the flags beside `--redis-url`, read and checked together with it.

use std::path::PathBuf;

use kafka::Secret;
use service::{TlsFiles, Usage};
use tls::Tls;

use crate::redis::{UrlFacts, UrlScheme};

const URL: &str = "--redis-url";
const USERNAME: &str = "--redis-username";
const PASSWORD_FILE: &str = "--redis-password-file";
const CA: &str = "--redis-tls-ca";
const CERTIFICATE: &str = "--redis-tls-certificate";
const KEY: &str = "--redis-tls-key";

/// The flags.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Redis security options")]
pub struct SecurityArgs {
    /// User that we are to Redis (ACL), instead of one in --redis-url; with a password
    #[arg(long, value_name = "USER")]
    redis_username: Option<String>,

    /// File whose first line is the user's password, instead of one in --redis-url; read at the start
    #[arg(long, value_name = "FILE")]
    redis_password_file: Option<PathBuf>,

    /// PEM file of the CA certificates by which servers are trusted; with rediss:// [default: those of the system]
    #[arg(long, value_name = "FILE")]
    redis_tls_ca: Option<PathBuf>,

    /// PEM file of our certificate, for servers that want one (mTLS); with --redis-tls-key
    #[arg(long, value_name = "FILE")]
    redis_tls_certificate: Option<PathBuf>,

    /// PEM file of the certificate's private key, unencrypted
    #[arg(long, value_name = "FILE")]
    redis_tls_key: Option<PathBuf>,
}

/// What the URL leaves open, everything loaded.
#[derive(Debug, Clone)]
pub struct Security {
    /// For `rediss://` and its kin, and for them alone.
    pub tls: Option<Tls>,
    /// Instead of the URL's user.
    pub username: Option<String>,
    /// Instead of the URL's password.
    pub password: Option<Secret>,
}

impl SecurityArgs {
    /// Reads the files.
    ///
    /// # Errors
    /// What contradicts the URL or lacks something, and files that cannot be used.
    pub(crate) fn load(&self, url: &UrlFacts) -> Result<Security, Usage> {
        let password = self.password(url)?;
        self.check_user(url, password.is_some())?;
        Ok(Security { tls: self.tls(url)?, username: self.redis_username.clone(), password })
    }

    fn password(&self, url: &UrlFacts) -> Result<Option<Secret>, Usage> {
        let Some(file) = &self.redis_password_file else { return Ok(None) };
        if url.has_password {
            let remedy = format!("{URL} holds a password as well; give one of the two");
            return Err(Usage::new(PASSWORD_FILE, file.display(), remedy));
        }
        service::password_in_first_line(PASSWORD_FILE, file).map(Some)
    }

    /// The client would leave a user without password out, and be somebody else.
    fn check_user(&self, url: &UrlFacts, has_password: bool) -> Result<(), Usage> {
        let lacks = !has_password && !url.has_password;
        match &self.redis_username {
            Some(user) if user.is_empty() || user.contains('\0') => {
                Err(Usage::new(USERNAME, user, "give the user's name"))
            }
            Some(user) if url.has_username => {
                Err(Usage::new(USERNAME, user, format!("{URL} names a user as well; give one of the two")))
            }
            Some(user) if lacks => Err(Usage::new(
                USERNAME,
                user,
                format!("is of no use without a password; give {PASSWORD_FILE} as well"),
            )),
            None if url.has_username && lacks => {
                let remedy = format!("names a user without a password; give it, or {PASSWORD_FILE}");
                Err(Usage::new(URL, &url.shown, remedy))
            }
            _ => Ok(()),
        }
    }

    fn tls(&self, url: &UrlFacts) -> Result<Option<Tls>, Usage> {
        let files = TlsFiles {
            ca: (CA, self.redis_tls_ca.as_deref()),
            certificate: (CERTIFICATE, self.redis_tls_certificate.as_deref()),
            key: (KEY, self.redis_tls_key.as_deref()),
        };
        match (url.scheme, files.first()) {
            (UrlScheme::Tls, _) => files.load(|remedy| Usage::new(URL, &url.shown, remedy)).map(Some),
            (UrlScheme::Plain, None) => Ok(None),
            (UrlScheme::Plain, Some((flag, file))) => {
                let remedy = format!("has no use with {URL} {}; give a URL that begins with rediss", url.shown);
                Err(Usage::new(flag, file.display(), remedy))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        flags: SecurityArgs,
    }

    fn loaded(url: &str, flags: &[&str]) -> Result<Security, String> {
        let args = std::iter::once("test").chain(flags.iter().copied());
        let flags = Command::try_parse_from(args).unwrap().flags;
        UrlFacts::of(url).and_then(|url| flags.load(&url)).map_err(|usage| usage.to_string())
    }

    fn file(content: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, content).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (dir, path)
    }

    #[test]
    fn the_password_is_the_first_line_of_its_file_and_never_shown() {
        let (_dir, path) = file("se cret \r\nanother line\n");
        let security = loaded("redis://host", &["--redis-username", "ann", "--redis-password-file", &path]).unwrap();
        assert_eq!((security.username.as_deref(), &security.password), (Some("ann"), &Some(Secret::new("se cret "))));
        assert!(!format!("{security:?}").contains("se cret"));
        assert!(loaded("redis://ann@host", &["--redis-password-file", &path]).unwrap().password.is_some());
        assert!(loaded("redis://:secret@host", &["--redis-username", "ann"]).unwrap().password.is_none());
    }

    #[test]
    fn what_contradicts_or_lacks_something_is_one_line_that_names_the_flag() {
        let ((_one, password), (_two, empty)) = (file("from-a-file\n"), file("\nsecond"));
        let table: [(&str, &[&str], &str); 9] = [
            (
                "redis://:secret@host",
                &["--redis-password-file", &password],
                "--redis-password-file PATH: --redis-url holds a password as well; give one of the two",
            ),
            (
                "redis://bob:secret@host",
                &["--redis-username", "ann"],
                "--redis-username ann: --redis-url names a user as well; give one of the two",
            ),
            (
                "redis://host",
                &["--redis-username", "ann"],
                "--redis-username ann: is of no use without a password; give --redis-password-file as well",
            ),
            ("redis://:secret@host", &["--redis-username", ""], "--redis-username '': give the user's name"),
            (
                "redis://ann@host",
                &[],
                "--redis-url redis://***@host: names a user without a password; give it, or --redis-password-file",
            ),
            (
                "redis://host",
                &["--redis-password-file", &empty],
                "--redis-password-file PATH: give one line with the password",
            ),
            (
                "redis://host",
                &["--redis-password-file", "/nowhere"],
                "--redis-password-file /nowhere: cannot be read (No such file or directory (os error 2)); give a file that \
                 we may read",
            ),
            (
                "redis://u:secret@host",
                &["--redis-tls-ca", "ca.pem"],
                "--redis-tls-ca ca.pem: has no use with --redis-url redis://***@host; give a URL that begins with rediss",
            ),
            ("redis://host:x", &[], "--redis-url redis://host:***: InvalidPort"),
        ];
        for (url, flags, line) in table {
            let said = loaded(url, flags).unwrap_err();
            assert_eq!(said.replace(&password, "PATH").replace(&empty, "PATH"), line);
            assert!(!said.contains("secret") && !said.contains("from-a-file"), "{said}");
        }
    }

    #[test]
    fn files_of_tls_are_read_and_belong_together() {
        let authority = native::Authority::new("an authority");
        let (ours, other) = (authority.issue(&["client"]), authority.issue(&["client"]));
        let ((_a, ca), (_b, certificate)) = (file(authority.pem()), file(&ours.certificate));
        let ((_c, key), (_d, other_key)) = (file(&ours.key), file(&other.key));
        let with = |flags: &[&str]| loaded("rediss-cluster://host:7000", &[&["--redis-tls-ca", &ca], flags].concat());
        let pair = |key| with(&["--redis-tls-certificate", &certificate, "--redis-tls-key", key]);
        assert!(pair(&key).unwrap().tls.unwrap().has_identity());
        assert!(!with(&[]).unwrap().tls.unwrap().has_identity());
        let lines = [
            (
                with(&["--redis-tls-key", &key]),
                "--redis-tls-key PATH: is of no use without its certificate; give --redis-tls-certificate as well",
            ),
            (
                with(&["--redis-tls-certificate", &certificate]),
                "--redis-tls-certificate PATH: is of no use without its key; give --redis-tls-key as well",
            ),
            (
                pair(&other_key),
                "--redis-tls-key PATH: this is not the key of the certificate; give the one that belongs to it",
            ),
            (
                loaded("rediss://host", &["--redis-tls-ca", &key]),
                "--redis-tls-ca PATH: no certificate in it; give a file in PEM form (-----BEGIN CERTIFICATE-----)",
            ),
        ];
        for (refused, line) in lines {
            let said = [&key, &certificate, &other_key]
                .iter()
                .fold(refused.unwrap_err(), |said, path| said.replace(*path, "PATH"));
            assert_eq!(said, line);
        }
    }
}
