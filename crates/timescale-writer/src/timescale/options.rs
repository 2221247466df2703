//! libpq's options, and how far each is honoured.

/// How far an option of libpq is honoured.
#[derive(Debug, Clone, Copy)]
pub(super) enum Support {
    Full,
    /// Only where it asks for what is done anyway; upper and lower case alike.
    Only(&'static [&'static str]),
    None,
}

use Support::{Full, Only};

/// Every option of libpq 17 with its environment variable (documentation of libpq, "Parameter Key Words").
pub(super) const OPTIONS: [(&str, &str, Support); 45] = [
    ("host", "PGHOST", Full),
    ("hostaddr", "PGHOSTADDR", Full),
    ("port", "PGPORT", Full),
    ("dbname", "PGDATABASE", Full),
    ("user", "PGUSER", Full),
    ("password", "PGPASSWORD", Full),
    ("passfile", "PGPASSFILE", Full),
    ("connect_timeout", "PGCONNECT_TIMEOUT", Full),
    ("options", "PGOPTIONS", Full),
    ("application_name", "PGAPPNAME", Full),
    ("fallback_application_name", "", Full),
    ("client_encoding", "PGCLIENTENCODING", Only(&["auto", "utf8", "utf-8", "unicode"])),
    ("keepalives", "", Full),
    ("keepalives_idle", "", Full),
    ("keepalives_interval", "", Full),
    ("keepalives_count", "", Full),
    ("tcp_user_timeout", "", Full),
    ("sslmode", "PGSSLMODE", Full),
    ("sslrootcert", "PGSSLROOTCERT", Full),
    ("sslcert", "PGSSLCERT", Full),
    ("sslkey", "PGSSLKEY", Full),
    ("sslnegotiation", "PGSSLNEGOTIATION", Full),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Only(&["tlsv1", "tlsv1.1", "tlsv1.2"])),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Only(&["tlsv1.3"])),
    ("sslcompression", "PGSSLCOMPRESSION", Only(&["0"])),
    ("sslsni", "PGSSLSNI", Only(&["1"])),
    ("sslcertmode", "PGSSLCERTMODE", Only(&["allow"])),
    ("sslcrl", "PGSSLCRL", Support::None),
    ("sslcrldir", "PGSSLCRLDIR", Support::None),
    ("sslpassword", "", Support::None),
    ("channel_binding", "PGCHANNELBINDING", Full),
    ("target_session_attrs", "PGTARGETSESSIONATTRS", Full),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", Full),
    ("requirepeer", "PGREQUIREPEER", Support::None),
    ("require_auth", "PGREQUIREAUTH", Support::None),
    ("requiressl", "PGREQUIRESSL", Only(&["0"])),
    ("service", "PGSERVICE", Support::None),
    ("gssencmode", "PGGSSENCMODE", Only(&["disable", "prefer"])),
    ("gssdelegation", "PGGSSDELEGATION", Only(&["0"])),
    ("gsslib", "PGGSSLIB", Support::None),
    ("krbsrvname", "PGKRBSRVNAME", Support::None),
    ("replication", "", Only(&["false", "off", "no", "0"])),
    // Not options but settings of the session that libpq takes from the environment.
    ("DateStyle", "PGDATESTYLE", Full),
    ("TimeZone", "PGTZ", Full),
    ("geqo", "PGGEQO", Full),
];

/// The last of [`OPTIONS`], which travel inside `options`.
pub(super) const SESSION_SETTINGS: [&str; 3] = ["DateStyle", "TimeZone", "geqo"];
