//! The binary COPY format, as the server itself writes it.

use event::DriverLocation;
use futures::TryStreamExt;
use timescale_writer::copy::Encoder;

use crate::world::{World, position};

const COLUMNS: &str = "driver_id, lat, lng, heading, speed, ts";

/// The rows as SQL text: another way in than ours.
const ROWS: &str = "
    INSERT INTO driver_locations (driver_id, lat, lng, heading, speed, ts) VALUES
    ('driver-1', 40.7128, -74.006, 90, 31.5, '2026-11-23T21:08:09.633Z'),
    ('driver-2', 0, -0.0::float8, NULL, NULL, '2000-01-01T00:00:00Z'),
    ('運転手 é', -90, 180, 0.1, NULL, '1999-12-31T23:59:59.999Z')";

fn events() -> [DriverLocation; 3] {
    [
        position("driver-1", 1_795_468_089_633),
        DriverLocation {
            latitude: 0.0,
            longitude: -0.0,
            heading: None,
            speed: None,
            ..position("driver-2", 946_684_800_000)
        },
        DriverLocation {
            latitude: -90.0,
            longitude: 180.0,
            heading: Some(0.1),
            speed: None,
            ..position("運転手 é", 946_684_799_999)
        },
    ]
}

#[tokio::test]
async fn our_stream_is_byte_for_byte_the_servers() {
    let world = World::new().await;
    world.execute(ROWS).await;
    let statement = format!("COPY (SELECT {COLUMNS} FROM driver_locations ORDER BY ts DESC) TO STDOUT (FORMAT binary)");
    let pieces: Vec<_> = world.client.copy_out(&statement).await.unwrap().try_collect().await.unwrap();
    let mut encoder = Encoder::begin();
    for event in events() {
        assert_eq!(encoder.row(&event), None);
    }
    assert_eq!(encoder.end(), pieces.concat());
}
