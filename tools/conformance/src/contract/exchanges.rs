//! Recorded exchanges against the contract's schemas: validate.py beside this file looks at each, and this makes the
//! tables of it.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const VALIDATE: &str = "tools/conformance/src/contract/validate.py";
/// Where the part of docs/contract.md that this writes begins.
pub const MARK: &str = "\n## Exchanges\n";

#[derive(Deserialize)]
struct Found {
    counts: BTreeMap<String, BTreeMap<String, usize>>,
    wrong: Vec<Wrong>,
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Wrong {
    service: String,
    operation: String,
    problem: String,
    n: usize,
    version: Option<String>,
    body: String,
}

#[derive(Deserialize)]
struct Exception {
    service: String,
    operation: String,
    why: String,
    n: usize,
}

/// Validates what stands in a directory of records. Answers the part of the report.
pub fn validate(python: &Path, data: &Path, records: &Path, facts: &str) -> Result<String> {
    let mut command = Command::new(python.join("bin/python"));
    command.arg(VALIDATE).arg(data);
    let mut files = 0;
    for entry in std::fs::read_dir(records).with_context(|| records.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            command.arg(path);
            files += 1;
        }
    }
    if files == 0 {
        bail!("no .jsonl in {}: nothing was recorded", records.display());
    }
    let out = command.output().context("python")?;
    if !out.status.success() {
        bail!("{}", String::from_utf8_lossy(&out.stderr));
    }
    let found: Found = serde_json::from_slice(&out.stdout)?;
    for w in &found.wrong {
        println!(
            "{:>5} {} {} [{}]\n      {}\n      {}",
            w.n,
            w.service,
            w.operation,
            w.version.as_deref().unwrap_or("-"),
            w.problem,
            w.body
        );
    }
    Ok(markdown(&found, facts))
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn markdown(found: &Found, facts: &str) -> String {
    let mut out = format!(
        "{MARK}\nEvery exchange of the test suites and of Tempest on the fake hypervisor that was put on record, held against the\n\
         schema of its operation at its microversion: `cargo xtask contract --validate DIR`, where DIR is what\n\
         `HANEUL_TEST_RECORD=DIR cargo xtask conformance` (and the tests of the fake lane) wrote. {facts}.\n\n\
         Refused: answers from 400 on, for which the files have no schema. Not described: operations that are not in the files\n\
         (version documents, extensions), and answers without a body or a schema. Excepted: the file errs; see below.\n\n\
         | Service | Exchanges | Valid | Excepted | Wrong | Refused | Not described |\n|---|---|---|---|---|---|---|\n"
    );
    for (service, counts) in &found.counts {
        let n = |name: &str| counts.get(name).copied().unwrap_or_default();
        out.push_str(&format!(
            "| {service} | {} | {} | {} | {} | {} | {} |\n",
            n("exchanges"),
            n("valid"),
            n("excepted"),
            n("wrong"),
            n("refused"),
            n("unknown") + n("no schema")
        ));
    }
    if !found.wrong.is_empty() {
        out.push_str("\n### Answers that do not validate\n\n| Service | Operation | What the schema says | Times |\n|---|---|---|---|\n");
        for w in &found.wrong {
            out.push_str(&format!(
                "| {} | {} | {} | {} |\n",
                w.service,
                cell(&w.operation),
                cell(&w.problem),
                w.n
            ));
        }
    }
    if !found.exceptions.is_empty() {
        out.push_str("\n### Where the file errs\n\n| Service | Operations | Why | Times |\n|---|---|---|---|\n");
        for x in &found.exceptions {
            out.push_str(&format!(
                "| {} | `{}` | {} | {} |\n",
                x.service,
                cell(&x.operation),
                cell(&x.why),
                x.n
            ));
        }
    }
    out
}
