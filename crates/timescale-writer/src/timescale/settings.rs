//! Where the database is and how to reach it, gathered as psql does: the connection string, then libpq's environment
//! variables, then the password file. Whatever cannot be honoured is refused by name rather than left out in silence.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, Host, LoadBalanceHosts, SslNegotiation, TargetSessionAttrs};

use super::conninfo::{self, Keywords};
use super::options::{OPTIONS, SESSION_SETTINGS, Support};
use super::passfile::{self, Wanted};
use super::tls::{self, Tls, TlsFiles, TlsMode};
use crate::INFO;

pub(super) const URL_FLAG: &str = "--database-url";
const PASSWORD_FILE_FLAG: &str = "--database-password-file";
const URL_FORM: &str = "give postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE";
/// Shown instead of a connection string: it has many places for a password.
const HIDDEN: &str = "***";

/// What counts where nobody says anything at all.
const DEFAULT_HOST: &str = "127.0.0.1";
const DEFAULT_USER: &str = "postgres";
const DEFAULT_DATABASE: &str = "locations";
const DEFAULT_PORT: &str = "5432";

/// A peer that vanished without a word is noticed after idle + retries × interval.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// Where libpq keeps a user's own files.
const HOME_FILES: &str = ".postgresql";
const HOME_PASSWORD_FILE: &str = ".pgpass";

/// A setting that cannot be used: where it was given, its value (hidden where it may hold a password), and what would
/// be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} {value}: {remedy}")]
pub struct SettingError {
    /// The flag or environment variable to blame.
    pub name: &'static str,
    /// Its value, as it may be shown.
    pub value: String,
    /// What to do about it.
    pub remedy: String,
}

impl SettingError {
    fn of_url(remedy: impl Into<String>) -> Self {
        Self { name: URL_FLAG, value: HIDDEN.to_owned(), remedy: remedy.into() }
    }
}

/// Reads an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What was given about the database, before it is understood.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// `--database-url`.
    pub url: Option<&'a str>,
    /// `--database-password-file`.
    pub password_file: Option<&'a Path>,
}

/// A database and how to reach it.
#[derive(Clone)]
pub struct ServerSettings {
    pub(super) config: Config,
    pub(super) tls: Tls,
    address: String,
}

impl fmt::Debug for ServerSettings {
    /// Without password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSettings").field("address", &self.address).finish_non_exhaustive()
    }
}

impl ServerSettings {
    /// Gathers what is given. Reads the password file and the certificates; connects to nothing.
    ///
    /// # Errors
    /// The setting to blame and what would be right.
    pub fn read(given: Given<'_>, environment: Environment<'_>) -> Result<Self, SettingError> {
        let mut settings = Settings::gather(given.url, environment)?;
        settings.check_support()?;
        settings.fill_in(given.url.is_some())?;
        settings.find_password(given.password_file, environment)?;
        let config = settings.config()?;
        let tls = settings.tls(environment)?;
        Ok(Self { address: address(&config), config, tls })
    }

    /// `postgres HOST:PORT/DATABASE`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// Values by keyword, from the connection string and from the environment.
struct Settings {
    from_url: Keywords,
    from_environment: Keywords,
}

impl Settings {
    fn gather(url: Option<&str>, environment: Environment<'_>) -> Result<Self, SettingError> {
        let from_url = conninfo::parse(url.unwrap_or_default())
            .map_err(|wrong| SettingError::of_url(format!("{wrong}; {URL_FORM}")))?;
        let is_known = |keyword: &str| OPTIONS.iter().any(|(known, ..)| *known == keyword);
        if from_url.keys().any(|keyword| !is_known(keyword) || SESSION_SETTINGS.contains(&keyword.as_str())) {
            // Not named: a misplaced quote or sign makes a keyword of a password.
            return Err(SettingError::of_url(format!("a keyword in it is none of libpq's; {URL_FORM}")));
        }
        let variables = OPTIONS.iter().filter(|(_, variable, _)| !variable.is_empty());
        let from_environment = variables.filter_map(|(keyword, variable, _)| {
            let value = environment(variable).filter(|value| !value.is_empty())?;
            Some(((*keyword).to_owned(), value))
        });
        Ok(Self { from_environment: from_environment.collect(), from_url })
    }

