//! Lists in docs/ that are made from the code and compared in CI, so that nobody has to keep them.

use crate::shell::{files, root, say, target_dir};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

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
    let lists = [(FAULTS, Some(faults()?), "faults"), (ROUTES, routes()?, "routes")];
    for (file, should, command) in lists {
        let Some(should) = should else { continue };
        let is = std::fs::read_to_string(root().join(file)).unwrap_or_default();
        if is == should {
            continue;
        }
        let (a, b): (BTreeSet<&str>, BTreeSet<&str>) = (is.lines().collect(), should.lines().collect());
        let new: Vec<&str> = b.difference(&a).copied().take(3).collect();
        let gone: Vec<&str> = a.difference(&b).copied().take(3).collect();
        wrong.push(format!(
            "{file} is not what the code says (new: {new:?}, gone: {gone:?}): run `cargo xtask {command}`"
        ));
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
        let text = std::fs::read_to_string(root().join(&file)).with_context(|| file.display().to_string())?;
        for name in fault_names(&text) {
            points.entry(name).or_default().insert(file.display().to_string());
        }
    }
    let mut out =
        String::from("# Fault points in the code, and the files that pass them. Written by `cargo xtask faults`.\n");
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

/// The route tables, as a running `serve` has them (they are values, with file and line of each entry). `None`
/// as long as nobody has committed a list and there is no binary to ask.
fn routes() -> Result<Option<String>> {
    let committed = root().join(ROUTES).exists();
    match ask_for_routes() {
        Ok(lines) => Ok(Some(format!(
            "# Path, method, handler, policy rule, microversions, source. Written by `cargo xtask routes`.\n{lines}"
        ))),
        Err(e) if committed => Err(e),
        Err(_) => Ok(None),
    }
}

/// Starts `serve` in a directory of its own, in a lab, asks it and ends it.
fn ask_for_routes() -> Result<String> {
    crate::compile(&["haneul"])?;
    let haneul = target_dir().join("debug/haneul");
    let dir = std::env::temp_dir().join(format!("haneul-routes-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let free = || -> Result<String> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string()) };
    let mut options = vec!["--state-dir".to_owned(), dir.display().to_string()];
    for set in [
        "lab=true".to_owned(),
        "identity.bcrypt_rounds=4".to_owned(),
        format!("api.listen={}", free()?),
        format!("api.metrics_listen={}", free()?),
    ] {
        options.extend(["--set".to_owned(), set]);
    }
    let log = std::fs::File::create(dir.join("serve.log"))?;
    let mut serve = Command::new(&haneul)
        .arg("serve")
        .args(&options)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let mut answer = Err(anyhow!("serve did not come up"));
    for _ in 0..200 {
        std::thread::sleep(Duration::from_millis(50));
        let asked = Command::new(&haneul).arg("routes").args(&options).output()?;
        let text = String::from_utf8_lossy(&asked.stdout).into_owned();
        if asked.status.success() && !text.is_empty() {
            answer = Ok(text);
            break;
        }
        if serve.try_wait()?.is_some() {
            break;
        }
    }
    let _ = serve.kill();
    let _ = serve.wait();
    let log = std::fs::read_to_string(dir.join("serve.log")).unwrap_or_default();
    let _ = std::fs::remove_dir_all(&dir);
    answer.with_context(|| format!("asking `haneul serve` for its routes:\n{log}"))
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
