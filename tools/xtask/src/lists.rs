//! Lists in docs/ that are made from the code and compared in CI, so that nobody has to keep them.

use crate::shell::{Cmd, files, root, say};
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const FAULTS: &str = "docs/fault-points.txt";
const ROUTES: &str = "docs/routes.txt";

/// `cargo xtask faults`
pub fn write_faults() -> Result<()> {
    let text = faults()?;
    std::fs::create_dir_all(root().join("docs"))?;
    std::fs::write(root().join(FAULTS), &text)?;
    say(format!(
        "{FAULTS}: {} points",
        text.lines().filter(|l| !l.starts_with('#')).count()
    ));
    Ok(())
}

/// `cargo xtask routes`
pub fn write_routes() -> Result<()> {
    match routes()? {
        Some(text) => {
            std::fs::write(root().join(ROUTES), &text)?;
            say(format!(
                "{ROUTES}: {} routes",
                text.lines().filter(|l| !l.starts_with('#')).count()
            ));
            Ok(())
        }
        None => bail!("`haneul routes` gives no routes"),
    }
}

/// Says which lists are not what the code says.
pub fn compare(wrong: &mut Vec<String>) -> Result<()> {
    let lists = [
        (FAULTS, Some(faults()?), "faults"),
        (ROUTES, routes()?, "routes"),
    ];
    for (file, should, command) in lists {
        let Some(should) = should else { continue };
        let is = std::fs::read_to_string(root().join(file)).unwrap_or_default();
        if is == should {
            continue;
        }
        let (a, b): (BTreeSet<&str>, BTreeSet<&str>) =
            (is.lines().collect(), should.lines().collect());
        let new: Vec<&str> = b.difference(&a).copied().take(3).collect();
        let gone: Vec<&str> = a.difference(&b).copied().take(3).collect();
        wrong.push(format!("{file} is not what the code says (new: {new:?}, gone: {gone:?}): run `cargo xtask {command}`"));
    }
    Ok(())
}

/// Every `fault_point!("name")` outside tests, with the files that pass it.
fn faults() -> Result<String> {
    let mut points: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files(".rs")? {
        let tests = file.components().any(|c| c.as_os_str() == "tests");
        if tests || file.starts_with("tools") || file == Path::new("base/core/src/fault.rs") {
            continue;
        }
        let text = std::fs::read_to_string(root().join(&file))
            .with_context(|| file.display().to_string())?;
        for name in fault_names(&text) {
            points
                .entry(name)
                .or_default()
                .insert(file.display().to_string());
        }
    }
    let mut out = String::from(
        "# Fault points in the code, and the files that pass them. Written by `cargo xtask faults`.\n",
    );
    for (name, files) in points {
        let files: Vec<String> = files.into_iter().collect();
        out.push_str(&format!("{name} {}\n", files.join(" ")));
    }
    Ok(out)
}

/// The names in one source; the macro's argument may stand on the next line. Comments do not count.
fn fault_names(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .map(|l| {
            if l.trim_start().starts_with("//") {
                "\n".to_owned()
            } else {
                format!("{l}\n")
            }
        })
        .collect();
    code.split("fault_point!(")
        .skip(1)
        .filter_map(|rest| {
            rest.trim_start()
                .strip_prefix('"')?
                .split_once('"')
                .map(|(name, _)| name.to_owned())
        })
        .collect()
}

/// The route tables, as the binary itself has them (they are values, with file and line of each entry). `None`
/// as long as it has none and nobody has committed a list.
fn routes() -> Result<Option<String>> {
    let (good, text) = Cmd::new("cargo")
        .args(["run", "--quiet", "-p", "haneul", "--", "routes"])
        .output()?;
    match (
        good && !text.trim().is_empty(),
        root().join(ROUTES).exists(),
    ) {
        (true, _) => Ok(Some(text)),
        (false, false) => Ok(None),
        (false, true) => bail!("`haneul routes` gives no routes, but there is a {ROUTES}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_points() {
        let text = "fault_point!(\"a.b\");\n// fault_point!(\"no\")\nhaneul_core::fault_point!(\n    \"c\",\n    Error::x());\nfault_point!(name)";
        assert_eq!(fault_names(text), ["a.b", "c"]);
    }
}
