//! Bad input: one clear line, exit 64, nothing sent.

use std::process::{Command, Stdio};

use crate::world::{NOBODY, World, about, finish, stack};

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_one_line_and_nothing_is_sent() {
    let world = World::new("mistakes").await;
    world.publish("redis", about(0..3, "undecodable")).await;
    let redrive = ["redrive", "--yes"];
    let long = "n".repeat(200);
    for (command, args, part) in [
        (
            &["list"][..],
            &["--reason", "mising_latitude"][..],
            "--reason mising_latitude: no such reason; give null_value",
        ),
        (&redrive, &["--reason", "x"], "--reason x: no such reason"),
        (&["list"], &["--since", "yesterday"], "--since yesterday: give how long ago"),
        (&["stats"], &["--until", "2026-13-01T00:00:00Z"], "--until 2026-13-01T00:00:00Z: give how long ago"),
        (&redrive, &["--since", "1h", "--until", "2h"], "--since 1h: must not be later than --until (2h)"),
        (&["show"], &["0:99"], "0:99: offset out of range: partition 0 of mistakes.DLT holds 0 to 0"),
        (&["show"], &["99:0"], "99:0: topic mistakes.DLT has the partitions 0 to 2"),
        (&["show"], &["0-1"], "give PARTITION:OFFSET, such as 3:17"),
        (&["show"], &[], "PARTITION:OFFSET"),
        (&["list"], &["--partition", "7"], "--partition 7: topic mistakes.DLT has the partitions 0 to 2"),
        (&["list"], &["--partition=-1"], "--partition"),
        (&["list"], &["--limit", "0"], "--limit 0"),
        (&["list"], &["--output", "xml"], "--output xml: allowed: table, json"),
        (&["list"], &["--dead-letter-topic", "nowhere.DLT"], "topic nowhere.DLT does not exist"),
        (&redrive, &["--dead-letter-topic", "nowhere.DLT"], "topic nowhere.DLT does not exist"),
        (&redrive, &["--to", "nowhere"], "topic nowhere does not exist"),
        (&redrive, &["--to", "mistakes.DLT"], "--to mistakes.DLT: is the dead letter topic itself"),
        (&["import", "--yes"], &["--to", "mistakes.DLT"], "--to mistakes.DLT: is the dead letter topic itself"),
        (&redrive, &["--rate", "fast"], "--rate fast: give 1/s to 10000000/s"),
        (&redrive, &["--max", "0"], "--max 0"),
        (&redrive, &["--max-redrives", "0"], "--max-redrives 0"),
        (&redrive, &["--name", "a b"], "--name a b: give 1 to 150"),
        (&redrive, &["--name", &long], "give 1 to 150"),
        (&["redrive"], &[], "--yes: is needed where nobody can be asked"),
        (&["import"], &["--yes", "--file", "/nowhere.jsonl"], "--file /nowhere.jsonl: cannot be read"),
        (&["purge"], &["--before", "soon"], "--before soon: give how long ago"),
        (&["lost"], &[], "lost"),
    ] {
        let done = world.run(&[command, args].concat()).await;
        let line = done.refusal(64);
        assert!(line.contains(part) && done.stdout.is_empty(), "{command:?} {args:?}: {line}");
    }
    assert_eq!(world.count("mistakes").await, 0, "nothing was sent");
    assert_eq!(world.count("mistakes.DLT").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rights_the_right_is_named() {
    let world = World::new("guarded").await;
    world.publish("redis", about(0..3, "undecodable")).await;
    let password = native::target_dir().join(format!("dlt-monitor-nobody-{}", std::process::id()));
    std::fs::write(&password, NOBODY.1).unwrap();
    for task in [&["list"][..], &["stats"], &["show", "0:0"], &["redrive", "--yes"], &["export"], &["purge", "--yes"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dlt-monitor"));
        command
            .args(["--brokers", &stack().kafka.listener("SASL"), "--topic", "guarded"])
            .args(["--kafka-security", "sasl-plaintext", "--kafka-sasl-mechanism", "scram-sha-256"])
            .args(["--kafka-sasl-username", NOBODY.0, "--kafka-sasl-password-file", password.to_str().unwrap()])
            .args(task)
            .stdin(Stdio::null());
        let done = finish(command).await;
        let line = done.refusal(64);
        assert!(line.contains("AuthorizationFailed") && line.contains("grant this user the right"), "{task:?}: {line}");
        assert!(done.stdout.is_empty(), "{done:?}");
    }
    assert_eq!(world.count("guarded").await, 0);
}
