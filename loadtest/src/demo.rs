//! A scenario from the first line to the exit code; whatever happens, a report is written and nothing is left running.

use std::path::Path;
use std::process::ExitCode;

use crate::config::DemoArgs;
use crate::error::RunError;
use crate::evidence::Evidence;
use crate::report::{self, Report, Verdict};
use crate::run::Run;
use crate::sampler::Point;
use crate::screen::Screen;
use crate::{exit, show, signals, tuning, verdict};

/// Name of the report.
const REPORT: &str = "report.json";
/// Name of the samples of every second, for plots.
const SAMPLES: &str = "samples.json";

/// How a run came to its end.
enum Ended {
    Played,
    CutOff,
    Broken(RunError),
}

/// Plays the scenario and judges it.
pub async fn demo(args: &DemoArgs) -> ExitCode {
    let screen = Screen::open();
    // Nothing is started that could not be reported.
    if let Err(error) = std::fs::create_dir_all(&args.report_dir) {
        let dir = args.report_dir.display();
        screen.line(&format!("error: --report-dir {dir}: {error}; choose a directory that can be written"));
        return ExitCode::from(exit::BROKEN);
    }
    tuning::raise_open_files();
    let mut run = Run::new(args, screen.clone());
    let ended = tokio::select! {
        played = args.scenario.play(&mut run, args.surge) => played.map_or_else(Ended::Broken, |()| Ended::Played),
        () = signals::asked_to_stop() => Ended::CutOff,
    };
    run.collect().await;
    screen.clear();
    if let Ended::Broken(error) = &ended {
        screen.line(&format!("error: {error}"));
    }
    if !matches!(ended, Ended::Played) {
        // Who waits for this process to end may lose patience: what was seen is written before anything else.
        conclude(args, &run.evidence, &ended, &screen);
    }
    run.stop_system().await;
    if matches!(ended, Ended::Played) {
        conclude(args, &run.evidence, &ended, &screen)
    } else {
        code(&ended, Verdict::Fail)
    }
}

/// Judges, writes and shows.
fn conclude(args: &DemoArgs, evidence: &Evidence, ended: &Ended, screen: &Screen) -> ExitCode {
    let report = judged(args, evidence, ended);
    let points: Vec<Point> = evidence.samples.iter().map(Point::from).collect();
    let written = report::write(&args.report_dir, SAMPLES, &points)
        .and_then(|_| report::write(&args.report_dir, REPORT, &report));
    let path = written.as_deref().ok();
    for line in show::lines(&report, args.scenario.thresholds(), path.map(Path::new)) {
        screen.line(&line);
    }
    if let Err(error) = written {
        screen.line(&format!("error: the report could not be written to {}: {error}", args.report_dir.display()));
        return ExitCode::from(exit::BROKEN);
    }
    code(ended, report.verdict)
}

fn judged(args: &DemoArgs, evidence: &Evidence, ended: &Ended) -> Report {
    let mut report = evidence.report();
    report.failures.clone_from(&evidence.troubles);
    match ended {
        Ended::Played => {
            let judgement = verdict::judge(&report, args.positions_per_post, args.scenario.thresholds());
            report.failures.extend(judgement.failures);
            report.detail.limits = judgement.limits;
            report.verdict = if report.failures.is_empty() { judgement.verdict } else { Verdict::Fail };
        }
        Ended::CutOff => {
            report.cut_off = true;
            report.failures.push(format!("the run was cut off after {} s", evidence.played.as_secs()));
        }
        Ended::Broken(error) => {
            report.cut_off = true;
            report.failures.push(error.line());
        }
    }
    report
}

fn code(ended: &Ended, verdict: Verdict) -> ExitCode {
    match (ended, verdict) {
        (Ended::CutOff, _) => ExitCode::from(exit::CUT_OFF),
        (Ended::Broken(_), _) => ExitCode::from(exit::BROKEN),
        (Ended::Played, Verdict::Fail) => ExitCode::from(exit::FAIL),
        (Ended::Played, Verdict::Pass | Verdict::MachineLimited) => ExitCode::SUCCESS,
    }
}
