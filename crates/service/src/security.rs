//! How every service reaches Kafka: `--kafka-security`, the files and the user that it needs, read and checked together.
//!
//! The flags name files; what is kept of them is a [`kafka::Security`], so that nothing that starts can lack one.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ArgMatches;
use kafka::{Sasl, SaslMechanism, Security};
use tls::Tls;

use crate::Usage;
use crate::files::{TlsFiles, password_of, read};

/// For those who hand secrets over in the environment; there is no flag for a password, for all users see those.
const PASSWORD_VARIABLE: &str = "KAFKA_SASL_PASSWORD";

const SECURITY: &str = "--kafka-security";
const CA: &str = "--kafka-tls-ca";
const CERTIFICATE: &str = "--kafka-tls-certificate";
const KEY: &str = "--kafka-tls-key";
const MECHANISM: &str = "--kafka-sasl-mechanism";
const USERNAME: &str = "--kafka-sasl-username";
const PASSWORD_FILE: &str = "--kafka-sasl-password-file";

/// SecurityFlags of the connections to Kafka, as they are given.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Kafka security options")]
struct SecurityFlags {
    /// How connections to Kafka are secured
    #[arg(long, value_name = "PROTOCOL", default_value = "plaintext")]
    kafka_security: Protocol,

    /// PEM file of the CA certificates by which brokers are trusted [default: those of the system]
    #[arg(long, value_name = "FILE")]
    kafka_tls_ca: Option<PathBuf>,

    /// PEM file of our certificate, for brokers that want one (mTLS); with --kafka-tls-key
    #[arg(long, value_name = "FILE")]
    kafka_tls_certificate: Option<PathBuf>,

    /// PEM file of the certificate's private key, unencrypted
    #[arg(long, value_name = "FILE")]
    kafka_tls_key: Option<PathBuf>,

    /// How the password is proven
    #[arg(long, value_name = "MECHANISM")]
    kafka_sasl_mechanism: Option<Mechanism>,

    /// User that we are to Kafka
    #[arg(long, value_name = "USER")]
    kafka_sasl_username: Option<String>,

    /// File that holds the user's password; or put the password itself into the environment as KAFKA_SASL_PASSWORD
    #[arg(long, value_name = "FILE")]
    kafka_sasl_password_file: Option<PathBuf>,
}

/// Kafka's security protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Protocol {
    /// Not at all (Kafka's PLAINTEXT)
    Plaintext,
    /// Encrypted, the broker known by its certificate (Kafka's SSL)
    Tls,
    /// User and password, not encrypted (SASL_PLAINTEXT)
    SaslPlaintext,
    /// Encrypted, user and password (SASL_SSL)
    SaslTls,
}

impl Protocol {
    fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::SaslTls)
    }

    fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslTls)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Tls => "tls",
            Self::SaslPlaintext => "sasl-plaintext",
            Self::SaslTls => "sasl-tls",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mechanism {
    /// The password as it is: only with sasl-tls
    Plain,
    /// A proof of it
    #[value(name = "scram-sha-256")]
    ScramSha256,
    /// The same with the longer hash
    #[value(name = "scram-sha-512")]
    ScramSha512,
}

/// How connections to Kafka are secured, everything that it needs loaded.
#[derive(Debug, Clone)]
pub(crate) struct KafkaArgs {
    pub(crate) security: Security,
}

impl clap::FromArgMatches for KafkaArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flags = SecurityFlags::from_arg_matches(matches)?;
        let security = flags.load(std::env::var_os(PASSWORD_VARIABLE)).map_err(Usage::into_clap)?;
        Ok(Self { security })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for KafkaArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        SecurityFlags::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        SecurityFlags::augment_args_for_update(command)
    }
}

impl SecurityFlags {
    fn load(&self, password: Option<OsString>) -> Result<Security, Usage> {
        self.refuse_useless(password.is_some())?;
        let tls = if self.kafka_security.has_tls() { Some(self.tls()?) } else { None };
        let sasl = if self.kafka_security.has_sasl() { Some(self.sasl(password)?) } else { None };
        Ok(Security { tls, sasl })
    }

    /// Who gives a flag believes that it does something: without TLS or SASL, a password would protect nothing.
    fn refuse_useless(&self, has_password: bool) -> Result<(), Usage> {
        let protocol = self.kafka_security;
        let useless = |needs: &str| format!("has no use with {SECURITY} {}; give {SECURITY} {needs}", protocol.name());
        if let Some((flag, file)) = self.tls_files().first().filter(|_| !protocol.has_tls()) {
            return Err(Usage::new(flag, file.display(), useless("tls or sasl-tls")));
        }
        if protocol.has_sasl() {
            return Ok(());
        }
        let needs = "sasl-tls or sasl-plaintext";
        if let Some(mechanism) = self.kafka_sasl_mechanism {
            return Err(Usage::new(MECHANISM, SaslMechanism::from(mechanism).name().to_lowercase(), useless(needs)));
        }
        if let Some(username) = &self.kafka_sasl_username {
            return Err(Usage::new(USERNAME, username, useless(needs)));
        }
        if let Some(file) = &self.kafka_sasl_password_file {
            return Err(Usage::new(PASSWORD_FILE, file.display(), useless(needs)));
        }
        if has_password { Err(Usage::without_value(PASSWORD_VARIABLE, useless(needs))) } else { Ok(()) }
    }

