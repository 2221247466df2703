//! Letters of Spring Kafka and Kafka Connect, with the headers that those two wrote themselves (tests/golden).

use std::collections::BTreeMap;

use crate::world::{World, header};

/// Headers as `tests/golden/regenerate.sh` wrote them.
fn golden(text: &str) -> BTreeMap<String, Vec<u8>> {
    let unhex =
        |hex: &str| (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    text.lines().map(|line| line.split_once(' ').unwrap()).map(|(name, hex)| (name.to_owned(), unhex(hex))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_spring_and_connect_are_listed_shown_and_sent_back() {
    let world = World::new("driver-location-updates").await;
    let mut spring = golden(include_str!("../golden/spring.txt"));
    spring.insert("trace".to_owned(), b"spring".to_vec());
    let mut connect = golden(include_str!("../golden/connect.txt"));
    connect.insert("trace".to_owned(), b"connect".to_vec());
    // Both are about the same original: set them apart.
    connect.insert("__connect.errors.offset".to_owned(), b"4243".to_vec());
    world.put(0, b"k", Some(b"v"), spring).await;
    world.put(1, b"k", Some(b"v"), connect).await;
    world.put(2, b"k", None, BTreeMap::new()).await;
    let list = world.done(&["list"]).await;
    for part in
        ["driver-location-updates-7@4242", "java.lang.IllegalArgumentException", "connect-locations-sink", "unknown"]
    {
        assert!(list.contains(part), "{part}: {list}");
    }
    let class = "org.apache.kafka.connect.errors.DataException";
    let by_class = world.run(&["list", "--reason", class, "--output", "json"]).await.json();
    assert_eq!(by_class.as_array().unwrap().len(), 1);
    assert!(world.done(&["show", "0:0"]).await.contains("latitude is missing"));
    let report = world.redrive(&["--name", "foreign"]).await;
    assert_eq!((&report["sent"], &report["stays"]["unknown_original"]), (&2.into(), &1.into()), "{report}");
    for (_, found) in world.back().await {
        let names: Vec<_> = found.record.headers.keys().map(String::as_str).collect();
        assert_eq!(names, ["redrive-count", "redrive-of", "trace"]);
        let of = header(&found.record, "redrive-of").unwrap();
        assert!(of == "driver-location-updates-7@4242" || of == "driver-location-updates-7@4243", "{of}");
    }
}
