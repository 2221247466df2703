//! PostgreSQL: a cluster of its own with the database `locations`, durable as in production (fsync on).

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::account::Account;
use crate::ports::{Port, Wish};
use crate::process::{Launch, Probe};
use crate::server::Server;
use crate::stack::Home;
use crate::tools::Tools;
use crate::{Error, random};

/// The port that PostgreSQL has by default.
pub(crate) const DEFAULT_PORT: u16 = 5432;
/// A fast shutdown writes a checkpoint; the load of a demo makes that a matter of seconds.
const GRACE: Duration = Duration::from_secs(30);
const PROBE_LIMIT: Duration = Duration::from_secs(2);
const DATABASE: &str = "locations";
const USER: &str = "driver";
const ADMIN: &str = "postgres";

/// A PostgreSQL server with the database `locations`, owned by the user `driver`.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    version: String,
    password: String,
    _port: Port,
}

impl Postgres {
    pub(crate) fn start_new(home: &Home, tools: &Tools, wish: Wish) -> Result<Self, Error> {
        let port = Port::lease(wish)?;
        let data = home.fresh_dir("postgres")?;
        let cluster = Cluster { account: Account::owning(&data)?, data: &data, tools };
        let password = random::token();
        cluster.create(port.number(), &password)?;
        let (program, args) = cluster.account.command(&tools.postgres.join("postgres"));
        let launch = Launch::new("postgres", program, home.log_path("postgres"))
            .args(args)
            .args(["-D".into(), data.clone().into_os_string()])
            // A fast shutdown: SIGTERM would wait until every client has gone.
            .stopped_by(Signal::SIGINT, GRACE)
            .server()
            .holding(home.lock());
        let number = port.number();
        let server = Server::new(launch, number, move || probe(number));
        server.start_first()?;
        Ok(Self { server, version: tools.postgres_version.clone(), password, _port: port })
    }

    /// The URL of the database `locations` for its owner `driver`, password included.
    pub fn url(&self) -> String {
        self.url_for(USER)
    }

    /// The same for the superuser.
    pub fn admin_url(&self) -> String {
        self.url_for(ADMIN)
    }

    /// The version of the program.
    pub fn version(&self) -> &str {
        &self.version
    }

    fn url_for(&self, user: &str) -> String {
        format!("postgres://{user}:{}@127.0.0.1:{}/{DATABASE}", self.password, self.port())
    }
}

impl Deref for Postgres {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// A directory of data in the making.
struct Cluster<'a> {
    account: Account,
    data: &'a Path,
    tools: &'a Tools,
}

impl Cluster<'_> {
    fn create(&self, port: u16, password: &str) -> Result<(), Error> {
        let flags = ["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=reject", "--username", ADMIN];
        let initdb = self.run("initdb", &flags, "")?;
        ensure(initdb.status.success(), "initdb", &initdb)?;
        self.append("postgresql.conf", &settings(port))?;
        self.replace("pg_hba.conf", "host all all 127.0.0.1/32 scram-sha-256\n")?;
        self.create_roles(password)
    }

    /// The server in single-user mode: no client program, no password and no open port are needed. It reads a command
    /// a line and ends well even after an error.
    fn create_roles(&self, password: &str) -> Result<(), Error> {
        let commands = format!(
            "ALTER ROLE {ADMIN} PASSWORD '{password}'\n\
             CREATE ROLE {USER} LOGIN CREATEDB PASSWORD '{password}'\n\
             CREATE DATABASE {DATABASE} OWNER {USER}\n"
        );
        let single = self.run("postgres", &["--single", "-c", "fsync=off", ADMIN], &commands)?;
        let complained = String::from_utf8_lossy(&single.stderr).contains("ERROR");
        ensure(single.status.success() && !complained, "creating the database", &single)
    }

    /// `PROGRAM [--single] -D DATA FLAGS` as the owner of the data, with `input` to read.
    fn run(&self, name: &str, flags: &[&str], input: &str) -> Result<Output, Error> {
        let program = self.tools.postgres.join(name);
        let (command, mut args) = self.account.command(&program);
        // `--single` counts only as the first argument.
        let (first, rest) = flags.split_at(1);
        args.extend(first.iter().map(OsString::from));
        args.extend(["-D".into(), self.data.into()]);
        args.extend(rest.iter().map(OsString::from));
        let failed = || Error::io("run", &program);
        let mut child = Command::new(command)
            .args(args)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed())?;
        if let Some(mut stdin) = child.stdin.take() {
            // Its end tells more than a broken pipe.
            let _ended = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output().map_err(failed())
    }

    fn append(&self, file: &str, text: &str) -> Result<(), Error> {
        let path = self.data.join(file);
        let mut file = OpenOptions::new().append(true).open(&path).map_err(Error::io("write", &path))?;
        file.write_all(text.as_bytes()).map_err(Error::io("write", &path))
    }

    /// Writes into the file that is there, so that its owner stays.
    fn replace(&self, file: &str, text: &str) -> Result<(), Error> {
        let path = self.data.join(file);
        fs::write(&path, text).map_err(Error::io("write", &path))
    }
}

fn ensure(is_well: bool, what: &str, output: &Output) -> Result<(), Error> {
    let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if is_well { Ok(()) } else { Err(Error::Step { what: what.to_owned(), detail: said() }) }
}

/// What differs from the defaults. Commits wait for the disk, or the figures of the demo would not be honest.
fn settings(port: u16) -> String {
    format!(
        "\n# deploy/native\n\
         listen_addresses = '127.0.0.1'\n\
         port = {port}\n\
         unix_socket_directories = ''\n\
         fsync = on\n\
         synchronous_commit = on\n\
         shared_buffers = 256MB\n\
         max_wal_size = 4GB\n\
         checkpoint_timeout = 15min\n\
         checkpoint_completion_target = 0.9\n\
         jit = off\n\
         timezone = 'UTC'\n\
         log_timezone = 'UTC'\n"
    )
}

/// Opens a connection as far as the question for the password: only a server that takes queries asks it. One that
/// still starts or recovers answers with an error instead.
fn probe(port: u16) -> Probe {
    greet(port).map_err(|error| error.to_string()).and_then(|answer| match answer.first() {
        Some(b'R') => Ok(()),
        _ => Err(format!("it answered {}", String::from_utf8_lossy(&answer).replace('\0', " ").trim())),
    })
}

fn greet(port: u16) -> io::Result<Vec<u8>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PROBE_LIMIT)?;
    stream.set_read_timeout(Some(PROBE_LIMIT))?;
    stream.write_all(&startup_message())?;
    let mut answer = vec![0; 512];
    let length = stream.read(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// StartupMessage of protocol 3.0: its length, the version, then names and values.
fn startup_message() -> Vec<u8> {
    let parameters = format!("user\0{USER}\0database\0{DATABASE}\0\0");
    let length = u32::try_from(8 + parameters.len()).expect("a few dozen bytes");
    [&length.to_be_bytes()[..], &(3_u32 << 16).to_be_bytes(), parameters.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_startup_message_holds_its_own_length() {
        let message = startup_message();
        assert_eq!(usize::try_from(u32::from_be_bytes(message[..4].try_into().unwrap())).unwrap(), message.len());
        assert_eq!(message[4..8], [0, 3, 0, 0]);
        assert!(message.ends_with(b"database\0locations\0\0"));
    }
}