    /// The value that counts: the string's before the environment's.
    fn get(&self, keyword: &str) -> Option<&str> {
        let value = self.from_url.get(keyword).filter(|value| !value.is_empty());
        value.or_else(|| self.from_environment.get(keyword)).map(String::as_str)
    }

    /// Blames the place where `keyword` was given.
    fn wrong(&self, keyword: &str, remedy: impl fmt::Display) -> SettingError {
        match OPTIONS.iter().find(|(known, ..)| *known == keyword) {
            Some((_, variable, _)) if !self.from_url.contains_key(keyword) && !variable.is_empty() => {
                let value = self.get(keyword).unwrap_or_default().to_owned();
                SettingError { name: variable, value, remedy: remedy.to_string() }
            }
            _ => SettingError::of_url(format!("{keyword}: {remedy}")),
        }
    }

    fn check_support(&self) -> Result<(), SettingError> {
        for (keyword, _, support) in OPTIONS {
            let Some(value) = self.get(keyword) else { continue };
            match support {
                Support::Full => {}
                Support::Only(values) if values.contains(&value.to_lowercase().as_str()) => {}
                Support::Only(values) => {
                    return Err(self.wrong(keyword, format!("not supported; allowed: {}", values.join(", "))));
                }
                Support::None => return Err(self.wrong(keyword, "not supported; leave it out")),
            }
        }
        Ok(())
    }

    /// Where no connection string is given, the defaults; one that is given must say where it leads.
    fn fill_in(&mut self, is_given: bool) -> Result<(), SettingError> {
        for (keyword, default, what) in [("host", DEFAULT_HOST, "host"), ("dbname", DEFAULT_DATABASE, "database")] {
            let is_missing = self.get(keyword).is_none() && (keyword != "host" || self.get("hostaddr").is_none());
            if is_missing && is_given {
                return Err(SettingError::of_url(format!("there is no {what}; {URL_FORM}")));
            }
            if is_missing {
                self.from_environment.insert(keyword.to_owned(), default.to_owned());
            }
        }
        if self.get("user").is_none() && !is_given {
            self.from_environment.insert("user".to_owned(), DEFAULT_USER.to_owned());
        }
        Ok(())
    }

    fn find_password(&mut self, file: Option<&Path>, environment: Environment<'_>) -> Result<(), SettingError> {
        if let Some(path) = file {
            if self.from_url.contains_key("password") {
                let remedy = format!("cannot be combined with a password in {URL_FLAG}");
                return Err(SettingError { name: PASSWORD_FILE_FLAG, value: path.display().to_string(), remedy });
            }
            self.from_url.insert("password".to_owned(), read_password(path)?);
        }
        if self.get("password").is_some() {
            return Ok(());
        }
        let at_home = || Some(PathBuf::from(environment("HOME")?).join(HOME_PASSWORD_FILE));
        let Some(path) = self.get("passfile").map(PathBuf::from).or_else(at_home) else { return Ok(()) };
        let first = |keyword| self.get(keyword).and_then(|values| values.split(',').next());
        let wanted = Wanted {
            host: first("host").or_else(|| first("hostaddr")).unwrap_or_default(),
            port: first("port").filter(|port| !port.is_empty()).unwrap_or(DEFAULT_PORT),
            database: self.get("dbname").unwrap_or_default(),
            user: self.get("user").unwrap_or_default(),
        };
        if let Some(password) = passfile::look_up(&path, wanted) {
            self.from_environment.insert("password".to_owned(), password);
        }
        Ok(())
    }

    fn config(&self) -> Result<Config, SettingError> {
        let mut config = Config::new();
        self.put_servers(&mut config)?;
        self.put_session(&mut config);
        self.put_times(&mut config)?;
        if let Some(binding) = self.choice("channel_binding", &CHANNEL_BINDINGS)? {
            config.channel_binding(binding);
        }
        if let Some(attributes) = self.choice("target_session_attrs", &SESSION_ATTRIBUTES)? {
            config.target_session_attrs(attributes);
        }
        if let Some(order) = self.choice("load_balance_hosts", &HOST_ORDERS)? {
            config.load_balance_hosts(order);
        }
        if let Some(negotiation) = self.choice("sslnegotiation", &NEGOTIATIONS)? {
            config.ssl_negotiation(negotiation);
        }
        Ok(config)
    }

