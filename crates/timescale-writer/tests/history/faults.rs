//! Answers and silences of the database that are sink faults: nothing is lost, nothing is twice, nothing is refused.

use std::time::Duration;

use event::DriverLocation;
use pipeline::{Batch, Sink, WriteError};
use timescale_writer::TimescaleSink;

use crate::world::{self, World, batch, connect, slice, until};

/// Of a test that waits for it to pass.
const SHORT: Duration = Duration::from_millis(500);

async fn sink_fault(sink: &TimescaleSink, batch: &Batch<DriverLocation>) -> String {
    match sink.write(batch).await {
        Err(WriteError::SinkFault(line)) => {
            assert!(line.starts_with("postgres ") && !line.contains('\n'), "{line}");
            line
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_terminated_in_the_middle_of_a_transaction_is_a_sink_fault() {
    let world = World::new().await;
    let sink = world.sink();
    sink.write(&batch([slice(0, 0, 10)])).await.unwrap();
    let rival = connect(&world.url).await;
    rival.batch_execute("BEGIN; LOCK TABLE driver_locations IN SHARE MODE").await.unwrap();
    let next = batch([slice(0, 10, 2_000)]);
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'timescale-writer'
                         AND wait_event_type = 'Lock'";
    let terminated =
        until("it is terminated", async || world.client.query_one(terminate, &[]).await.unwrap().get::<_, i64>(0) > 0);
    let (line, ()) = tokio::join!(sink_fault(&sink, &next), terminated);
    assert!(line.contains("57P01") || line.contains("connection closed"), "{line}");
    rival.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!((world.rows().await, world.offset(0).await), (10, Some(10)));
    sink.write(&next).await.unwrap();
    assert_eq!((world.rows().await, world.offset(0).await), (2_000, Some(2_000)));
}

#[tokio::test]
async fn idle_connections_that_ended_are_not_used_again() {
    let world = World::new().await;
    let sink = world.sink();
    sink.write(&batch([slice(0, 0, 10)])).await.unwrap();
    let terminate = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'timescale-writer'";
    assert_eq!(world.client.query_one(terminate, &[]).await.unwrap().get::<_, i64>(0), 1);
    until("the end is noticed", async || sink.probe().await.is_ok()).await;
    sink.write(&batch([slice(0, 10, 20)])).await.unwrap();
    assert_eq!(world.rows().await, 20);
}

#[tokio::test]
async fn read_only_mode_is_a_sink_fault() {
    let world = World::new().await;
    world.execute(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", world.name)).await;
    let sink = world.sink();
    let records = batch([slice(0, 0, 10)]);
    assert!(matches!(sink.probe().await, Err(WriteError::SinkFault(line)) if line.contains("read-only")));
    let line = sink_fault(&sink, &records).await;
    assert!(line.contains("25006"), "{line}");
    world.execute(&format!("ALTER DATABASE {} RESET default_transaction_read_only", world.name)).await;
    until("it is writable", async || sink.write(&records).await.is_ok()).await;
    assert_eq!((world.rows().await, world.offset(0).await), (10, Some(10)));
}

#[tokio::test]
async fn a_lock_that_is_held_too_long_is_a_sink_fault() {
    let world = World::new().await;
    let rival = connect(&world.url).await;
    rival.batch_execute("BEGIN; LOCK TABLE driver_locations IN SHARE MODE").await.unwrap();
    let sink = world::sink(&world.url, SHORT);
    let records = batch([slice(0, 0, 10)]);
    let line = sink_fault(&sink, &records).await;
    assert!(line.contains("57014") || line.contains("--database-timeout 500ms"), "{line}");
    rival.batch_execute("ROLLBACK").await.unwrap();
    until("it is written", async || sink.write(&records).await.is_ok()).await;
    assert_eq!((world.rows().await, world.offset(0).await), (10, Some(10)));
}

#[tokio::test]
async fn a_missing_table_is_a_sink_fault() {
    let world = World::new().await;
    world.execute("ALTER TABLE driver_locations RENAME TO away").await;
    let sink = world.sink();
    let records = batch([slice(0, 0, 10)]);
    assert!(sink_fault(&sink, &records).await.contains("42P01"));
    world.execute("ALTER TABLE away RENAME TO driver_locations").await;
    sink.write(&records).await.unwrap();
    assert_eq!(world.rows().await, 10);
}

/// A superuser finds a slot where others find none, and the given server's user may be one: so a role of its own.
#[tokio::test]
async fn a_full_server_is_a_sink_fault() {
    let world = World::new().await;
    let admin = connect(&world.admin_url).await;
    let role = format!("{}_writer", world.name);
    admin
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'writer' CONNECTION LIMIT 0;
             GRANT ALL ON driver_locations, driver_location_offsets TO {role}"
        ))
        .await
        .unwrap();
    let server = world.url.rsplit_once('@').unwrap().1;
    let sink = world::sink(&format!("postgres://{role}:writer@{server}"), world::TIMEOUT);
    let records = batch([slice(0, 0, 10)]);
    assert!(sink_fault(&sink, &records).await.contains("53300"));
    admin.batch_execute(&format!("ALTER ROLE {role} CONNECTION LIMIT -1")).await.unwrap();
    sink.write(&records).await.unwrap();
    assert_eq!(world.rows().await, 10);
    drop(sink);
    admin.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_stops_or_dies_is_a_sink_fault_until_it_is_back() {
    let stack = world::server("hangs");
    let url = stack.postgres.url();
    world::prepare(&url, world::schema()).await.unwrap();
    let sink = world::sink(&url, Duration::from_secs(2));
    let mut next = 0;
    let mut write_until_written = async |fails_first: bool| {
        let records = batch([slice(0, next, next + 10)]);
        if fails_first {
            sink_fault(&sink, &records).await;
            assert!(sink.positions(&[world::tp(0)]).await.is_err());
        } else {
            until("it is written", async || sink.write(&records).await.is_ok()).await;
            next += 10;
        }
    };
    write_until_written(false).await;
    stack.postgres.freeze();
    write_until_written(true).await;
    stack.postgres.thaw();
    write_until_written(false).await;
    stack.postgres.stop();
    write_until_written(true).await;
    stack.postgres.start().unwrap();
    write_until_written(false).await;
    stack.postgres.kill();
    write_until_written(true).await;
    stack.postgres.start().unwrap();
    write_until_written(false).await;
    let client = connect(&url).await;
    assert_eq!((world::rows(&client).await, world::offset(&client, 0).await), (40, Some(40)));
}

#[tokio::test]
async fn a_trigger_may_leave_rows_out_and_they_are_counted() {
    let world = World::new().await;
    world
        .execute(
            "CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RETURN CASE WHEN NEW.driver_id LIKE '%5' THEN NULL ELSE NEW END; END $$;
             CREATE TRIGGER leave_out BEFORE INSERT ON driver_locations FOR EACH ROW EXECUTE FUNCTION leave_out()",
        )
        .await;
    let written = world.sink().write(&batch([slice(0, 0, 10)])).await.unwrap();
    assert_eq!(written.outcomes, [("written", 9), ("suppressed", 1)]);
    assert_eq!(world.offset(0).await, Some(10));
}
