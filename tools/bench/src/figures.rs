//! Samples, and the table that comes out of them.

use std::fmt::Write;
use std::time::Duration;

/// Durations, one per repetition.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    pub fn add(&mut self, d: Duration) {
        self.0.push(d);
    }

    /// The value below which this share of the samples lies.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut all = self.0.clone();
        all.sort();
        let at = ((all.len() as f64 * share).ceil() as usize).clamp(1, all.len().max(1)) - 1;
        all.get(at).copied().unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn p50(&self) -> Duration {
        self.quantile(0.5)
    }

    /// `p50 1.2 ms, p95 3.4 ms (n = 100)`
    pub fn text(&self) -> String {
        format!(
            "p50 {}, p95 {} (n = {})",
            ms(self.p50()),
            ms(self.quantile(0.95)),
            self.0.len()
        )
    }
}

/// `12.3 ms`, with as many digits as mean something.
pub fn ms(d: Duration) -> String {
    let v = d.as_secs_f64() * 1e3;
    match v {
        v if v >= 10_000.0 => format!("{:.1} s", v / 1e3),
        v if v >= 100.0 => format!("{v:.0} ms"),
        v if v >= 10.0 => format!("{v:.1} ms"),
        v => format!("{v:.2} ms"),
    }
}

/// A line of the table.
pub struct Row {
    pub group: &'static str,
    pub item: String,
    pub figure: String,
    /// What was asked for, and whether it was reached.
    pub target: Option<(String, bool)>,
    /// OpenStack's own figure for the same.
    pub openstack: &'static str,
}

/// The table of the run.
#[derive(Default)]
pub struct Table(pub Vec<Row>);

impl Table {
    pub fn add(
        &mut self,
        group: &'static str,
        item: impl Into<String>,
        figure: impl Into<String>,
        openstack: &'static str,
    ) {
        self.0.push(Row {
            group,
            item: item.into(),
            figure: figure.into(),
            target: None,
            openstack,
        });
        self.tell();
    }

    pub fn target(
        &mut self,
        group: &'static str,
        item: impl Into<String>,
        figure: impl Into<String>,
        target: (impl Into<String>, bool),
        openstack: &'static str,
    ) {
        self.0.push(Row {
            group,
            item: item.into(),
            figure: figure.into(),
            target: Some((target.0.into(), target.1)),
            openstack,
        });
        self.tell();
    }

    fn tell(&self) {
        if let Some(r) = self.0.last() {
            let verdict = match &r.target {
                Some((t, true)) => format!("  [{t}: met]"),
                Some((t, false)) => format!("  [{t}: MISSED]"),
                None => String::new(),
            };
            crate::say(format!("{}: {}: {}{verdict}", r.group, r.item, r.figure));
        }
    }

    pub fn markdown(&self) -> String {
        let mut out = String::from("| What | Measured | Target | OpenStack |\n|---|---|---|---|\n");
        for r in &self.0 {
            let target = match &r.target {
                Some((t, true)) => format!("{t}: met"),
                Some((t, false)) => format!("{t}: **missed**"),
                None => String::new(),
            };
            let _ = writeln!(out, "| {} | {} | {target} | {} |", r.item, r.figure, r.openstack);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let mut s = Samples::default();
        for i in 1..=100 {
            s.add(Duration::from_millis(i));
        }
        assert_eq!(
            (s.p50(), s.quantile(0.95)),
            (Duration::from_millis(50), Duration::from_millis(95))
        );
        assert_eq!(Samples::default().p50(), Duration::ZERO);
    }
}