    fn put_servers(&self, config: &mut Config) -> Result<(), SettingError> {
        let addresses: Vec<&str> = self.get("hostaddr").into_iter().flat_map(|text| text.split(',')).collect();
        for address in &addresses {
            let parsed = address.parse::<IpAddr>().map_err(|_| self.wrong("hostaddr", "give IP addresses"))?;
            config.hostaddr(parsed);
        }
        // Where only addresses are given, certificates are held against those.
        let hosts = self.get("host").map_or(addresses, |hosts| hosts.split(',').collect());
        if hosts.iter().any(|host| host.is_empty()) {
            return Err(self.wrong("host", "a host is empty"));
        }
        let count = hosts.len();
        if self.get("hostaddr").is_some_and(|addresses| addresses.split(',').count() != count) {
            return Err(self.wrong("hostaddr", format!("give one for each of the {count} hosts")));
        }
        hosts.into_iter().for_each(|host| {
            config.host(host);
        });
        let ports: Vec<&str> = self.get("port").into_iter().flat_map(|text| text.split(',')).collect();
        if ports.len() > 1 && ports.len() != count {
            return Err(self.wrong("port", format!("give one, or one for each of the {count} hosts")));
        }
        for port in ports {
            let port = if port.is_empty() { DEFAULT_PORT } else { port };
            let parsed = port.parse::<u16>().ok().filter(|port| *port > 0);
            config.port(parsed.ok_or_else(|| self.wrong("port", "give 1 to 65535"))?);
        }
        Ok(())
    }

    fn put_session(&self, config: &mut Config) {
        if let Some(user) = self.get("user") {
            config.user(user);
        }
        if let Some(password) = self.get("password") {
            config.password(password);
        }
        if let Some(database) = self.get("dbname") {
            config.dbname(database);
        }
        let name = self.get("application_name").or_else(|| self.get("fallback_application_name"));
        config.application_name(name.unwrap_or(INFO.name));
        let settings = SESSION_SETTINGS.iter().filter_map(|name| {
            let value = self.get(name)?.replace('\\', "\\\\").replace(' ', "\\ ");
            Some(format!("-c {name}={value}"))
        });
        let options: Vec<_> = settings.chain(self.get("options").map(str::to_owned)).collect();
        if !options.is_empty() {
            config.options(options.join(" "));
        }
    }

    fn put_times(&self, config: &mut Config) -> Result<(), SettingError> {
        // 0 and less stand for the default, as in libpq.
        let positive =
            |keyword| Ok(self.number::<i64>(keyword)?.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0));
        if let Some(seconds) = positive("connect_timeout")? {
            config.connect_timeout(Duration::from_secs(seconds));
        }
        if let Some(ms) = positive("tcp_user_timeout")? {
            config.tcp_user_timeout(Duration::from_millis(ms));
        }
        config.keepalives(self.number::<i64>("keepalives")?.is_none_or(|on| on != 0));
        config.keepalives_idle(positive("keepalives_idle")?.map_or(KEEPALIVE_IDLE, Duration::from_secs));
        config.keepalives_interval(positive("keepalives_interval")?.map_or(KEEPALIVE_INTERVAL, Duration::from_secs));
        let retries = positive("keepalives_count")?.and_then(|count| u32::try_from(count).ok());
        config.keepalives_retries(retries.unwrap_or(KEEPALIVE_RETRIES));
        Ok(())
    }

    fn number<T: FromStr>(&self, keyword: &str) -> Result<Option<T>, SettingError> {
        let value = self.get(keyword).map(|text| text.trim().parse::<T>());
        value.transpose().map_err(|_| self.wrong(keyword, "give a whole number"))
    }

    fn choice<T: Copy>(&self, keyword: &str, choices: &[(&str, T)]) -> Result<Option<T>, SettingError> {
        let Some(value) = self.get(keyword) else { return Ok(None) };
        match choices.iter().find(|(name, _)| *name == value) {
            Some((_, chosen)) => Ok(Some(*chosen)),
            None => {
                let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
                Err(self.wrong(keyword, format!("allowed: {}", names.join(", "))))
            }
        }
    }

