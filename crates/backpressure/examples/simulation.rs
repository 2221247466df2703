//! Writes the simulation's table and plots into docs/backpressure.md and docs/backpressure/: run it after any change to
//! admission, from anywhere in the repository.
#![allow(clippy::print_stdout, reason = "says what it wrote")]

#[path = "../tests/simulation/model.rs"]
mod model;
#[path = "simulation/plot.rs"]
mod plot;
#[path = "../tests/simulation/verdict.rs"]
mod verdict;

use std::fmt::Write as _;
use std::path::Path;

use model::{Case, Phones, Second, Sink};
use verdict::Figures;

const BEGIN: &str = "<!-- simulation: begin -->\n";
const END: &str = "<!-- simulation: end -->";

fn main() -> std::io::Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let plots = docs.join("backpressure");
    std::fs::create_dir_all(&plots)?;
    let played: Vec<_> = verdict::cases().into_iter().map(|case| (case, model::play(case, verdict::SECONDS))).collect();
    for sink in [Sink::Share(0.6), Sink::Share(0.2), Sink::Stop] {
        let shown: Vec<_> = played.iter().filter(|(case, _)| case.sink == sink && case.replicas == 4).collect();
        let file = plots.join(format!("{}.svg", file_name(sink)));
        std::fs::write(&file, plot::page(sink_name(sink), &series(&shown)))?;
        println!("wrote {}", file.display());
    }
    let page = docs.join("backpressure.md");
    let text = std::fs::read_to_string(&page)?;
    let (before, rest) = text.split_once(BEGIN).expect("the page says where the table begins");
    let (_, after) = rest.split_once(END).expect("the page says where the table ends");
    std::fs::write(&page, format!("{before}{BEGIN}{}{END}{after}", table(&played)))?;
    println!("wrote {}", page.display());
    Ok(())
}

fn series<'a>(shown: &[&'a (Case, Vec<Second>)]) -> Vec<(&'static str, &'a [Second])> {
    shown.iter().map(|(case, seconds)| (phones_name(case.phones), seconds.as_slice())).collect()
}

fn table(played: &[(Case, Vec<Second>)]) -> String {
    let mut out = String::from(
        "| sink | phones | replicas | largest lag s | lag at the end s | stretch at the end | overshoot | settled after s | lag < 2 s after s | seen ≥ | of the obedient | accepted | refused |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (case, seconds) in played {
        let figures = verdict::figures(*case, seconds);
        assert!(verdict::broken(*case, &figures).is_empty(), "{case:?}: {figures:?}");
        let _ = writeln!(out, "{}", row(*case, &figures));
    }
    out
}

fn row(case: Case, figures: &Figures) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let recovered = if case.sink == Sink::Stop { figures.recovered_s.to_string() } else { "–".to_owned() };
    let cells = [
        sink_name(case.sink).to_owned(),
        phones_name(case.phones).to_owned(),
        case.replicas.to_string(),
        format!("{:.1}", figures.max_lag_s),
        format!("{:.1}", figures.end_lag_s),
        format!("{:.2}", figures.stretch),
        percent(figures.overshoot),
        figures.settled_s.to_string(),
        recovered,
        percent(figures.seen),
        if case.phones == Phones::Stubborn { "–".to_owned() } else { percent(figures.obedient_seen) },
        percent(figures.accepted),
        percent(figures.refused),
    ];
    format!("| {} |", cells.join(" | "))
}

fn sink_name(sink: Sink) -> &'static str {
    match sink {
        Sink::Stop => "stopped for 60 s",
        Sink::Share(share) if share > 0.9 => "100 %",
        Sink::Share(share) if share > 0.5 => "60 %",
        Sink::Share(_) => "20 %",
    }
}

fn file_name(sink: Sink) -> &'static str {
    match sink {
        Sink::Stop => "stop",
        Sink::Share(share) if share > 0.5 => "60-percent",
        Sink::Share(_) => "20-percent",
    }
}

fn phones_name(phones: Phones) -> &'static str {
    match phones {
        Phones::Obedient => "obedient",
        Phones::Mixed => "mixed",
        Phones::Stubborn => "stubborn",
    }
}
