//! `cargo xtask contract`: our routes against the operations that OpenStack publishes (the OpenAPI files that the crate
//! openstack_types carries). Writes docs/contract.md.

#![allow(clippy::print_stdout)]

mod exchanges;
#[path = "../facts.rs"]
mod facts;
#[path = "../routes.rs"]
mod routes;

use anyhow::{Context, Result};
use clap::Parser;
use routes::{Operation, normal, served};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Hold docs/routes.txt against OpenStack's contract; writes docs/contract.md
#[derive(Parser)]
#[command(name = "cargo xtask contract")]
struct Options {
    /// Where openstack_types keeps its OpenAPI files
    #[arg(long, hide = true)]
    data: PathBuf,
    /// A directory of recorded exchanges: each is held against the schema of its microversion
    #[arg(long)]
    validate: Option<PathBuf>,
    /// The Python environment with jsonschema
    #[arg(long, hide = true, default_value = "target/tempest")]
    python: PathBuf,
}

/// Service, its directory among the files, and where we mount it. `None`: not served yet.
const SERVICES: [(&str, &str, Option<&str>); 7] = [
    ("identity", "identity", Some("/identity")),
    ("image", "image", Some("/image")),
    ("placement", "placement", Some("/placement")),
    ("network", "network", Some("/network")),
    ("compute", "compute", Some("/compute")),
    ("volume", "block-storage", None),
    ("object", "object-store", None),
];
/// Parts of the paths of Keystone's federation.
const FEDERATION: [&str; 3] = ["OS-FEDERATION", "saml2", "websso"];
const METHODS: [&str; 6] = ["get", "put", "post", "patch", "delete", "head"];
const REPORT: &str = "docs/contract.md";

/// As little of an OpenAPI file as this needs.
#[derive(Deserialize)]
struct Contract {
    paths: BTreeMap<String, BTreeMap<String, IgnoredAny>>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let served = served(
        &std::fs::read_to_string("docs/routes.txt").context("docs/routes.txt")?,
        "",
    );
    let mut table = String::new();
    let mut missing = String::new();
    let mut sum = (0, 0);
    for (service, dir, prefix) in SERVICES {
        let wanted = operations(&options.data.join(dir))?;
        let have: BTreeSet<&Operation> = wanted
            .iter()
            .filter(|(method, path)| {
                prefix.is_some_and(|p| served.contains(&(method.clone(), normal(&format!("{p}{path}")))))
            })
            .collect();
        let percent = 100 * have.len() / wanted.len().max(1);
        table.push_str(&format!(
            "| {service} | {} | {} | {percent} % |\n",
            wanted.len(),
            have.len()
        ));
        if service == "identity" {
            // Of federation only the room is there.
            let here = |o: &&Operation| !FEDERATION.iter().any(|part| o.1.contains(part));
            let all = wanted.iter().filter(here).count();
            let served = have.iter().copied().filter(here).count();
            table.push_str(&format!(
                "| identity, apart from federation | {all} | {served} | {} % |\n",
                100 * served / all.max(1)
            ));
        }
        sum = (sum.0 + wanted.len(), sum.1 + have.len());
        println!(
            "{service:<10} {:>4} of {:>4} operations, {percent} %",
            have.len(),
            wanted.len()
        );
        if prefix.is_some() && have.len() < wanted.len() {
            missing.push_str(&format!("\n## Not served: {service}\n\n"));
            for (method, path) in wanted.iter().filter(|o| !have.contains(o)) {
                missing.push_str(&format!("- {method} {path}\n"));
            }
        }
    }
    let text = format!(
        "# Contract\n\n\
         Our routes ([routes.txt](routes.txt)) against the operations in OpenStack's published OpenAPI files, as the crate\n\
         openstack_types 0.22.8 carries them: `cargo xtask contract`. Actions of servers are one operation there.\n\
         What Nova removed and answers with 410, as we do (`old::gone` in routes.txt), counts as served.\n\n\
         | Service | Operations | Served | |\n|---|---|---|---|\n{table}| all | {} | {} | {} % |\n{missing}",
        sum.0,
        sum.1,
        100 * sum.1 / sum.0.max(1)
    );
    let exchanges = match &options.validate {
        Some(records) => exchanges::validate(&options.python, &options.data, records, &facts::facts())?,
        // What an earlier run found stays.
        None => {
            let before = std::fs::read_to_string(REPORT).unwrap_or_default();
            before
                .find(exchanges::MARK)
                .map_or_else(String::new, |i| before[i..].to_owned())
        }
    };
    std::fs::write(REPORT, text + &exchanges)?;
    println!("wrote {REPORT}");
    Ok(())
}

/// All operations of a service: its files are its releases, each with what was new.
fn operations(dir: &Path) -> Result<BTreeSet<Operation>> {
    let mut out = BTreeSet::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Of another implementation, with routes of its own.
        if name.contains("rust") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let contract: Contract = serde_saphyr::from_str(&text).with_context(|| name)?;
        for (path, item) in contract.paths {
            for method in item.keys().filter(|m| METHODS.contains(&m.as_str())) {
                out.insert((method.to_uppercase(), normal(&path)));
            }
        }
    }
    Ok(out)
}