    fn tls(&self) -> Result<Tls, Usage> {
        self.tls_files().load(|remedy| Usage::new(SECURITY, self.kafka_security.name(), remedy))
    }

    fn tls_files(&self) -> TlsFiles<'_> {
        TlsFiles {
            ca: (CA, self.kafka_tls_ca.as_deref()),
            certificate: (CERTIFICATE, self.kafka_tls_certificate.as_deref()),
            key: (KEY, self.kafka_tls_key.as_deref()),
        }
    }

    fn sasl(&self, password: Option<OsString>) -> Result<Sasl, Usage> {
        let protocol = self.kafka_security.name();
        let missing = |flag: &str, what: &str| {
            Usage::without_value(flag, format!("is required with {SECURITY} {protocol}; {what}"))
        };
        let mechanism = self
            .kafka_sasl_mechanism
            .ok_or_else(|| missing(MECHANISM, "give plain, scram-sha-256 or scram-sha-512"))?;
        let username = self.kafka_sasl_username.clone().ok_or_else(|| missing(USERNAME, "give the user's name"))?;
        if username.is_empty() || username.contains('\0') {
            return Err(Usage::new(USERNAME, username, "give the user's name"));
        }
        let password = match (&self.kafka_sasl_password_file, password) {
            (Some(file), None) => password_of(PASSWORD_FILE, &file.display(), &read(PASSWORD_FILE, file)?)?,
            (None, Some(value)) => password_of(PASSWORD_VARIABLE, &"***", value.as_encoded_bytes())?,
            (Some(file), Some(_)) => {
                let remedy = format!("{PASSWORD_VARIABLE} is set as well; give one of the two");
                return Err(Usage::new(PASSWORD_FILE, file.display(), remedy));
            }
            (None, None) => return Err(missing(PASSWORD_FILE, &format!("give it, or set {PASSWORD_VARIABLE}"))),
        };
        Ok(Sasl { mechanism: mechanism.into(), username, password })
    }
}

impl From<Mechanism> for SaslMechanism {
    fn from(mechanism: Mechanism) -> Self {
        match mechanism {
            Mechanism::Plain => Self::Plain,
            Mechanism::ScramSha256 => Self::ScramSha256,
            Mechanism::ScramSha512 => Self::ScramSha512,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use kafka::Secret;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        flags: SecurityFlags,
    }

    const BOTH: [&str; 4] = ["--kafka-security", "sasl-tls", "--kafka-sasl-mechanism", "plain"];
    const PLAIN: [&str; 6] =
        ["--kafka-security", "sasl-plaintext", "--kafka-sasl-mechanism", "plain", "--kafka-sasl-username", "ann"];

    fn loaded<A: AsRef<str>>(args: &[A], password: Option<&str>) -> Result<Security, Usage> {
        let args = std::iter::once("test").chain(args.iter().map(AsRef::as_ref));
        let command = Command::try_parse_from(args).unwrap();
        command.flags.load(password.map(OsString::from))
    }

    fn refusal<A: AsRef<str>>(args: &[A], password: Option<&str>) -> String {
        loaded(args, password).unwrap_err().to_string()
    }

    fn file(content: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, content).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (dir, path)
    }

    fn password_in_file(content: &str) -> Result<Secret, Usage> {
        let (_dir, path) = file(content);
        let args = [&PLAIN[..], &["--kafka-sasl-password-file", &path]].concat();
        loaded(&args, None).map(|security| security.sasl.unwrap().password)
    }

    #[test]
    fn without_flags_nothing_is_secured() {
        let security = loaded::<&str>(&[], None).unwrap();
        assert!(security.tls.is_none() && security.sasl.is_none());
    }

    #[test]
    fn a_password_comes_from_the_environment_or_a_file_without_its_last_line_break() {
        let sasl = loaded(&PLAIN, Some("pa ss ")).unwrap().sasl.unwrap();
        assert_eq!((sasl.username.as_str(), sasl.password), ("ann", Secret::new("pa ss ")));
        for content in ["secret", "secret\n", "secret\r\n"] {
            assert_eq!(password_in_file(content), Ok(Secret::new("secret")));
        }
        assert_eq!(password_in_file("secret\r"), Ok(Secret::new("secret\r")));
        for content in ["", "\n", "one\ntwo\n", "secret\n\n", "nul\0"] {
            let refusal = password_in_file(content).unwrap_err().to_string();
            assert!(refusal.ends_with("give one line with the password") && !refusal.contains("nul"), "{refusal}");
        }
    }

