//! `haneul balance`: moves between hosts that make their loads more alike.

use crate::admin::{ask, list, text};
use crate::args::BalanceOptions;
use crate::{Result, ui};
use haneul_core::config::Config;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// See the module.
pub fn balance(config: &Config, options: &BalanceOptions) -> Result<()> {
    let client = ask(config)?;
    let mut begun: BTreeMap<String, u64> = BTreeMap::new();
    let ask = |apply: bool, begun: &BTreeMap<String, u64>| {
        let left = options.max_moves.saturating_sub(begun.len() as u64);
        let body = json!({"apply": apply, "max_moves": left, "min_gain": options.min_gain,
            "but": begun.keys().collect::<Vec<_>>()});
        client.post("/admin/v1/balance", &body)
    };
    let plan = ask(false, &begun)?;
    if options.json && !options.apply {
        ui::json(&plan);
        return Ok(());
    }
    if !options.json {
        show(&plan, options.verbose);
    }
    if !options.apply || list(&plan, "moves").is_empty() {
        if options.json {
            ui::json(&plan);
        }
        return Ok(());
    }
    // Whoever ends this on the way leaves moves that come to their end by themselves.
    let last = loop {
        let answer = ask(true, &begun)?;
        let now = list(&answer, "begun");
        for m in now {
            begun.insert(text(m, "id").to_owned(), 1);
            let words = ["name", "id", "from", "to"].map(|key| text(m, key).to_owned());
            let [name, id, from, to] = words;
            ui::note(format_args!("{name} ({id}) moves from {from} to {to}"));
        }
        if now.is_empty() && answer.get("under_way").and_then(Value::as_u64) == Some(0) {
            break answer;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    if options.json {
        ui::json(
            &json!({"before": plan.get("before"), "after": last.get("before"), "moved": begun.keys().collect::<Vec<_>>()}),
        );
    } else {
        ui::line(format_args!(
            "{} moves were made; the imbalance was {:.2} points, and is {:.2}.",
            begun.len(),
            number(&plan, "before"),
            number(&last, "before")
        ));
    }
    Ok(())
}

fn number(v: &Value, key: &str) -> f64 {
    v.get(key).and_then(Value::as_f64).unwrap_or(0.0)
}

fn show(plan: &Value, verbose: bool) {
    let percent = |h: &Value, now: &str, then: &str| {
        let (a, b) = (number(h, now), number(h, then));
        if a == b {
            format!("{a:.0}%")
        } else {
            format!("{a:.0}% -> {b:.0}%")
        }
    };
    let hosts: Vec<Vec<String>> = list(plan, "hosts")
        .iter()
        .map(|h| {
            let name = text(h, "name").to_owned();
            vec![
                name,
                percent(h, "vcpus", "vcpus_then"),
                percent(h, "memory", "memory_then"),
            ]
        })
        .collect();
    ui::table(&["HOST", "VCPUS", "MEMORY"], &hosts);
    let moves = list(plan, "moves");
    if !moves.is_empty() {
        let rows: Vec<Vec<String>> = moves
            .iter()
            .map(|m| {
                let mut cells: Vec<String> = ["name", "from", "to"].map(|key| text(m, key).to_owned()).into();
                cells.push(format!("{:.2}", number(m, "gain")));
                cells.push(text(m, "id").to_owned());
                cells
            })
            .collect();
        ui::table(&["SERVER", "FROM", "TO", "GAIN", "ID"], &rows);
    }
    let stays = list(plan, "stays");
    if verbose || moves.is_empty() {
        for s in stays.iter().take(if verbose { usize::MAX } else { 10 }) {
            ui::line(format_args!(
                "{} ({}) stays: {}",
                text(s, "name"),
                text(s, "id"),
                text(s, "why")
            ));
        }
    }
    ui::line(format_args!(
        "The imbalance is {:.2} points, and {:.2} after {} moves.{}",
        number(plan, "before"),
        number(plan, "after"),
        moves.len(),
        if moves.is_empty() {
            ""
        } else {
            " `haneul balance --apply` makes them."
        }
    ));
}
