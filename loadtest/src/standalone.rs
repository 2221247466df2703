//! The generator alone, against a location-ingest that runs already.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval_at};

use crate::clock::Clock;
use crate::config::GenerateArgs;
use crate::exit;
use crate::generator::{self, GeneratorConfig, Handle, LiveCounts, Told};
use crate::ledger::Outcome;
use crate::plan::{Plan, Stage};
use crate::procfs::Processes;
use crate::roster::Roster;
use crate::screen::Screen;
use crate::signals;
use crate::table::grouped;
use crate::tuning;

/// Offers what was asked for and reports how it was answered. Fails when anything was not accepted.
pub async fn generate(args: &GenerateArgs) -> ExitCode {
    let screen = Screen::open();
    tuning::raise_open_files();
    let clock = Clock::starting_in(tuning::START_IN);
    let handle = match generator::spawn(config(args), clock) {
        Ok(handle) => handle,
        Err(error) => {
            screen.line(&format!("error: the generator could not start: {error}"));
            return ExitCode::from(exit::BROKEN);
        }
    };
    let cut = tokio::select! {
        () = watch(&handle, &clock, args, &screen) => false,
        () = signals::asked_to_stop() => true,
    };
    screen.clear();
    if cut {
        handle.abort();
    }
    let Some(told) = tuning::join(handle).await else { return ExitCode::from(exit::BROKEN) };
    for line in summary(&told, clock.now().min(args.duration)) {
        screen.line(&line);
    }
    match (cut, told.ledger.count(Outcome::Accepted) == told.ledger.len() as u64) {
        (true, _) => ExitCode::from(exit::CUT_OFF),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::from(exit::FAIL),
    }
}

fn config(args: &GenerateArgs) -> GeneratorConfig {
    let stage = Stage::of("generate", args.rate, args.duration, tuning::FLEET);
    GeneratorConfig {
        name: "generator",
        target: args.url.clone(),
        plan: Arc::new(Plan::new(vec![stage])),
        roster: Roster::Crowd,
        positions_per_post: args.positions_per_post,
        connections: args.connections,
        tick: tuning::TICK,
        send_within: tuning::SEND_WITHIN,
        answer_within: tuning::ANSWER_WITHIN,
    }
}

async fn watch(handle: &Handle, clock: &Clock, args: &GenerateArgs, screen: &Screen) {
    let mut tick = interval_at(clock.instant(Duration::from_secs(1)), Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut before = LiveCounts::default();
    while !handle.is_finished() {
        tick.tick().await;
        let now = handle.live();
        screen.progress(clock.now().min(args.duration), args.duration, "generate");
        screen.line(&format!(
            "{:>4} s  offered {:>7}/s  accepted {:>7}/s  refused {}  failed {}  connections {}",
            clock.now().as_secs(),
            grouped(now.offered - before.offered),
            grouped(now.accepted - before.accepted),
            grouped(now.refused),
            grouped(now.failed),
            now.connections,
        ));
        before = now;
    }
}

fn summary(told: &Told, offered_for: Duration) -> Vec<String> {
    let count = |outcome| grouped(told.ledger.count(outcome));
    let ack = |q: f64| told.stages[0].ack_us.value_at_quantile(q) as f64 / 1_000.0;
    let statuses = told.statuses.iter().map(|(status, count)| format!("{status}: {}", grouped(*count)));
    let own = Processes::read().own_usage().unwrap_or_default();
    vec![
        format!(
            "offered {}  accepted {}  refused {}  unknown {}  never sent {}",
            grouped(told.ledger.len() as u64),
            count(Outcome::Accepted),
            count(Outcome::Refused),
            count(Outcome::Unknown),
            count(Outcome::NeverSent),
        ),
        format!("answers by status: {}", statuses.collect::<Vec<_>>().join(", ")),
        format!("ack p50 {:.1} ms  p99 {:.1} ms  max {:.1} ms", ack(0.5), ack(0.99), ack(1.0)),
        format!(
            "this generator took {:.2} cores and {:.0} MiB",
            own.cpu_s / offered_for.as_secs_f64().max(0.001),
            own.rss_mib
        ),
    ]
}
