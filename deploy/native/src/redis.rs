//! Redis: nothing on disk, as the positions in it live for 30 s.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::Error;
use crate::ports::{Port, Wish};
use crate::process::{Launch, Probe};
use crate::server::Server;
use crate::stack::Home;
use crate::tools::Tools;

/// The port that Redis has by default.
pub(crate) const DEFAULT_PORT: u16 = 6379;
const GRACE: Duration = Duration::from_secs(10);
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// A Redis server. A start finds it empty, as after a loss of the machine.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    version: String,
    _port: Port,
}

impl Redis {
    pub(crate) fn start_new(home: &Home, tools: &Tools, wish: Wish) -> Result<Self, Error> {
        let port = Port::lease(wish)?;
        let dir = home.fresh_dir("redis")?;
        let config = dir.join("redis.conf");
        fs::write(&config, settings(port.number(), &dir)).map_err(Error::io("write", &config))?;
        let launch = Launch::new("redis", &tools.redis, home.log_path("redis"))
            .arg(config)
            .stopped_by(Signal::SIGTERM, GRACE)
            .server()
            .holding(home.lock());
        let number = port.number();
        let server = Server::new(launch, number, move || probe(number));
        server.start_first()?;
        Ok(Self { server, version: tools.redis_version.clone(), _port: port })
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// The version of the program.
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl Deref for Redis {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

fn settings(port: u16, dir: &Path) -> String {
    format!(
        "bind 127.0.0.1\nport {port}\nprotected-mode yes\ndaemonize no\ndir \"{}\"\nlogfile \"\"\nsave \"\"\nappendonly no\n",
        dir.display()
    )
}

/// PONG comes only from a server that serves: one that still loads says LOADING.
fn probe(port: u16) -> Probe {
    ping(port).map_err(|error| error.to_string()).and_then(|answer| match answer.as_str() {
        "+PONG\r\n" => Ok(()),
        other => Err(format!("PING was answered by {}", other.trim())),
    })
}

fn ping(port: u16) -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PROBE_LIMIT)?;
    stream.set_read_timeout(Some(PROBE_LIMIT))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}