    fn tls(&self, environment: Environment<'_>) -> Result<Tls, SettingError> {
        let mode = self.choice("sslmode", &tls::MODES)?;
        // TLS is not spoken over a socket in the file system, and libpq leaves its settings aside there.
        let over_tcp = |host: &str| !host.starts_with('/');
        if mode == Some(TlsMode::Disable) || !self.get("host").is_none_or(|hosts| hosts.split(',').any(over_tcp)) {
            return Ok(Tls::off());
        }
        let at_home = |name| Some(PathBuf::from(environment("HOME")?).join(HOME_FILES).join(name));
        let path = |keyword, name| match self.get(keyword) {
            Some(path) => Some(PathBuf::from(path)),
            None => at_home(name).filter(|path: &PathBuf| path.exists()),
        };
        let files = TlsFiles {
            roots: path("sslrootcert", "root.crt"),
            certificate: path("sslcert", "postgresql.crt"),
            key: path("sslkey", "postgresql.key"),
        };
        Tls::new(mode, &files).map_err(|(keyword, remedy)| self.wrong(keyword, remedy))
    }
}

const CHANNEL_BINDINGS: [(&str, ChannelBinding); 3] =
    [("disable", ChannelBinding::Disable), ("prefer", ChannelBinding::Prefer), ("require", ChannelBinding::Require)];
const SESSION_ATTRIBUTES: [(&str, TargetSessionAttrs); 3] = [
    ("any", TargetSessionAttrs::Any),
    ("read-write", TargetSessionAttrs::ReadWrite),
    ("read-only", TargetSessionAttrs::ReadOnly),
];
const HOST_ORDERS: [(&str, LoadBalanceHosts); 2] =
    [("disable", LoadBalanceHosts::Disable), ("random", LoadBalanceHosts::Random)];
const NEGOTIATIONS: [(&str, SslNegotiation); 2] =
    [("postgres", SslNegotiation::Postgres), ("direct", SslNegotiation::Direct)];

/// The first line of the file: editors and secret stores end it with a line break.
fn read_password(path: &Path) -> Result<String, SettingError> {
    let wrong = |remedy: String| SettingError { name: PASSWORD_FILE_FLAG, value: path.display().to_string(), remedy };
    let text = fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() {
        Err(wrong("its first line holds no password".to_owned()))
    } else {
        Ok(password.to_owned())
    }
}

