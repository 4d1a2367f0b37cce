//! `cargo xtask dist`: a tarball for machines without cargo.

use crate::example;
use crate::shell::{Cmd, root, say, target_dir};
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[derive(clap::Args)]
pub struct Options {
    /// With the profile that the tests use, which is built already
    #[arg(long)]
    dev: bool,
}

/// The command.
pub fn dist(options: &Options) -> Result<()> {
    let (profile, built) = if options.dev {
        ("dev", "debug")
    } else {
        ("release", "release")
    };
    Cmd::new("cargo")
        .args(["build", "--profile", profile, "-p", "haneul"])
        .run()?;
    let name = format!("haneul-{}-x86_64", env!("CARGO_PKG_VERSION"));
    let dir = root().join("dist");
    let stage = dir.join(&name);
    let _ = fs::remove_dir_all(&stage);
    fs::create_dir_all(stage.join("systemd"))?;
    fs::copy(target_dir().join(built).join("haneul"), stage.join("haneul")).context("the binary")?;
    for unit in ["haneul-serve.service", "haneul-agent.service", "haneul-lease.service"] {
        fs::copy(
            root().join("packaging/systemd").join(unit),
            stage.join("systemd").join(unit),
        )
        .with_context(|| unit.to_owned())?;
    }
    fs::copy(root().join("packaging/install.sh"), stage.join("install.sh")).context("install.sh")?;
    fs::set_permissions(stage.join("install.sh"), PermissionsExt::from_mode(0o755))?;
    fs::write(stage.join("haneul.toml"), example::example()?)?;
    fs::write(
        stage.join("README.md"),
        readme(&fs::read_to_string(root().join("README.md"))?),
    )?;
    let tarball = dir.join(format!("{name}.tar.gz"));
    // Sorted, with no owner and the commit's time: the same sources give the same names and dates.
    let time = Cmd::new("git")
        .args(["log", "-1", "--format=@%ct"])
        .read()
        .unwrap_or_else(|_| "@0".into());
    Cmd::new("tar")
        .args([
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            &format!("--mtime={}", time.trim()),
            "-czf",
        ])
        .arg(&tarball)
        .arg("-C")
        .arg(&dir)
        .arg(&name)
        .run()?;
    say(format!(
        "{} ({} MiB)",
        tarball.display(),
        fs::metadata(&tarball)?.len() >> 20
    ));
    Ok(())
}

/// The parts of the README that matter to somebody who has the tarball.
fn readme(whole: &str) -> String {
    let wanted = ["# Haneul", "## From the tarball", "## What it needs", "## Day by day"];
    let mut out = String::new();
    let mut take = false;
    for line in whole.lines() {
        if line.starts_with('#') {
            take = wanted.contains(&line);
        }
        if take {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_whole_sections() {
        let text = "# Haneul\na\n## Other\nb\n## What it needs\nc\n";
        assert_eq!(readme(text), "# Haneul\na\n## What it needs\nc\n");
    }
}
