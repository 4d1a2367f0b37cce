//! Tempest under stestr, in a directory of its own.

use crate::Options;
use crate::results::Results;
use crate::target::Target;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::{Command, Stdio};

pub struct Suite {
    pub dir: PathBuf,
    python: PathBuf,
}

impl Suite {
    /// Writes tempest.conf and .stestr.conf.
    pub fn new(options: &Options, target: &Target) -> Result<Self> {
        let dir = target.cloud.dir.join("tempest");
        std::fs::create_dir_all(dir.join("lock"))?;
        let python = options.python.join("bin");
        let site = Command::new(python.join("python"))
            .args([
                "-c",
                "import os, tempest; print(os.path.dirname(os.path.dirname(tempest.__file__)))",
            ])
            .output()
            .context("python")?;
        let site = String::from_utf8(site.stdout)?.trim().to_owned();
        if site.is_empty() {
            bail!("Tempest is not in {}", options.python.display());
        }
        std::fs::write(dir.join("tempest.conf"), target.tempest_conf(&dir, options.real))?;
        // One class stays in one worker, as Tempest wants it.
        let stestr =
            format!("[DEFAULT]\ntest_path={site}/tempest/test_discover\ntop_dir={site}\ngroup_regex=([^\\.]*\\.)*\n");
        std::fs::write(dir.join(".stestr.conf"), stestr)?;
        Ok(Self { dir, python })
    }

    /// Runs what the expression finds, so many at a time.
    pub fn run(&self, regex: &str, workers: u32) -> Result<Results> {
        let log = self.dir.join("stestr.log");
        let file = std::fs::File::create(&log)?;
        // Its exit code only says that a test failed.
        Command::new(self.python.join("stestr"))
            .args(["run", "--concurrency", &workers.to_string(), regex])
            .current_dir(&self.dir)
            .env("TEMPEST_CONFIG_DIR", &self.dir)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .status()
            .context("stestr")?;
        Ok(Results::parse(&String::from_utf8_lossy(&std::fs::read(&log)?)))
    }

    /// The end of what stestr said.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("stestr.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    pub fn clean(&self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
