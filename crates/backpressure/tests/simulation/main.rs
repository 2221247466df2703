//! 50,000 phones against sinks that are too slow: admission keeps the promises of docs/backpressure.md, in every
//! combination. `cargo run --release --package backpressure --example simulation` writes its table and plots.

mod model;
mod verdict;

#[test]
fn every_combination_keeps_the_promises() {
    let mut broken = Vec::new();
    for case in verdict::cases() {
        let figures = verdict::figures(case, &model::play(case, verdict::SECONDS));
        let promises = verdict::broken(case, &figures);
        if !promises.is_empty() {
            broken.push(format!("{case:?}: {promises:?} {figures:?}"));
        }
        let (sent, share) = (figures.accepted + figures.refused, 1.0 / figures.stretch);
        assert!(
            sent > share * 0.9 && figures.obedient_seen >= figures.seen,
            "figures that contradict each other: {figures:?}"
        );
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// A test that judges a controller must be able to fail: without admission the promises do not hold.
#[test]
fn stubborn_phones_alone_would_break_them() {
    let case = model::Case { phones: model::Phones::Stubborn, sink: model::Sink::Share(0.6), replicas: 0 };
    let figures = verdict::figures(case, &model::play(case, verdict::SECONDS));
    assert!(figures.max_lag_s > 20.0 && figures.seen < 0.5, "{figures:?}");
}