    #[test]
    fn what_contradicts_or_lacks_something_is_one_line_that_names_the_remedy() {
        let cases = [
            (
                &["--kafka-tls-ca", "ca.pem"][..],
                None,
                "--kafka-tls-ca ca.pem: has no use with --kafka-security plaintext; give --kafka-security tls or sasl-tls",
            ),
            (
                &["--kafka-sasl-mechanism", "scram-sha-512"],
                None,
                "--kafka-sasl-mechanism scram-sha-512: has no use with --kafka-security plaintext; give --kafka-security sasl-tls or sasl-plaintext",
            ),
            (
                &["--kafka-security", "tls", "--kafka-sasl-username", "ann"],
                None,
                "--kafka-sasl-username ann: has no use with --kafka-security tls; give --kafka-security sasl-tls or sasl-plaintext",
            ),
            (
                &[],
                Some("secret"),
                "KAFKA_SASL_PASSWORD: has no use with --kafka-security plaintext; give --kafka-security sasl-tls or sasl-plaintext",
            ),
            (
                &["--kafka-security", "sasl-plaintext"],
                Some("secret"),
                "--kafka-sasl-mechanism: is required with --kafka-security sasl-plaintext; give plain, scram-sha-256 or scram-sha-512",
            ),
            (
                &PLAIN[..4],
                Some("secret"),
                "--kafka-sasl-username: is required with --kafka-security sasl-plaintext; give the user's name",
            ),
            (
                &PLAIN,
                None,
                "--kafka-sasl-password-file: is required with --kafka-security sasl-plaintext; give it, or set KAFKA_SASL_PASSWORD",
            ),
            (&PLAIN, Some(""), "KAFKA_SASL_PASSWORD ***: give one line with the password"),
        ];
        for (args, password, line) in cases {
            assert_eq!(refusal(args, password), line);
        }
    }

    #[test]
    fn two_passwords_are_one_too_many() {
        let (_dir, path) = file("secret");
        let args = [&PLAIN[..], &["--kafka-sasl-password-file", &path]].concat();
        let line =
            format!("--kafka-sasl-password-file {path}: KAFKA_SASL_PASSWORD is set as well; give one of the two");
        assert_eq!(refusal(&args, Some("secret")), line);
    }

    #[test]
    fn a_file_that_is_not_there_or_holds_something_else_is_named() {
        let missing = refusal(&["--kafka-security", "tls", "--kafka-tls-ca", "/nowhere/ca.pem"], None);
        assert!(missing.starts_with("--kafka-tls-ca /nowhere/ca.pem: cannot be read (No such file"), "{missing}");
        let (_dir, path) = file("no PEM at all");
        let line = format!(
            "--kafka-tls-ca {path}: no certificate in it; give a file in PEM form (-----BEGIN CERTIFICATE-----)"
        );
        assert_eq!(refusal(&[&BOTH[..], &["--kafka-tls-ca", &path]].concat(), Some("secret")), line);
        let line = "--kafka-sasl-password-file /nowhere: cannot be read";
        let args = [&PLAIN[..], &["--kafka-sasl-password-file", "/nowhere"]].concat();
        assert!(refusal(&args, None).starts_with(line));
    }

    #[test]
    fn certificate_and_key_belong_together() {
        let authority = native::Authority::new("an authority");
        let (ours, other) = (authority.issue(&["client"]), authority.issue(&["client"]));
        let (_ca_dir, ca) = file(authority.pem());
        let (_certificate_dir, certificate) = file(&ours.certificate);
        let (_key_dir, key) = file(&ours.key);
        let (_other_dir, other_key) = file(&other.key);
        let tls = ["--kafka-security", "tls", "--kafka-tls-ca", &ca];
        let with = |more: &[&str]| -> Vec<String> { tls.iter().chain(more).map(ToString::to_string).collect() };
        let pair = with(&["--kafka-tls-certificate", &certificate, "--kafka-tls-key", &key]);
        assert!(loaded(&pair, None).unwrap().tls.is_some());
        let lines = [
            (
                with(&["--kafka-tls-key", &key]),
                format!(
                    "--kafka-tls-key {key}: is of no use without its certificate; give --kafka-tls-certificate as well"
                ),
            ),
            (
                with(&["--kafka-tls-certificate", &certificate]),
                format!(
                    "--kafka-tls-certificate {certificate}: is of no use without its key; give --kafka-tls-key as well"
                ),
            ),
            (
                with(&["--kafka-tls-certificate", &certificate, "--kafka-tls-key", &other_key]),
                format!(
                    "--kafka-tls-key {other_key}: this is not the key of the certificate; give the one that belongs to it"
                ),
            ),
        ];
        for (args, line) in lines {
            assert_eq!(refusal(&args, None), line);
        }
        let swapped = with(&["--kafka-tls-certificate", &certificate, "--kafka-tls-key", &certificate]);
        let refusal = refusal(&swapped, None);
        assert!(refusal.contains("unencrypted private key in PEM form"), "{refusal}");
    }
}
