//! Stacks inside the process of a test.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use native::{Error, KafkaOptions, Server, Stack, StackOptions};

use crate::support::{LIMIT, dir, guard_of, wait_gone};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";

fn options(test: &str) -> StackOptions {
    StackOptions { dir: dir(test), ..StackOptions::all("") }
}

/// Runs SQL through the client that comes with the server.
fn query(stack: &Stack, sql: &str) -> String {
    let psql = native::ensure_tools().unwrap().postgres.join("psql");
    let output = Command::new(psql).args([&stack.postgres.url(), "-XAtqc", sql]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn create_topic(stack: &Stack, name: &str) {
    let bootstrap = stack.kafka.bootstrap();
    let args = ["--bootstrap-server", &bootstrap, "--create", "--topic", name, "--partitions", "1"];
    stack.kafka.tool(TOPICS, &args, "").unwrap();
}

fn topics(stack: &Stack) -> String {
    stack.kafka.tool(TOPICS, &["--bootstrap-server", &stack.kafka.bootstrap(), "--list"], "").unwrap()
}

fn produce(stack: &Stack, topic: &str, value: &str) {
    let args = ["--bootstrap-server", &stack.kafka.bootstrap(), "--topic", topic];
    stack.kafka.tool(PRODUCER, &args, &format!("{value}\n")).unwrap();
}

/// Through a group, so that the coordinator and its topic work as well.
fn consume(stack: &Stack, topic: &str) -> String {
    let bootstrap = stack.kafka.bootstrap();
    let args = ["--bootstrap-server", &bootstrap, "--topic", topic, "--group", "reader", "--from-beginning"];
    let args = [&args[..], &["--max-messages", "1", "--timeout-ms", "60000"]].concat();
    stack.kafka.tool(CONSUMER, &args, "").unwrap().trim().to_owned()
}

#[test]
fn two_stacks_run_side_by_side_and_know_nothing_of_each_other() {
    let one = Stack::start(options("side-one")).unwrap();
    let two = Stack::start(options("side-two")).unwrap();
    create_topic(&one, "only-in-one");
    query(&one, "CREATE TABLE only_in_one ()");
    assert_eq!(topics(&one).trim(), "only-in-one");
    assert_eq!(topics(&two).trim(), "");
    assert_eq!(query(&two, "SELECT to_regclass('only_in_one') IS NULL"), "t");
    let servers =
        |stack: &Stack| -> Vec<u16> { vec![stack.kafka.broker(1).port(), stack.redis.port(), stack.postgres.port()] };
    assert!(servers(&one).iter().all(|port| !servers(&two).contains(port)));

    let error = Stack::start(options("side-one")).unwrap_err();
    assert!(matches!(error, Error::DirInUse { .. }), "{error}");
}

#[test]
fn ports_and_data_survive_a_stop_and_a_kill() {
    let stack = Stack::start(options("restart")).unwrap();
    create_topic(&stack, "kept");
    produce(&stack, "kept", "a record");
    query(&stack, "CREATE TABLE kept AS SELECT 42 AS n");
    let addresses = (stack.kafka.bootstrap(), stack.redis.url(), stack.postgres.url());

    stack.stop();
    let is_closed = |server: &Server| TcpStream::connect(("127.0.0.1", server.port())).is_err() && !server.is_running();
    assert!(is_closed(stack.kafka.broker(1)) && is_closed(&stack.redis) && is_closed(&stack.postgres));
    stack.kafka.start().unwrap();
    stack.redis.start().unwrap();
    stack.postgres.start().unwrap();
    assert_eq!(consume(&stack, "kept"), "a record");
    assert_eq!(query(&stack, "SELECT n FROM kept"), "42");

    query(&stack, "UPDATE kept SET n = 43");
    stack.kafka.kill();
    stack.redis.kill();
    stack.postgres.kill();
    stack.kafka.start().unwrap();
    stack.redis.start().unwrap();
    stack.postgres.start().unwrap();
    assert_eq!(topics(&stack).lines().filter(|topic| *topic == "kept").count(), 1);
    assert_eq!(query(&stack, "SELECT n FROM kept"), "43");
    assert_eq!(addresses, (stack.kafka.bootstrap(), stack.redis.url(), stack.postgres.url()));
}

#[test]
fn a_start_waits_for_a_port_that_somebody_took() {
    let stack = Stack::start(options("taken")).unwrap();
    let servers: [&Server; 3] = [stack.kafka.broker(1), &stack.redis, &stack.postgres];
    for server in servers {
        let complaints = || fs::read_to_string(server.log_path()).unwrap().matches("Address already in use").count();
        server.stop();
        let before = complaints();
        let taken = TcpListener::bind(("127.0.0.1", server.port())).unwrap();
        thread::scope(|scope| {
            let start = scope.spawn(|| server.start());
            native::wait_until(LIMIT, "it finds its port taken", || complaints() > before).unwrap();
            drop(taken);
            start.join().unwrap().unwrap();
        });
        assert!(server.is_running());
    }
}

#[test]
fn one_of_three_brokers_goes_and_comes_back() {
    let kafka = Some(KafkaOptions::three());
    let stack = Stack::start(StackOptions { dir: dir("three"), kafka, redis: false, postgres: false }).unwrap();
    create_topic(&stack, "replicated");
    stack.kafka.broker(2).kill();
    produce(&stack, "replicated", "while one is away");
    assert_eq!(consume(&stack, "replicated"), "while one is away");
    stack.kafka.broker(2).start().unwrap();
    stack.kafka.broker(3).stop();
    stack.kafka.start().unwrap();
    let args = ["--bootstrap-server", &stack.kafka.bootstrap(), "--describe", "--topic", "replicated"];
    let described = stack.kafka.tool(TOPICS, &args, "").unwrap();
    assert!(described.contains("ReplicationFactor: 3"), "{described}");
}

#[test]
fn a_directory_that_only_root_may_enter_is_no_obstacle() {
    if !nix::unistd::geteuid().is_root() {
        // Everything runs as one user, whose directory it is.
        return;
    }
    let parent = tempfile::tempdir().unwrap();
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let dir = parent.path().join("deeper");
    let options = StackOptions { dir: dir.clone(), kafka: None, redis: false, postgres: true };
    let stack = Stack::start(options).unwrap();
    assert_eq!(query(&stack, "SELECT current_user"), "driver");
    stack.postgres.kill();
    stack.postgres.start().unwrap();
    assert_eq!(query(&stack, "CREATE TABLE t AS SELECT 1 AS n; SELECT n FROM t"), "1");
    assert_eq!(fs::metadata(parent.path()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_dropped_stack_leaves_its_logs_and_nothing_else() {
    let stack = Stack::start(StackOptions { dir: dir("dropped"), kafka: None, redis: true, postgres: true }).unwrap();
    let servers = [stack.redis.identity().unwrap(), stack.postgres.identity().unwrap()];
    let guards = servers.map(guard_of);
    let home = stack.dir().to_owned();
    drop(stack);
    assert!(servers.iter().all(|server| !server.is_alive()));
    wait_gone(&guards);
    let left = |name: &str| home.join(name).exists();
    assert!(left("logs/redis.log") && left("logs/postgres.log") && !left("redis") && !left("postgres"));
}

#[test]
fn a_crashed_server_is_started_again() {
    let stack = Stack::start(StackOptions { dir: dir("crashed"), kafka: None, redis: true, postgres: false }).unwrap();
    stack.redis.signal(native::Signal::SIGSEGV);
    native::wait_until(LIMIT, "the crash is seen", || !stack.redis.is_running()).unwrap();
    stack.redis.start().unwrap();
    assert!(stack.redis.is_running());
}

#[test]
fn files_of_others_are_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
    let options = StackOptions { dir: dir.path().to_owned(), kafka: None, redis: true, postgres: false };
    let error = Stack::start(options).unwrap_err();
    assert!(matches!(error, Error::ForeignDir { .. }), "{error}");
    assert!(Path::new(&dir.path().join("thesis.txt")).exists());
}
