//! Migrations, and the one line that says why a start is of no use.

use ::service::ServiceError;
use pipeline::Sink;
use timescale_writer::{Error, Migrate, SchemaConfig, Storage, Switch};

use crate::world::{self, TIMEOUT, World, batch, kind, prepare, schema, slice, storage};

async fn refusal(url: &str, config: SchemaConfig) -> Error {
    let error = prepare(url, config).await.unwrap_err();
    let line = error.to_string();
    assert!(line.starts_with("postgres ") && !line.contains('\n'), "{line}");
    assert_ne!(error.exit_code(), 0);
    error
}

fn with_driver_index() -> SchemaConfig {
    SchemaConfig { storage: Storage { driver_index: Switch::On, ..storage() }, ..schema() }
}

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let world = World::new().await;
    world.sink().write(&batch([slice(0, 0, 3)])).await.unwrap();
    assert_eq!(prepare(&world.url, schema()).await.unwrap(), kind().await);
    assert_eq!((world.rows().await, world.offset(0).await), (3, Some(3)));
    let row = world.client.query_one("SELECT count(*) FROM driver_location_migrations", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_may_migrate_at_once() {
    let world = World::bare().await;
    let starts = (0..8).map(|_| {
        let url = world.url.clone();
        tokio::spawn(async move { prepare(&url, with_driver_index()).await })
    });
    for start in futures::future::join_all(starts).await {
        start.unwrap().unwrap();
    }
    world.sink().write(&batch([slice(0, 0, 3)])).await.unwrap();
}

#[tokio::test]
async fn the_columns_are_those_of_the_specification() {
    let world = World::new().await;
    let query = "SELECT string_agg(column_name || ' ' || data_type, ', ' ORDER BY ordinal_position)
                 FROM information_schema.columns WHERE table_name = 'driver_locations'";
    let columns: String = world.client.query_one(query, &[]).await.unwrap().get(0);
    assert_eq!(
        columns,
        "driver_id text, lat double precision, lng double precision, heading real, speed real, ts timestamp with time zone"
    );
}

#[tokio::test]
async fn the_drivers_index_is_made_when_asked_for() {
    let world = World::new().await;
    let query = "SELECT count(*) FROM pg_indexes WHERE tablename = 'driver_locations'";
    let indexes = async || world.client.query_one(query, &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(indexes().await, 1);
    prepare(&world.url, with_driver_index()).await.unwrap();
    assert_eq!(indexes().await, 2);
    prepare(&world.url, schema()).await.unwrap();
    assert_eq!(indexes().await, 2, "turning it off does not drop it");
}

#[tokio::test]
async fn without_migrating_the_tables_must_be_there() {
    let world = World::bare().await;
    let off = SchemaConfig { migrate: Migrate::Off, ..schema() };
    let line = refusal(&world.url, off).await.to_string();
    assert!(line.contains("there is no table driver_locations") && line.contains("--migrate only"), "{line}");
    prepare(&world.url, SchemaConfig { migrate: Migrate::Only, ..schema() }).await.unwrap();
    assert_eq!(prepare(&world.url, off).await.unwrap(), kind().await);
}

#[tokio::test]
async fn a_table_of_another_shape_is_refused_and_left_alone() {
    let world = World::bare().await;
    world.execute("CREATE TABLE driver_locations (driver_id text, lat real, lng real, recorded timestamptz)").await;
    let line = refusal(&world.url, schema()).await.to_string();
    assert!(line.contains("driver_locations has column lat as real, not as double precision"), "{line}");
    let query = "SELECT count(*) FROM pg_class WHERE relname LIKE 'driver_location%' AND relkind = 'r'";
    assert_eq!(world.client.query_one(query, &[]).await.unwrap().get::<_, i64>(0), 1, "nothing was added");
}

#[tokio::test]
async fn offsets_without_their_key_are_refused() {
    let world = World::new().await;
    world.execute("ALTER TABLE driver_location_offsets DROP CONSTRAINT driver_location_offsets_pkey").await;
    let line = refusal(&world.url, schema()).await.to_string();
    assert!(line.contains("driver_location_offsets needs the primary key"), "{line}");
}

#[tokio::test]
async fn a_wrong_password_is_one_line_without_it() {
    let world = World::bare().await;
    let (before, after) = world.url.rsplit_once('@').unwrap();
    let user = before.rsplit_once(':').unwrap().0;
    let error = refusal(&format!("{user}:not-the-one@{after}"), schema()).await;
    assert!(matches!(error, Error::Forbidden(_)));
    let line = error.to_string();
    assert!(line.contains("--database-url") && line.contains("28P01") && !line.contains("not-the-one"), "{line}");
}

#[tokio::test]
async fn a_missing_password_is_one_line() {
    let world = World::bare().await;
    let (before, after) = world.url.rsplit_once('@').unwrap();
    let user = before.rsplit_once(':').unwrap().0;
    let error = refusal(&format!("{user}@{after}"), schema()).await;
    assert!(matches!(error, Error::Forbidden(_)));
    assert!(error.to_string().contains("password missing"), "{error}");
}

#[tokio::test]
async fn a_missing_database_is_one_line() {
    let world = World::bare().await;
    let error = refusal(&world::on_database(&world.url, "nowhere"), schema()).await;
    assert!(matches!(error, Error::NoDatabase(_)));
    assert!(error.to_string().contains("nowhere"));
}

#[tokio::test]
async fn a_missing_right_is_one_line() {
    let world = World::bare().await;
    let admin = world::connect(&world.admin_url).await;
    let (name, role) = (&world.name, format!("{}_reader", world.name));
    admin
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'reader'; GRANT CONNECT ON DATABASE {name} TO {role}"
        ))
        .await
        .unwrap();
    let url = format!("postgres://{role}:reader@{}", world.url.rsplit_once('@').unwrap().1);
    let error = refusal(&url, schema()).await;
    assert!(matches!(error, Error::Forbidden(_)), "{error}");
    prepare(&world.url, schema()).await.unwrap();
    admin.batch_execute(&format!("GRANT SELECT ON driver_locations, driver_location_offsets TO {role}")).await.unwrap();
    let line = refusal(&url, SchemaConfig { migrate: Migrate::Off, ..schema() }).await.to_string();
    assert!(line.contains("grant these rights"), "{line}");
    admin
        .batch_execute(&format!(
            "GRANT INSERT ON driver_locations TO {role}; GRANT INSERT, UPDATE ON driver_location_offsets TO {role}"
        ))
        .await
        .unwrap();
    prepare(&url, SchemaConfig { migrate: Migrate::Off, ..schema() }).await.unwrap();
    world::sink(&url, TIMEOUT).write(&batch([slice(0, 0, 3)])).await.unwrap();
}
