//! The tables of docs/conformance.md.

use crate::Lane;
use crate::results::{Outcome, Results};
use std::collections::BTreeMap;

const SERVICES: [(&str, &str); 6] = [
    ("identity", "tempest.api.identity."),
    ("image", "tempest.api.image."),
    ("network", "tempest.api.network."),
    ("compute", "tempest.api.compute."),
    ("scenario", "tempest.scenario."),
    ("serial", "tempest.serial_tests."),
];

/// For people at the terminal.
pub fn print(results: &Results) {
    for (name, outcome) in &results.tests {
        if let Outcome::Failed { why } = outcome {
            println!("FAILED {name}\n       {why}");
        }
    }
    println!(
        "{:<10} {:>6} {:>6} {:>7} {:>8}",
        "", "passed", "failed", "skipped", "seconds"
    );
    for (service, prefix) in SERVICES
        .iter()
        .filter(|(_, p)| results.tests.keys().any(|n| n.starts_with(p)))
    {
        let (passed, failed, skipped, seconds) = results.count(prefix);
        println!("{service:<10} {passed:>6} {failed:>6} {skipped:>7} {seconds:>8.1}");
    }
}

/// A lane's page in docs/.
pub fn markdown(lane: &Lane, results: &Results, facts: &str) -> String {
    let list = lane.passing.trim_start_matches("docs/");
    let mut out = format!(
        "# Conformance\n\n\
         OpenStack's integration suite, Tempest 47 from PyPI without a change, against a fresh cloud of the built binary with\n\
         {}: `{}`. {facts}. The tests that pass stand in [{list}]({list});\n\
         {}.\n\n\
         A class whose set-up fails or is skipped counts once. Seconds are the tests' own, {} at a time.\n\n\
         | Service | Passed | Failed | Skipped | Seconds |\n|---|---|---|---|---|\n",
        lane.hypervisor, lane.command, lane.guard, lane.workers
    );
    for (service, prefix) in SERVICES {
        let (passed, failed, skipped, seconds) = results.count(prefix);
        if passed + failed + skipped == 0 {
            continue;
        }
        out.push_str(&format!(
            "| {service} | {passed} | {failed} | {skipped} | {seconds:.0} |\n"
        ));
    }
    for (service, prefix) in SERVICES {
        let of = || results.tests.iter().filter(|(n, _)| n.starts_with(prefix));
        let failed: Vec<_> = of().filter(|(_, o)| matches!(o, Outcome::Failed { .. })).collect();
        if !failed.is_empty() {
            out.push_str(&format!(
                "\n## Failed: {service}\n\n| Test | What the cloud or the test says |\n|---|---|\n"
            ));
        }
        for (name, outcome) in failed {
            let Outcome::Failed { why } = outcome else { continue };
            let name = name.strip_prefix(prefix).unwrap_or(name);
            out.push_str(&format!("| {name} | {} |\n", why.replace('|', "\\|")));
        }
    }
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in results.tests.values() {
        if let Outcome::Skipped { why } = outcome {
            *reasons.entry(why).or_default() += 1;
        }
    }
    out.push_str("\n## Skipped by Tempest\n\n| Reason | Tests or classes |\n|---|---|\n");
    for (why, n) in reasons {
        out.push_str(&format!("| {} | {n} |\n", why.replace('|', "\\|")));
    }
    out
}
