//! Rows and offsets in one transaction, fenced.

use std::collections::HashMap;

use kafka::Offset;
use pipeline::{Sink, WriteError};
use timescale_writer::{TableKind, TopicId};

use crate::proxy::{Lose, Proxy};
use crate::world::{self, GROUP, NOW, TIMEOUT, TOPIC_ID, World, batch, kind, position, sink_of, slice, slice_of, tp};

#[tokio::test]
async fn rows_and_offsets_are_written_together() {
    let world = World::new().await;
    let sink = world.sink();
    let written = sink.write(&batch([slice(0, 5, 8), slice(1, 0, 2)])).await.unwrap();
    assert_eq!(written.outcomes, [("written", 5)]);
    assert_eq!(world.rows().await, 5);
    assert_eq!((world.offset(0).await, world.offset(1).await), (Some(8), Some(2)));
    sink.write(&batch([slice(0, 8, 10)])).await.unwrap();
    assert_eq!((world.rows().await, world.offset(0).await), (7, Some(10)));
}

/// What `make test-timescale` is for: COPY through the hypertable into its chunks.
#[tokio::test]
async fn copied_rows_lie_in_the_chunks_of_their_hours_or_in_a_plain_table() {
    const HOURS: i64 = 3;
    const HOUR_MS: i64 = 3_600_000;
    let kind = kind().await;
    let world = World::new().await;
    let positions = (0..3_000).map(|number| position(&format!("driver-{number}"), NOW + number % HOURS * HOUR_MS));
    world.sink().write(&batch([slice_of(0, 0, positions)])).await.unwrap();
    let places =
        "SELECT count(*), count(DISTINCT tableoid), count(*) FILTER (WHERE tableoid = 'driver_locations'::regclass)
                  FROM driver_locations";
    let row = world.client.query_one(places, &[]).await.unwrap();
    let found: (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    let expected = match kind {
        TableKind::Hypertable => (3_000, HOURS, 0),
        TableKind::Plain => (3_000, 1, 3_000),
    };
    assert_eq!(found, expected, "rows, tables that hold them, rows in the table of that name itself");
}

#[tokio::test]
async fn a_slice_without_rows_moves_its_offset() {
    let world = World::new().await;
    let mut empty = slice(0, 0, 0);
    empty.next = Offset(9);
    world.sink().write(&batch([empty])).await.unwrap();
    assert_eq!((world.rows().await, world.offset(0).await), (0, Some(9)));
}

#[tokio::test]
async fn a_wrong_expected_offset_writes_nothing() {
    let world = World::new().await;
    let sink = world.sink();
    sink.write(&batch([slice(0, 0, 3), slice(1, 0, 3)])).await.unwrap();
    let error = sink.write(&batch([slice(0, 2, 5), slice(1, 3, 5)])).await.unwrap_err();
    let WriteError::Fenced(line) = error else { panic!("{error:?}") };
    assert!(line.contains("driver-location-updates-0 (stored offset 3, expected 2)"), "{line}");
    assert!(!line.contains("updates-1"), "only the partition that moved is named: {line}");
    assert_eq!((world.rows().await, world.offset(0).await, world.offset(1).await), (6, Some(3), Some(3)));
    sink.write(&batch([slice(0, 3, 4)])).await.unwrap();
    assert_eq!(world.rows().await, 7);
}

#[tokio::test]
async fn positions_are_those_of_the_group_and_of_this_topic() {
    let world = World::new().await;
    let sink = world.sink();
    sink.write(&batch([slice(0, 0, 3), slice(4, 7, 9)])).await.unwrap();
    let asked = [tp(0), tp(1), tp(4)];
    let expected = HashMap::from([(tp(0), Offset(3)), (tp(4), Offset(9))]);
    assert_eq!(sink.positions(&asked).await.unwrap(), expected);
    let other_group = sink_of(&world.url, TIMEOUT, "another", TOPIC_ID);
    assert_eq!(other_group.positions(&asked).await.unwrap(), HashMap::new());
    let created_again = sink_of(&world.url, TIMEOUT, GROUP, TopicId([8; 16]));
    assert_eq!(created_again.positions(&asked).await.unwrap(), HashMap::new());
    created_again.write(&batch([slice(0, 0, 1)])).await.unwrap();
    assert_eq!(sink.positions(&asked).await.unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_owners_of_a_partition_one_wins_and_no_row_is_there_twice() {
    let world = World::new().await;
    let sinks = [world.sink(), world.sink()];
    let mut ends: [i64; 2] = [0, 0];
    for round in 0..50 {
        // Batches of different lengths from where each owner believes the partition to be.
        let ends_wanted = [ends[0] + 3 + round % 4, ends[1] + 4];
        let batches = [0, 1].map(|owner| batch([slice(0, ends[owner], ends_wanted[owner])]));
        let (first, second) = tokio::join!(sinks[0].write(&batches[0]), sinks[1].write(&batches[1]));
        for (owner, result) in [first, second].into_iter().enumerate() {
            ends[owner] = match result {
                Ok(_) => ends_wanted[owner],
                Err(WriteError::Fenced(_)) => sinks[owner].positions(&[tp(0)]).await.unwrap()[&tp(0)].0,
                Err(error) => panic!("{error}"),
            };
        }
    }
    let stored = world.offset(0).await.unwrap();
    let query = "SELECT count(*), count(DISTINCT driver_id) FROM driver_locations";
    let row = world.client.query_one(query, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (stored, stored));
    assert_eq!(ends.into_iter().max(), Some(stored));
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found_and_not_repeated() {
    let world = World::new().await;
    let proxy = Proxy::start(&world.url).await;
    let sink = world::sink(&proxy.url, TIMEOUT);
    sink.write(&batch([slice(0, 0, 3), slice(1, 0, 3)])).await.unwrap();
    let next = batch([slice(0, 3, 6), slice(1, 3, 4)]);
    proxy.arm(Lose::Answer);
    let error = sink.write(&next).await.unwrap_err();
    assert!(matches!(error, WriteError::SinkFault(_)), "{error:?}");
    assert_eq!(world.rows().await, 10, "it was committed, and the sink cannot know");
    sink.write(&next).await.unwrap();
    assert_eq!((world.rows().await, world.offset(0).await, world.offset(1).await), (10, Some(6), Some(4)));
}

#[tokio::test]
async fn a_commit_that_never_arrives_is_repeated() {
    let world = World::new().await;
    let proxy = Proxy::start(&world.url).await;
    let sink = world::sink(&proxy.url, TIMEOUT);
    let first = batch([slice(0, 0, 3)]);
    proxy.arm(Lose::Question);
    let error = sink.write(&first).await.unwrap_err();
    assert!(matches!(error, WriteError::SinkFault(_)), "{error:?}");
    assert_eq!((world.rows().await, world.offset(0).await), (0, None));
    sink.write(&first).await.unwrap();
    assert_eq!((world.rows().await, world.offset(0).await), (3, Some(3)));
}

#[tokio::test]
async fn a_write_that_is_dropped_half_way_leaves_nothing() {
    let world = World::new().await;
    let sink = world.sink();
    let rival = world::connect(&world.url).await;
    rival.batch_execute("BEGIN; LOCK TABLE driver_locations IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let records = batch([slice(0, 0, 100)]);
    {
        let write = sink.write(&records);
        let waits = async {
            let waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')";
            world::until("the write waits", async || world.client.query_one(waiting, &[]).await.unwrap().get(0)).await;
        };
        tokio::select! {
            result = write => panic!("{result:?}"),
            () = waits => {}
        }
    }
    rival.batch_execute("ROLLBACK").await.unwrap();
    sink.write(&records).await.unwrap();
    assert_eq!((world.rows().await, world.offset(0).await), (100, Some(100)));
}
