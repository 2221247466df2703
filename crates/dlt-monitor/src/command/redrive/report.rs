//! What a redrive has done: a bar while it runs, a report at its end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio::time::Instant;

use super::plan::Plan;
use crate::original::Stays;
use crate::table::grouped;

/// Refreshes of the bar per second.
const REFRESH_HZ: u8 = 4;

/// Counts of a redrive.
pub(super) struct Report {
    name: String,
    group: String,
    target: String,
    begun: Instant,
    took: Duration,
    read: u64,
    pub(super) sent: u64,
    stays: BTreeMap<Stays, u64>,
}

impl Report {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            name: plan.name.clone(),
            group: plan.group.clone(),
            target: plan.policy.target().to_string(),
            begun: Instant::now(),
            took: Duration::ZERO,
            read: 0,
            sent: 0,
            stays: BTreeMap::new(),
        }
    }

    pub(super) fn read(&mut self, read: u64, filtered: u64) {
        self.read += read;
        if filtered > 0 {
            *self.stays.entry(Stays::Filtered).or_default() += filtered;
        }
    }

    pub(super) fn sent(&mut self) {
        self.sent += 1;
    }

    pub(super) fn stays(&mut self, why: Stays) {
        *self.stays.entry(why).or_default() += 1;
    }

    pub(super) fn end(&mut self) {
        self.took = self.begun.elapsed();
    }

    fn rate(&self, took: Duration) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "for people"
        )]
        let rate = (self.sent as f64 / took.as_secs_f64().max(0.001)) as u64;
        rate
    }

    pub(super) fn table(&self) -> String {
        let sent =
            format!("sent        {}  to {}, {}/s\n", grouped(self.sent), self.target, grouped(self.rate(self.took)));
        self.text(&sent)
    }

    pub(super) fn would(&self) -> String {
        self.text(&format!("would send  {}  to {}; nothing was sent\n", grouped(self.sent), self.target))
    }

    fn text(&self, sent: &str) -> String {
        let mut text = format!("redrive     {}  (group {}), {:.1} s\n", self.name, self.group, self.took.as_secs_f64());
        let _ = writeln!(text, "read        {}", grouped(self.read));
        text.push_str(sent);
        let stays: u64 = self.stays.values().sum();
        let _ = writeln!(text, "stay        {}", grouped(stays));
        for (why, count) in &self.stays {
            let _ = writeln!(text, "  {:<18} {}", why.as_str(), grouped(*count));
        }
        text
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let stays: BTreeMap<_, _> = self.stays.iter().map(|(why, count)| (why.as_str(), count)).collect();
        json!({
            "name": self.name,
            "group": self.group,
            "to": self.target,
            "read": self.read,
            "sent": self.sent,
            "stays": stays,
            "seconds": self.took.as_secs_f64(),
            "per_second": self.rate(self.took),
        })
    }
}

/// The bar; nothing where there is no terminal.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn begin(total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(REFRESH_HZ));
        let style = ProgressStyle::with_template("{bar:32} {percent:>3} %  {human_pos} of {human_len} letters  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    pub(super) fn show(&self, report: &Report) {
        self.0.set_position(report.read);
        let rate = grouped(report.rate(report.begun.elapsed()));
        self.0.set_message(format!("{} sent, {rate}/s", grouped(report.sent)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
