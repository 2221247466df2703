//! timescale-writer on a backlog of a million records, beside the same rows by psql's `\copy` from a file into a table
//! of the same shape.

use std::path::Path;
use std::process::Command;

use tokio_postgres::{Client, NoTls};

use super::feed::Feed;
use super::world::World;
use super::{BACKLOG, by_turns, look, median};
use crate::error::Error;
use crate::line::Line;
use crate::summary::figure;
use crate::{Setting, meter, say};

const NAME: &str = "timescale-writer-drain";
/// Records a second, by their timestamps.
const RATE: u64 = 50_000;
const PLAIN: &str = "psql: \\copy of the same rows from a file, binary, into a table of the same shape";
const OFFSETS: &str =
    "SELECT coalesce(sum(next_offset), 0)::bigint FROM driver_location_offsets WHERE consumer_group = $1";

/// A drain, or a copy.
#[derive(Debug, Clone, Copy)]
struct Run {
    rate: f64,
    client_us: f64,
    peak_rss_mib: f64,
}

/// The database as it is seen from outside.
struct History {
    /// The owner of the tables, and who may ask for a checkpoint.
    owner: Client,
    admin: Client,
    url: String,
}

pub(crate) fn drain(setting: &Setting) -> Result<Vec<Line>, Error> {
    let world = World::with_postgres(NAME)?;
    let feed = Feed::behind(NAME, RATE, BACKLOG);
    world.fill(&feed, BACKLOG)?;
    let history = History::open(&world)?;
    say(format_args!("not counted: {}", drained(&world, &history, &feed, "warm")?.line()));
    let file = world.stack.dir().join("rows.bin");
    history.psql(&world, &format!("\\copy driver_locations TO '{}' (FORMAT binary)", file.display()))?;
    history.execute(&world, "CREATE TABLE copied (LIKE driver_locations INCLUDING ALL)")?;
    let (ours, plain) = by_turns(
        setting.rounds,
        |round| {
            history.execute(&world, "TRUNCATE driver_locations")?;
            let run = drained(&world, &history, &feed, &round.to_string())?;
            say(format_args!("{}", run.line()));
            Ok(run)
        },
        |_| {
            let run = copied(&world, &history, &file)?;
            say(format_args!("psql: {}", run.line()));
            Ok(run)
        },
    )?;
    let most = |runs: &[Run]| runs.iter().map(|run| run.peak_rss_mib).fold(f64::NAN, f64::max);
    let rate = |runs: &[Run]| median(runs, |run| run.rate);
    let cpu = |runs: &[Run]| median(runs, |run| run.client_us);
    Ok(vec![
        Line::new(NAME, rate(&ours), (PLAIN, rate(&plain)), "rows/s"),
        Line::new(
            format!("{NAME}-cpu"),
            cpu(&ours),
            ("psql, a row", cpu(&plain)),
            "µs of the writer's CPU a record, its start included",
        ),
        Line::new(
            format!("{NAME}-memory"),
            most(&ours),
            ("this program", meter::peak_rss_mib("self")),
            "MiB at the most",
        ),
    ])
}

fn drained(world: &World, history: &History, feed: &Feed, round: &str) -> Result<Run, Error> {
    history.checkpoint(world)?;
    let group = format!("{NAME}-{round}");
    let writer = world.timescale_writer(&feed.topic, &group)?;
    writer.becomes_ready()?;
    let seconds = look::until("rows in PostgreSQL", BACKLOG, || {
        writer.is_running()?;
        history.settled(world, &group)
    })?;
    look::until("all records are settled", BACKLOG, || writer.settled(None))?;
    let used = writer.used()?;
    writer.stop();
    let rows = history.number(world, "SELECT count(*) FROM driver_locations")?;
    if rows != BACKLOG {
        return Err(Error::Client(format!("{rows} rows of {BACKLOG} records")));
    }
    let client_us = used.cpu_s / BACKLOG as f64 * 1e6;
    Ok(Run { rate: BACKLOG as f64 / seconds, client_us, peak_rss_mib: used.peak_rss_mib })
}

/// The time is psql's own, from the first byte sent to the commit: its start is no part of it.
fn copied(world: &World, history: &History, file: &Path) -> Result<Run, Error> {
    history.execute(world, "TRUNCATE copied")?;
    history.checkpoint(world)?;
    let cpu_s = meter::children_cpu_s();
    let said = history.psql(world, &format!("\\timing on\n\\copy copied FROM '{}' (FORMAT binary)", file.display()))?;
    let client_us = (meter::children_cpu_s() - cpu_s) / BACKLOG as f64 * 1e6;
    let ms = said.lines().find_map(|line| line.strip_prefix("Time: ")?.split(' ').next()?.parse::<f64>().ok());
    let ms = ms.ok_or_else(|| Error::Client(format!("psql told no time: {said}")))?;
    Ok(Run { rate: BACKLOG as f64 / ms * 1e3, client_us, peak_rss_mib: f64::NAN })
}

impl History {
    fn open(world: &World) -> Result<Self, Error> {
        let postgres = &world.stack.postgres;
        let connect = |url: String| {
            world.runtime.block_on(async move {
                let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
                // Ends with the client.
                tokio::spawn(connection);
                Ok::<_, tokio_postgres::Error>(client)
            })
        };
        let (owner, admin) = (connect(postgres.url()), connect(postgres.admin_url()));
        Ok(Self { owner: owner.map_err(Error::client)?, admin: admin.map_err(Error::client)?, url: postgres.url() })
    }

    /// Records whose rows are committed, by the offsets that are kept beside them.
    fn settled(&self, world: &World, group: &str) -> Result<u64, Error> {
        let row = world.runtime.block_on(self.owner.query_one(OFFSETS, &[&group])).map_err(Error::client)?;
        Ok(row.get::<_, i64>(0).unsigned_abs())
    }

    fn number(&self, world: &World, query: &str) -> Result<u64, Error> {
        let row = world.runtime.block_on(self.owner.query_one(query, &[])).map_err(Error::client)?;
        Ok(row.get::<_, i64>(0).unsigned_abs())
    }

    fn execute(&self, world: &World, statement: &str) -> Result<(), Error> {
        world.runtime.block_on(self.owner.batch_execute(statement)).map_err(Error::client)
    }

    /// Before each run, so that none pays for the one before it.
    fn checkpoint(&self, world: &World) -> Result<(), Error> {
        world.runtime.block_on(self.admin.batch_execute("CHECKPOINT")).map_err(Error::client)
    }

    /// Runs lines in psql; what it says.
    fn psql(&self, world: &World, lines: &str) -> Result<String, Error> {
        let program = native::ensure_tools()?.postgres.join("psql");
        let script = world.stack.dir().join("script.sql");
        std::fs::write(&script, lines).map_err(Error::io("write", &script))?;
        let output = Command::new(&program)
            .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--file"])
            .arg(&script)
            .arg(&self.url)
            .output()
            .map_err(Error::io("run", &program))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(Error::Client(format!("psql: {}", String::from_utf8_lossy(&output.stderr)))),
        }
    }
}

impl Run {
    fn line(&self) -> String {
        let (rate, cpu, memory) = (figure(self.rate), figure(self.client_us), figure(self.peak_rss_mib));
        format!("{rate} rows/s, {cpu} µs of client CPU a row; {memory} MiB")
    }
}
