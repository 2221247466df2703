//! Rows that the database refuses for their content: found one by one, named, and the rest is written.

use std::collections::BTreeSet;

use event::DriverLocation;
use pipeline::{Batch, Refused, Sink, WriteError};
use timescale_writer::TimescaleSink;

use crate::world::{NOW, World, batch, nth, position, slice, slice_of};

const SOUTH: f64 = -33.8688;

/// A batch over two partitions whose records at the given places lie in the south.
fn with_south(records: usize, south: &BTreeSet<usize>) -> Batch<DriverLocation> {
    let event = |index: usize| {
        let event = nth(0, i64::try_from(index).unwrap());
        if south.contains(&index) { DriverLocation { latitude: SOUTH, ..event } } else { event }
    };
    let half = records / 2;
    batch([slice_of(0, 100, (0..half).map(event)), slice_of(1, 0, (half..records).map(event))])
}

async fn refused(sink: &TimescaleSink, batch: &Batch<DriverLocation>) -> Vec<Refused> {
    match sink.write(batch).await {
        Err(WriteError::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

/// What the pipeline does: the refused ones leave the batch.
fn without(mut batch: Batch<DriverLocation>, refused: &[Refused]) -> Batch<DriverLocation> {
    let places: BTreeSet<_> = refused.iter().map(|refused| (refused.slice, refused.item)).collect();
    for (slice, item) in places.into_iter().rev() {
        batch.slices[slice].items.remove(item);
    }
    batch
}

/// Counts the times that the writer offers rows, also those that are rolled back.
const COUNT_OFFERS: &str = "
    CREATE SEQUENCE offers MINVALUE 0;
    CREATE FUNCTION count_offer() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('offers'); RETURN NULL; END $$;
    CREATE TRIGGER count_offer BEFORE INSERT ON driver_locations FOR EACH STATEMENT EXECUTE FUNCTION count_offer()";

/// Halving finds one row of `n` with two offers for each level of the tree, `k` rows with that for each below the level
/// at which they part; and never more than the tree has nodes. One more is the batch itself.
fn most_offers(records: usize, refused: usize) -> i64 {
    let levels = |rows: usize| rows.next_power_of_two().ilog2() as usize;
    let parted = 2 * refused.next_power_of_two();
    let found = 1 + parted + 2 * refused * levels(records.div_ceil(refused));
    i64::try_from(found.min(2 * records)).unwrap()
}

async fn south_is_found(south: BTreeSet<usize>) {
    const RECORDS: usize = 10_000;
    let world = World::new().await;
    world.execute("ALTER TABLE driver_locations ADD CONSTRAINT north_only CHECK (lat >= 0)").await;
    world.execute(COUNT_OFFERS).await;
    let sink = world.sink();
    let records = with_south(RECORDS, &south);
    let refused = refused(&sink, &records).await;
    let offers: i64 = world.client.query_one("SELECT last_value FROM offers", &[]).await.unwrap().get(0);
    let most = most_offers(RECORDS, south.len());
    // The sequence begins with 0.
    assert!(offers < most, "{} offers, at most {most}", offers + 1);
    let found: BTreeSet<_> = refused.iter().map(|refused| refused.slice * (RECORDS / 2) + refused.item).collect();
    assert_eq!(found, south);
    assert!(refused.iter().all(|refused| refused.fault.reason == "sink_refused"));
    assert_eq!(refused[0].fault.detail, "the database refuses the row: SQLSTATE 23514, constraint north_only");
    assert_eq!((world.rows().await, world.offset(0).await), (0, None), "nothing is written before the letters are");
    sink.write(&without(records, &refused)).await.unwrap();
    assert_eq!(world.rows().await, i64::try_from(RECORDS - south.len()).unwrap());
    assert_eq!((world.offset(0).await, world.offset(1).await), (Some(5_100), Some(5_000)));
}

#[tokio::test]
async fn one_of_ten_thousand_is_found() {
    south_is_found(BTreeSet::from([7_311])).await;
}

#[tokio::test]
async fn a_hundred_of_ten_thousand_are_found() {
    south_is_found((0..100).map(|index| index * 97 + 13).collect()).await;
}

#[tokio::test]
async fn all_of_ten_thousand_are_found() {
    south_is_found((0..10_000).collect()).await;
}

#[tokio::test]
async fn what_a_trigger_raises_is_told_without_its_text() {
    let world = World::new().await;
    world
        .execute(
            "CREATE FUNCTION too_far() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.lat < 0 THEN RAISE EXCEPTION 'latitude % of %', NEW.lat, NEW.driver_id USING ERRCODE = '22003'; END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER too_far BEFORE INSERT ON driver_locations FOR EACH ROW EXECUTE FUNCTION too_far()",
        )
        .await;
    let refused = refused(&world.sink(), &with_south(100, &BTreeSet::from([42]))).await;
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].fault.detail, "the database refuses the row: SQLSTATE 22003");
}

#[tokio::test]
async fn a_row_that_contradicts_an_earlier_one_of_its_batch_is_found() {
    let world = World::new().await;
    world.execute("ALTER TABLE driver_locations ADD CONSTRAINT once UNIQUE (driver_id, ts)").await;
    let sink = world.sink();
    let records = batch([slice_of(0, 0, ["a", "b", "a", "c", "b"].map(|driver| position(driver, NOW)))]);
    let refused = refused(&sink, &records).await;
    assert_eq!(refused.iter().map(|refused| refused.item).collect::<Vec<_>>(), [2, 4]);
    sink.write(&without(records, &refused)).await.unwrap();
    assert_eq!((world.rows().await, world.offset(0).await), (3, Some(5)));
}

#[tokio::test]
async fn a_constraint_that_speaks_at_commit_is_found_out_too() {
    let world = World::new().await;
    world
        .execute(
            "ALTER TABLE driver_locations ADD CONSTRAINT once UNIQUE (driver_id, ts) DEFERRABLE INITIALLY DEFERRED",
        )
        .await;
    let sink = world.sink();
    sink.write(&batch([slice(0, 0, 3)])).await.unwrap();
    let records = batch([slice_of(0, 3, [nth(0, 3), nth(0, 1), nth(0, 4)])]);
    let refused = refused(&sink, &records).await;
    assert_eq!(refused.iter().map(|refused| refused.item).collect::<Vec<_>>(), [1]);
    sink.write(&without(records, &refused)).await.unwrap();
    assert_eq!((world.rows().await, world.offset(0).await), (5, Some(6)));
}