fn address(config: &Config) -> String {
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    let ports = config.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).map_or(DEFAULT_PORT.to_owned(), u16::to_string);
    let servers: Vec<_> = hosts.enumerate().map(|(index, host)| format!("{host}:{}", port(index))).collect();
    format!("postgres {}/{}", servers.join(","), config.get_dbname().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: Option<&str>, variables: &[(&str, &str)]) -> Result<ServerSettings, SettingError> {
        let environment =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        ServerSettings::read(Given { url, password_file: None }, &environment)
    }

    fn wrong(url: Option<&str>, variables: &[(&str, &str)]) -> String {
        let line = read(url, variables).unwrap_err().to_string();
        assert!(!line.contains("secret") && !line.contains('\n'), "{line}");
        line
    }

    #[test]
    fn the_address_has_no_credentials() {
        let address = |url| read(Some(url), &[]).unwrap().address;
        assert_eq!(address("postgres://user:secret@db.example:6543/locations"), "postgres db.example:6543/locations");
        assert_eq!(address("postgres://user@[::1]/l?password=secret"), "postgres ::1:5432/l");
        assert_eq!(address("host=a,b port=1,2 user=u password=secret dbname=d"), "postgres a:1,b:2/d");
        assert_eq!(address("hostaddr=127.0.0.1 user=u dbname=d"), "postgres 127.0.0.1:5432/d");
    }

    #[test]
    fn without_anything_the_database_is_on_this_machine() {
        let settings = read(None, &[]).unwrap();
        assert_eq!(settings.address, "postgres 127.0.0.1:5432/locations");
        assert_eq!(settings.config.get_user(), Some("postgres"));
        assert_eq!(settings.config.get_application_name(), Some("timescale-writer"));
    }

    #[test]
    fn the_environment_says_what_the_string_does_not() {
        let variables = [
            ("PGHOST", "db"),
            ("PGPORT", "6000"),
            ("PGDATABASE", "d"),
            ("PGUSER", "u"),
            ("PGPASSWORD", "secret"),
            ("PGAPPNAME", "history"),
            ("PGCONNECT_TIMEOUT", "3"),
            ("PGOPTIONS", "-c work_mem=8MB"),
            ("PGTZ", "Europe/Berlin"),
            ("PGSSLMODE", "disable"),
        ];
        let config = read(None, &variables).unwrap().config;
        assert_eq!(address(&config), "postgres db:6000/d");
        assert_eq!((config.get_user(), config.get_password()), (Some("u"), Some(&b"secret"[..])));
        assert_eq!(config.get_application_name(), Some("history"));
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert_eq!(config.get_options(), Some("-c TimeZone=Europe/Berlin -c work_mem=8MB"));
        let config = read(Some("postgres://v:own@h/e"), &variables).unwrap().config;
        assert_eq!(address(&config), "postgres h:6000/e");
        assert_eq!((config.get_user(), config.get_password()), (Some("v"), Some(&b"own"[..])));
    }

    #[test]
    fn a_wrong_string_is_told_without_showing_it() {
        for url in [
            "",
            "mysql://u:secret@h/d",
            "postgres://u:secret@h:port/d",
            "postgres://u:secret@/d",
            "postgres://u:secret@h",
            "postgres://u:secret@h/d?sslmode=verify",
            "postgres://u:secret@h/d?secret=1",
            "postgres://u:secret@h/d?service=s",
            "postgres://u:secret@h/d?sslmode=verify-full&sslrootcert=/nowhere",
            "postgres://u:secret@h/d?sslmode=verify-full",
            "postgres://u:secret@h/d?connect_timeout=soon",
            "postgres://u:secret@h,/d",
            "postgres://u:secret@h:1,i:2,j/d?port=1,2",
            "host=h password=secret secret",
            "host=h hostaddr=secret dbname=d",
        ] {
            let line = wrong(Some(url), &[]);
            assert!(line.starts_with("--database-url ***: "), "{url}: {line}");
        }
    }

    #[test]
    fn a_wrong_variable_is_told_by_its_name() {
        for (variable, value, line) in [
            ("PGSERVICE", "prod", "PGSERVICE prod: not supported; leave it out"),
            ("PGSSLMODE", "on", "PGSSLMODE on: allowed: disable, allow, prefer, require, verify-ca, verify-full"),
            ("PGPORT", "0", "PGPORT 0: give 1 to 65535"),
            ("PGCONNECT_TIMEOUT", "x", "PGCONNECT_TIMEOUT x: give a whole number"),
            ("PGGSSENCMODE", "require", "PGGSSENCMODE require: not supported; allowed: disable, prefer"),
            ("PGTARGETSESSIONATTRS", "primary", "PGTARGETSESSIONATTRS primary: allowed: any, read-write, read-only"),
        ] {
            assert_eq!(wrong(None, &[(variable, value)]), line);
        }
    }

    #[test]
    fn a_password_comes_from_one_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        fs::write(&file, "from file\n").unwrap();
        let given = |url| Given { url: Some(url), password_file: Some(&file) };
        let read = |given| ServerSettings::read(given, &|name| (name == "PGPASSWORD").then(|| "weaker".to_owned()));
        let settings = read(given("postgres://u@h/d")).unwrap();
        assert_eq!(settings.config.get_password(), Some(&b"from file"[..]));
        assert!(!format!("{settings:?}").contains("from file"));
        let line = read(given("postgres://u:secret@h/d")).unwrap_err().to_string();
        assert!(line.contains("cannot be combined with a password in --database-url"), "{line}");
        fs::write(&file, "\n").unwrap();
        let line = read(given("postgres://u@h/d")).unwrap_err().to_string();
        assert!(line.starts_with("--database-password-file ") && line.contains("holds no password"), "{line}");
        fs::remove_file(&file).unwrap();
        assert!(read(given("postgres://u@h/d")).unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn the_password_file_of_libpq_is_found_by_variable_and_at_home() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(HOME_PASSWORD_FILE);
        fs::write(&file, "h:6000:d:u:secret\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let password = |variables: &[(&str, &str)]| {
            let settings = read(Some("postgres://u@h:6000/d"), variables).unwrap();
            settings.config.get_password().map(<[u8]>::to_vec)
        };
        let (home, file) = (home.path().to_str().unwrap(), file.to_str().unwrap());
        assert_eq!(password(&[("HOME", home)]), Some(b"secret".to_vec()));
        assert_eq!(password(&[("PGPASSFILE", file)]), Some(b"secret".to_vec()));
        assert_eq!(password(&[("HOME", home), ("PGPASSWORD", "first")]), Some(b"first".to_vec()));
        assert_eq!(password(&[("HOME", "/nowhere")]), None);
    }
}
