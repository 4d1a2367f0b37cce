//! Running programs.

use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A line for the person.
pub fn say(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// The root of the repository: where cargo runs us from, which is another place than where we were built when a build
/// directory came along with a copy.
pub fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.ancestors().nth(2).unwrap_or(&here).to_owned()
}

/// Where cargo builds.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |d| root().join(d))
}

/// Whether we are root.
pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .any(|l| l.strip_prefix("Uid:").and_then(|u| u.split_whitespace().nth(1)) == Some("0"))
}

/// The path of a program.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs.map(|d| d.join(program)).find(|p| p.is_file())
}

/// A program that needs root: by sudo when we are not.
pub fn as_root(program: &Path) -> Cmd {
    if is_root() || find("sudo").is_none() {
        return Cmd::new(program);
    }
    Cmd::new("sudo").arg(program)
}

/// A command, run at the root of the repository.
pub struct Cmd {
    command: Command,
    text: String,
}

impl Cmd {
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program.as_ref());
        command.current_dir(root());
        // What cargo has told us of our own package is not the next cargo's: build scripts that look at it (ring's) would run
        // anew, and all above them be compiled again, whenever `cargo xtask` and cargo take turns.
        for (name, _) in std::env::vars_os() {
            let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
            if of_package.iter().any(|p| name.to_string_lossy().starts_with(p)) {
                command.env_remove(name);
            }
        }
        Self {
            text: program.as_ref().to_string_lossy().into_owned(),
            command,
        }
    }
    pub fn arg(self, arg: impl AsRef<OsStr>) -> Self {
        self.args([arg])
    }
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        for arg in args {
            self.text.push(' ');
            self.text.push_str(&arg.as_ref().to_string_lossy());
            self.command.arg(arg);
        }
        self
    }
    pub fn env(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.command.env(key, value.into());
        self
    }
    /// Runs it; its failure is ours.
    pub fn run(mut self) -> Result<()> {
        let status = self
            .command
            .status()
            .with_context(|| format!("cannot run {}", self.text))?;
        if !status.success() {
            bail!("{} failed ({status})", self.text);
        }
        Ok(())
    }
    /// Runs it and gives what it wrote to standard output.
    pub fn read(mut self) -> Result<String> {
        self.command.stderr(std::process::Stdio::inherit());
        let output = self
            .command
            .output()
            .with_context(|| format!("cannot run {}", self.text))?;
        if !output.status.success() {
            bail!("{} failed ({})", self.text, output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
    /// Runs it; standard output goes to the person and comes back.
    pub fn tee(mut self) -> Result<(bool, String)> {
        use std::io::{BufRead, BufReader};
        self.command.stdout(std::process::Stdio::piped());
        let mut child = self
            .command
            .spawn()
            .with_context(|| format!("cannot run {}", self.text))?;
        let mut text = String::new();
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).split(b'\n') {
                let line = line?;
                let line = String::from_utf8_lossy(&line);
                say(&line);
                text.push_str(&line);
                text.push('\n');
            }
        }
        Ok((child.wait()?.success(), text))
    }
    /// Becomes it.
    pub fn exec(mut self) -> Result<()> {
        use std::os::unix::process::CommandExt;
        let e = self.command.exec();
        Err(e).with_context(|| format!("cannot run {}", self.text))
    }
}

/// All files of the repository that git knows or would add, with this ending, relative to the root.
pub fn files(ending: &str) -> Result<Vec<PathBuf>> {
    let text = Cmd::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .read()?;
    let mut files: Vec<PathBuf> = text
        .lines()
        .filter(|l| l.ends_with(ending))
        .map(PathBuf::from)
        .collect();
    files.retain(|f| root().join(f).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}
