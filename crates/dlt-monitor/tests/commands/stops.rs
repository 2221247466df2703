//! A redrive that is stopped in the middle, and two at once.

use crate::world::{World, about, traces, until};

const LETTERS: i32 = 3_000;
/// What may go twice after two kills −9. At 1,500/s a batch ends after 200 ms, with 300 records; a busy machine is late.
const TWICE_MAX: usize = 1_000;

/// All letters of one group, then all of another: the two letters of an original lie far apart.
async fn two_letters_each(topic: &str, letters: i32) -> World {
    let world = World::new(topic).await;
    for group in ["redis", "analytics"] {
        for begin in (0..letters).step_by(1_000) {
            world.publish(group, about(begin..letters.min(begin + 1_000), "missing_latitude")).await;
        }
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_it_goes_on_and_sends_nothing_twice_but_the_last_batch() {
    let world = two_letters_each("killed", LETTERS).await;
    // Two kills: one among the first letters, one where the second letters of what was sent begin.
    for reached in [700, 1_700] {
        let running = world.start(&["redrive", "--yes", "--name", "night", "--rate", "1500/s"]);
        until("so many are back", async || world.count("killed").await >= reached).await;
        running.kill();
    }
    let report = world.redrive(&["--name", "night"]).await;
    assert!(report["sent"].as_u64().unwrap() > 0, "{report}");
    let traces = traces(&world.back().await);
    assert_eq!(traces.len(), usize::try_from(LETTERS).unwrap(), "every original is back");
    let twice = traces.values().map(|count| count - 1).sum::<usize>();
    assert!(twice <= TWICE_MAX, "{twice} went twice");
    assert!(traces.values().all(|count| *count <= 3), "{traces:?}");
    assert_eq!(world.redrive(&["--name", "night"]).await["sent"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_it_between_two_records_and_nothing_goes_twice() {
    let world = two_letters_each("signalled", 600).await;
    let running = world.start(&["redrive", "--yes", "--rate", "300/s", "--output", "json"]);
    until("some are back", async || world.count("signalled").await >= 100).await;
    running.signal("-TERM");
    let first = running.end().await.json();
    assert!(first["sent"].as_u64().unwrap() < 600, "{first}");
    let second = world.redrive(&[]).await;
    assert_eq!(first["sent"].as_u64().unwrap() + second["sent"].as_u64().unwrap(), 600, "{first} {second}");
    assert_eq!(traces(&world.back().await), (0..600).map(|number| (number, 1)).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_of_one_name_refuses_and_the_first_goes_on() {
    let world = two_letters_each("double", 900).await;
    let first = world.start(&["redrive", "--yes", "--rate", "200/s", "--output", "json"]);
    until("the first is at it", async || world.count("double").await >= 50).await;
    let second = world.run(&["redrive", "--yes"]).await;
    assert!(second.refusal(69).contains("a redrive of this name is running"), "{second:?}");
    assert_eq!(first.end().await.json()["sent"], 900);
    assert_eq!(traces(&world.back().await), (0..900).map(|number| (number, 1)).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_start_together_one_refuses() {
    let world = two_letters_each("together", 300).await;
    let both = [(); 2].map(|()| world.start(&["redrive", "--yes", "--rate", "60/s", "--output", "json"]));
    let [first, second] = both;
    let (first, second) = tokio::join!(first.end(), second.end());
    let mut codes = [first.code, second.code];
    codes.sort_unstable();
    assert_eq!(codes, [0, 69], "{first:?} {second:?}");
    assert_eq!(traces(&world.back().await), (0..300).map(|number| (number, 1)).collect());
}
