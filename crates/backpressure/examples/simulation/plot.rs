//! Plots as plain SVG: three panels over the same seconds, a line for each kind of phone.

use std::fmt::Write as _;

use crate::model::{SLOW_FROM_S, Second};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 60.0;
const PANEL: f64 = 130.0;
const GAP: f64 = 34.0;
const COLOURS: [&str; 3] = ["#1b7837", "#2166ac", "#b2182b"];

type Panel = (&'static str, fn(&Second) -> f64);
const PANELS: [Panel; 3] = [
    ("time lag, s", |second| second.time_lag_s),
    ("stretch (1 = every 2 s, 5 = every 10 s, above: turns shed)", |second| second.stretch),
    ("accepted, share of what is needed", |second| second.accepted),
];

/// One page: a title and the panels.
pub(crate) fn page(title: &str, series: &[(&str, &[Second])]) -> String {
    let height = 40.0 + PANELS.len() as f64 * (PANEL + GAP) + 10.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"20\" font-size=\"14\">Sink: {title} (from second {SLOW_FROM_S}), 50,000 phones, 4 replicas</text>\n"
    );
    for (index, (name, _)) in series.iter().enumerate() {
        let x = WIDTH - 300.0 + 100.0 * index as f64;
        let _ = writeln!(out, "<text x=\"{x}\" y=\"20\" fill=\"{}\">— {name}</text>", COLOURS[index]);
    }
    for (index, panel) in PANELS.iter().enumerate() {
        draw(&mut out, *panel, 40.0 + index as f64 * (PANEL + GAP), series);
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, (name, of): Panel, top: f64, series: &[(&str, &[Second])]) {
    let all = series.iter().flat_map(|(_, seconds)| seconds.iter().map(of));
    let max = all.fold(1.0, f64::max).ceil();
    let bottom = top + PANEL;
    let right = WIDTH - 20.0;
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"{:.0}\">{name}</text>\n<path d=\"M{LEFT} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"#888\"/>\n<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{max:.0}</text>\n<text x=\"{:.0}\" y=\"{bottom}\" text-anchor=\"end\">0</text>",
        top - 5.0,
        LEFT - 6.0,
        top + 8.0,
        LEFT - 6.0,
    );
    for (index, (_, seconds)) in series.iter().enumerate() {
        let step = (right - LEFT) / (seconds.len() - 1) as f64;
        let points: Vec<_> = seconds
            .iter()
            .enumerate()
            .map(|(at, second)| format!("{:.1},{:.1}", LEFT + at as f64 * step, bottom - of(second) / max * PANEL))
            .collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>",
            points.join(" "),
            COLOURS[index]
        );
    }
    let count = series.first().map_or(1, |(_, seconds)| seconds.len());
    for second in (0..count).step_by(30) {
        let x = LEFT + (right - LEFT) * second as f64 / (count - 1) as f64;
        let _ = writeln!(out, "<text x=\"{x:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{second}</text>", bottom + 14.0);
    }
}
