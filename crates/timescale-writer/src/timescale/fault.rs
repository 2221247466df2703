//! What the database said, and what it means for a batch: is it about the data, or about the database?

use std::error::Error as _;
use std::io;
use std::time::Duration;

use event::Reason;
use pipeline::RecordFault;
use tokio_postgres::Error;
use tokio_postgres::error::DbError;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::InvalidDnsNameError;

/// Data exception, integrity constraint violation: the row is at fault. Every other class is the database's own matter.
const DATA_CLASSES: [&str; 2] = ["22", "23"];

/// Classes whose messages are the server's own words. Those of others may quote values of a row (a trigger's text).
const SAFE_CLASSES: [&str; 15] =
    ["08", "0A", "25", "28", "3D", "3F", "40", "42", "53", "54", "55", "57", "58", "F0", "XX"];

/// What the client says where `sslmode` insists and the server has no TLS. It offers no other way to tell.
const NO_TLS: &str = "server does not support TLS";

/// How the client begins what it says of itself when the URL is at fault: a password is missing, or the server proves
/// not to know it. It offers no other way to tell.
const SETTING_FAULTS: [&str; 2] = ["invalid configuration", "authentication error"];

/// Why a statement or a connection failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The server answered with an error, or the connection broke.
    Postgres(Error),
    /// It did not answer in time.
    TimedOut(Duration),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Postgres(error)
    }
}

impl Fault {
    /// The five characters of the server's error, if it is one.
    pub(crate) fn sqlstate(&self) -> Option<&str> {
        Some(self.db_error()?.code().code())
    }

    /// The first two of them.
    pub(crate) fn class(&self) -> Option<&str> {
        self.sqlstate()?.get(..2)
    }

    /// Whether a row is at fault, and not the database.
    pub(crate) fn is_about_data(&self) -> bool {
        self.class().is_some_and(|class| DATA_CLASSES.contains(&class))
    }

    /// Whether the client found the settings wrong before the server could.
    pub(crate) fn is_about_settings(&self) -> bool {
        let text = match self {
            Self::Postgres(error) if error.as_db_error().is_none() => error.to_string(),
            _ => return false,
        };
        SETTING_FAULTS.iter().any(|fault| text.starts_with(fault))
    }

    /// Whether the two sides cannot agree on TLS: waiting does not change certificates.
    pub(crate) fn is_about_tls(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        let mut cause = error.source();
        while let Some(inner) = cause {
            let of_tls = inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if of_tls.is_some_and(|inner| inner.is::<rustls::Error>() || inner.is::<InvalidDnsNameError>())
                || inner.to_string() == NO_TLS
            {
                return true;
            }
            cause = inner.source();
        }
        false
    }

    /// What is wrong with a row, for its letter. Holds names and codes only: the server's message and detail quote the row.
    pub(crate) fn of_record(&self) -> RecordFault {
        let code = self.sqlstate().unwrap_or("unknown");
        let name = |what, name: Option<&str>| name.map(|name| format!(", {what} {name}")).unwrap_or_default();
        let error = self.db_error();
        let constraint = name("constraint", error.and_then(DbError::constraint));
        let column = name("column", error.and_then(DbError::column));
        let detail = format!("the database refuses the row: SQLSTATE {code}{constraint}{column}");
        RecordFault { reason: Reason::SinkRefused.as_str(), detail }
    }

    /// One line for people, without values of rows.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::TimedOut(limit) => {
                format!("no answer within --database-timeout {}", service::format_duration(*limit))
            }
            Self::Postgres(error) => match error.as_db_error() {
                Some(said) => explain(said),
                None => with_causes(error),
            },
        }
    }

    fn db_error(&self) -> Option<&DbError> {
        match self {
            Self::Postgres(error) => error.as_db_error(),
            Self::TimedOut(_) => None,
        }
    }
}

fn explain(said: &DbError) -> String {
    let code = said.code().code();
    if code.get(..2).is_some_and(|class| SAFE_CLASSES.contains(&class)) {
        format!("{} (SQLSTATE {code})", one_line(said.message()))
    } else {
        format!("SQLSTATE {code}")
    }
}

fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    one_line(&text)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
