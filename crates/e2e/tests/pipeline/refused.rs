//! A Redis that refuses redis-writer, and flags that cannot be used: one clear line, an exit code, nothing consumed.

use std::fs;

use e2e::{Ended, Scene, Witness, event, eventually, now_ms, shared};
use fred::interfaces::ClientLike as _;
use fred::prelude::Builder;
use fred::types::config::Config;
use fred::types::{ClusterHash, CustomCommand};

const PARTITIONS: i32 = 2;
const USAGE: i32 = 64;
const DENIED: i32 = 77;

/// Gives the shared Redis a user of its own for one test.
async fn set_user(url: &str, rules: &[&str]) {
    let client = Builder::from_config(Config::from_url(url).unwrap()).build().unwrap();
    client.init().await.unwrap();
    let command = CustomCommand::new_static("ACL", ClusterHash::FirstKey, false);
    let words: Vec<String> = [&["SETUSER"], rules].concat().into_iter().map(str::to_owned).collect();
    client.custom::<(), _>(command, words).await.unwrap();
}

/// What redis-writer must not touch: records that wait for it.
async fn waiting_records(scene: &Scene<'_>) {
    scene.create_topics().await;
    let (witness, now) = (scene.witness().await, now_ms());
    for partition in 0..PARTITIONS {
        let records =
            (0..100).map(|number| Witness::record("driver", Some(event("driver", now + number)), now + number));
        witness.put(scene.topic(), partition, records.collect()).await;
    }
}

/// Nobody was in the group, and nothing was committed or written.
async fn is_untouched(scene: &Scene<'_>) {
    let group = scene.redis_group();
    // A broker that has had no group yet makes the topic of their offsets first.
    let (committed, described) = eventually("Kafka knows its groups", async || {
        let described = scene.client().describe_groups(&[&group]).await.map_err(|error| error.to_string())?;
        Ok((scene.committed(&group).await?, described))
    })
    .await;
    assert!(committed.is_empty(), "{committed:?}");
    assert!(described.iter().all(|group| group.state == "Dead" && group.members.is_empty()), "{described:?}");
    scene.map().await.value("driver").await.expect_err("a position of nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_redis_does_not_let_in_or_write_is_the_end_before_anything_is_consumed() {
    let stack = shared().await;
    let scene = Scene::set(stack, "denied-map", PARTITIONS).await;
    waiting_records(&scene).await;
    let rights = ["+eval", "+evalsha", "+set"];
    set_user(&stack.redis.url(), &[&["denied-map", "on", ">right-word", "~elsewhere:*"], &rights[..]].concat()).await;
    let passwords = native::target_dir().join("e2e");
    fs::create_dir_all(&passwords).unwrap();
    let file = |password: &str| {
        let path = passwords.join(format!("{password}-{}", std::process::id()));
        fs::write(&path, format!("{password}\n")).unwrap();
        format!("--redis-password-file={}", path.display())
    };
    for (user, password, answer, advice) in [
        ("denied-map", "wrong-word", "WRONGPASS", "check user and password"),
        ("nobody-at-all", "right-word", "WRONGPASS", "check user and password"),
        ("denied-map", "right-word", "NOPERM", "needs +eval +evalsha +set on the keys of --key-prefix"),
    ] {
        let ended = scene.run("redis-writer", &[&format!("--redis-username={user}"), &file(password)]);
        assert_eq!(ended.code, DENIED, "{}", ended.output);
        let line = ended.line();
        assert!(line.starts_with("redis 127.0.0.1:") && line.contains(answer) && line.contains(advice), "{line}");
        // The file's name holds the word as well; no line names the file.
        assert!(!ended.output.contains("-word"), "{}", ended.output);
        is_untouched(&scene).await;
    }

    // The same user with the right that it lacked: the records were waiting for nothing else.
    set_user(&stack.redis.url(), &["denied-map", "~denied-map:*"]).await;
    let writer = scene.redis_writer(&["--redis-username=denied-map", &file("right-word")]);
    scene.reaches(&scene.redis_group(), &scene.ends().await).await;
    scene.map().await.value("driver").await.unwrap();
    assert!(writer.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_of_redis_that_cannot_be_used_are_told_before_anything_is_consumed() {
    let scene = Scene::set(shared().await, "misused-map", PARTITIONS).await;
    waiting_records(&scene).await;
    for (flags, line) in [
        (
            &["--redis-tls-ca=/nowhere/ca.pem"][..],
            "--redis-tls-ca /nowhere/ca.pem: has no use with --redis-url redis://",
        ),
        (
            &["--redis-username=ann"],
            "--redis-username ann: is of no use without a password; give --redis-password-file",
        ),
        (&["--redis-password-file=/nowhere"], "--redis-password-file /nowhere: cannot be read (No such file"),
        (&["--redis-password-file=/"], "--redis-password-file /: cannot be read (Is a directory"),
    ] {
        let ended = scene.run("redis-writer", flags);
        assert_eq!(ended.code, USAGE, "{}", ended.output);
        assert!(ended.line().starts_with(line), "{}", ended.output);
        is_untouched(&scene).await;
    }
    for (url, flags, line) in [
        (
            "rediss://:secret@host",
            "--redis-password-file=/dev/null",
            "--redis-password-file /dev/null: --redis-url holds a password",
        ),
        ("rediss://u:secret@host", "--redis-username=ann", "--redis-username ann: --redis-url names a user as well"),
        (
            "rediss://u:secret@host",
            "--redis-tls-key=/nowhere",
            "--redis-tls-key /nowhere: is of no use without its certificate",
        ),
        ("rediss://u:secret@host", "--redis-tls-ca=/dev/null", "--redis-tls-ca /dev/null: no certificate in it"),
        ("redis://u:secret", "--redis-timeout=1s", "--redis-url redis://u:***: "),
    ] {
        let ended = Ended::of("redis-writer", &[flags], &[("REDIS_URL", url)]);
        assert_eq!(ended.code, USAGE, "{}", ended.output);
        assert!(ended.line().starts_with(line) && !ended.output.contains("secret"), "{}", ended.output);
    }
}
