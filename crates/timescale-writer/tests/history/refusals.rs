//! Starts that are of no use: one clear line, an exit code, and nothing is consumed; and how psql's own variables and
//! files lead to the database.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::service::{client, flags, produce, producer};
use crate::world::{self, World, nth};

const BINARY: &str = env!("CARGO_BIN_EXE_timescale-writer");

/// A process that ends by itself.
struct Ended {
    code: i32,
    stderr: String,
}

impl Ended {
    /// With these flags and variables, and none of the caller's that matter.
    fn of(flags: &[String], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(flags).env_clear().env("HOME", "/nowhere").stdin(Stdio::null());
        let output = command.envs(variables.iter().copied()).output().unwrap();
        Self { code: output.status.code().unwrap(), stderr: String::from_utf8(output.stderr).unwrap() }
    }

    fn line(&self) -> &str {
        let lines: Vec<_> = self.stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
        let is_last = self.stderr.lines().last().is_some_and(|last| last.starts_with("error: "));
        assert!(lines.len() == 1 && is_last && !self.stderr.contains("panicked"), "{}", self.stderr);
        lines[0]
    }
}

/// Where a database is, part by part.
struct Parts {
    user: String,
    password: String,
    host: String,
    port: String,
}

fn parts(url: &str) -> Parts {
    let (credentials, rest) = url.strip_prefix("postgres://").unwrap().rsplit_once('@').unwrap();
    let (user, password) = credentials.split_once(':').unwrap();
    let (host, port) = rest.split('/').next().unwrap().split_once(':').unwrap_or((rest, "5432"));
    Parts { user: user.into(), password: password.into(), host: host.into(), port: port.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_of_no_use_consumes_nothing() {
    let world = World::bare().await;
    let producer = producer();
    client()
        .create_topic(&kafka::TopicSpec {
            name: world.name.clone(),
            partitions: 4,
            replication: None,
            settings: vec![],
        })
        .await
        .unwrap();
    for offset in 0..100 {
        produce(&producer, &world.name, 0, Some(nth(0, offset))).await;
    }
    let admin = world::connect(&world.admin_url).await;
    let reader = format!("{}_reader", world.name);
    admin
        .batch_execute(&format!(
            "CREATE ROLE {reader} LOGIN PASSWORD 'reader'; REVOKE CREATE ON SCHEMA public FROM PUBLIC"
        ))
        .await
        .unwrap();
    let misshapen = World::bare().await;
    misshapen.execute("CREATE TABLE driver_locations (driver_id text, lat real, lng real, ts timestamptz)").await;
    let Parts { user, password, host, port } = parts(&world.url);
    let at = |user: &str, password: &str, name: &str| format!("postgres://{user}:{password}@{host}:{port}/{name}");
    for (url, code, part) in [
        (at(&user, "not-the-one", &world.name), 77, "28P01"),
        (at(&user, &password, "nowhere"), 69, "\"nowhere\" does not exist"),
        (at(&reader, "reader", &world.name), 77, "grant CREATE on the schema"),
        (at(&user, &password, &misshapen.name), 69, "has column lat as real, not as double precision"),
    ] {
        let ended = Ended::of(&flags(&world.name, &url, &[]), &[]);
        assert_eq!(ended.code, code, "{}", ended.stderr);
        assert!(ended.line().contains(part), "{}", ended.stderr);
        assert!(!ended.stderr.contains("not-the-one") && !ended.stderr.contains(&password), "{}", ended.stderr);
    }
    let groups = client().list_groups().await.unwrap();
    assert!(groups.iter().all(|group| group.group != world.name), "nobody joined, nothing was committed");
    admin.batch_execute(&format!("DROP OWNED BY {reader}; DROP ROLE {reader}")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn psqls_variables_and_files_lead_to_the_database() {
    let world = World::bare().await;
    let Parts { user, password, host, port } = parts(&world.url);
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("password"), format!("{password}\n")).unwrap();
    fs::write(path("passfile"), format!("# of the test\n{host}:{port}:*:{user}:{password}\n")).unwrap();
    fs::set_permissions(path("passfile"), fs::Permissions::from_mode(0o600)).unwrap();
    let only = ["--migrate", "only", "--metrics-listen", "127.0.0.1:0"].map(str::to_owned);
    let place = [("PGHOST", host.as_str()), ("PGPORT", &port), ("PGDATABASE", &world.name), ("PGUSER", &user)];
    let start = |more: &[&str], variables: &[(&str, &str)]| {
        let flags: Vec<_> = only.iter().cloned().chain(more.iter().map(|flag| (*flag).to_owned())).collect();
        let ended = Ended::of(&flags, &[&place, variables].concat());
        assert!(!ended.stderr.contains(&password), "{}", ended.stderr);
        ended
    };
    assert_eq!(start(&[], &[("PGPASSWORD", &password)]).code, 0);
    assert_eq!(start(&["--database-password-file", &path("password")], &[]).code, 0);
    assert_eq!(start(&[], &[("PGPASSFILE", &path("passfile"))]).code, 0);
    let string = format!("dbname={} sslmode=prefer", world.name);
    assert_eq!(start(&["--database-url", &string], &[("PGPASSWORD", &password), ("PGDATABASE", "nowhere")]).code, 0);
    let schema = ("PGOPTIONS", "-c search_path=elsewhere");
    world.execute("CREATE SCHEMA elsewhere").await;
    assert_eq!(start(&[], &[("PGPASSWORD", &password), schema]).code, 0);
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'elsewhere'";
    assert_eq!(world.client.query_one(tables, &[]).await.unwrap().get::<_, i64>(0), 3);

    let without = start(&[], &[]);
    assert!(without.code == 77 && without.line().contains("password missing"), "{}", without.stderr);
    for (variable, value, part) in [
        ("PGSERVICE", "prod", "PGSERVICE prod: not supported"),
        ("PGSSLMODE", "verify-full", "PGSSLMODE verify-full: needs sslrootcert"),
        ("PGSSLROOTCERT", "/nowhere/root.crt", "PGSSLROOTCERT /nowhere/root.crt: "),
        ("DATABASE_PASSWORD_FILE", "/nowhere/password", "--database-password-file /nowhere/password: cannot be read"),
    ] {
        let ended = start(&[], &[("PGPASSWORD", &password), (variable, value)]);
        assert!(ended.code == 64 && ended.line().starts_with(part), "{}", ended.stderr);
    }
    let order = Ended::of(&["--columnstore-after".into(), "48h".into(), "--retention=24h".into()], &[]);
    assert_eq!(order.code, 64, "{}", order.stderr);
    assert!(order.line().starts_with("--columnstore-after 48h: must be below --retention (24h)"), "{}", order.stderr);
}
