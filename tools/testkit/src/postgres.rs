//! A PostgreSQL of a test's own: in a temporary directory, as user postgres, on a free loopback port and a Unix
//! socket, with C collation (architecture 3), gone when the value is dropped.

use crate::ports::free_port;
use std::fs::{self, File};
use std::io::{Error, Result};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// A running server.
pub struct Postgres {
    dir: PathBuf,
    bin: PathBuf,
    port: u16,
    server: Child,
    /// Whether its commits reach the disk.
    durable: bool,
    /// Who it runs as, when we are root (it refuses to be root).
    account: Option<(u32, u32)>,
}

/// Where Debian puts the programs; the newest version that is installed.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").is_file())
        .collect();
    found.sort();
    found.pop().map(|(_, bin)| bin)
}

/// Whether [`Postgres::start`] can work here.
pub fn installed() -> bool {
    programs().is_some()
}

impl Postgres {
    /// Makes a cluster and starts it (about two seconds). `cargo xtask test-setup` installs what it needs.
    pub fn start() -> Result<Self> {
        Self::open(false)
    }

    /// The same, with commits that reach the disk: what is measured is to be what users wait for.
    pub fn start_durable() -> Result<Self> {
        Self::open(true)
    }

    fn open(durable: bool) -> Result<Self> {
        let bin = programs().ok_or_else(|| Error::other("PostgreSQL is not installed: cargo xtask test-setup"))?;
        let account = account()?;
        let dir = std::env::temp_dir().join(format!("haneul-pg-{}", haneul_core::id::hex()));
        fs::create_dir(&dir)?;
        fs::set_permissions(&dir, PermissionsExt::from_mode(0o700))?;
        if let Some((uid, gid)) = account {
            chown(&dir, Some(uid), Some(gid))?;
        }
        let started = Self::launch(&bin, &dir, account, durable);
        if started.is_err() {
            let _ = fs::remove_dir_all(&dir);
        }
        started
    }

    fn launch(bin: &Path, dir: &Path, account: Option<(u32, u32)>, durable: bool) -> Result<Self> {
        let data = dir.join("data");
        let output = command(&bin.join("initdb"), account)
            .arg("-D")
            .arg(&data)
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"])
            .output()?;
        check("initdb", &output)?;
        let log = dir.join("log");
        let mut last = Error::other("PostgreSQL did not start");
        // Somebody may have taken a port since it was found free: then with another one.
        for _ in 0..5 {
            let port = free_port();
            let mut pg = Self {
                dir: dir.to_owned(),
                bin: bin.to_owned(),
                port,
                server: server(bin, dir, port, account, durable)?,
                durable,
                account,
            };
            for _ in 0..400 {
                if pg.psql("postgres", "SELECT 1").is_ok() {
                    return Ok(pg);
                }
                if pg.server.try_wait()?.is_some() {
                    break;
                }
                sleep(Duration::from_millis(25));
            }
            last = Error::other(format!(
                "PostgreSQL did not start: {}",
                fs::read_to_string(&log).unwrap_or_default()
            ));
            pg.stop();
            // Its destructor would take the directory away, which the next try needs.
            std::mem::forget(pg);
        }
        Err(last)
    }

    /// URL of a database of this server, over TCP.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database and gives its URL.
    pub fn create_database(&self, name: &str) -> Result<String> {
        self.psql("postgres", &format!("CREATE DATABASE \"{name}\" TEMPLATE template0"))?;
        Ok(self.url(name))
    }

    /// Runs SQL and gives its rows, one per line, columns divided by `|`.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        let output = command(&self.bin.join("psql"), self.account)
            .args([
                "-X",
                "-A",
                "-t",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-d",
                database,
                "-p",
            ])
            .arg(self.port.to_string())
            .arg("-h")
            .arg(&self.dir)
            .args(["-c", sql])
            .output()?;
        check("psql", &output)
    }

    /// Ends it at once, as a power cut would; [`Drop`] cleans up.
    pub fn kill(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGQUIT);
        let _ = self.server.wait();
    }

    /// Starts it again after a [`Postgres::kill`], at the same address and with what it had; it recovers by itself.
    pub fn restart(&mut self) -> Result<()> {
        for _ in 0..400 {
            self.server = server(&self.bin, &self.dir, self.port, self.account, self.durable)?;
            while self.server.try_wait()?.is_none() {
                if self.psql("postgres", "SELECT 1").is_ok() {
                    return Ok(());
                }
                sleep(Duration::from_millis(10));
            }
            // A process of the one before may have been at its end still.
            sleep(Duration::from_millis(25));
        }
        Err(Error::other(format!(
            "PostgreSQL did not start again: {}",
            fs::read_to_string(self.dir.join("log")).unwrap_or_default()
        )))
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        if let Ok(pid) = i32::try_from(self.server.id()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
        }
    }

    fn stop(&mut self) {
        if let Ok(Some(_)) = self.server.try_wait() {
            return;
        }
        // INT is the fast shutdown: it cuts connections and ends its children.
        self.signal(nix::sys::signal::Signal::SIGINT);
        for _ in 0..400 {
            if !matches!(self.server.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(10));
        }
        self.kill();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The user postgres, when we are root.
fn account() -> Result<Option<(u32, u32)>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let user = nix::unistd::User::from_name("postgres")?;
    let user = user.ok_or_else(|| Error::other("there is no user postgres: cargo xtask test-setup"))?;
    Ok(Some((user.uid.as_raw(), user.gid.as_raw())))
}

fn server(bin: &Path, dir: &Path, port: u16, account: Option<(u32, u32)>, durable: bool) -> Result<Child> {
    let out = File::create(dir.join("log"))?;
    let mut server = command(&bin.join("postgres"), account);
    server
        .arg("-D")
        .arg(dir.join("data"))
        .stdout(out.try_clone()?)
        .stderr(out);
    for set in [
        format!("port={port}").as_str(),
        format!("unix_socket_directories={}", dir.display()).as_str(),
        "listen_addresses=127.0.0.1",
        // Tests are about what happens, not about what a power cut leaves of this server.
        if durable { "fsync=on" } else { "fsync=off" },
        "shared_buffers=64MB",
        "max_connections=200",
    ] {
        server.args(["-c", set]);
    }
    server.spawn()
}

fn command(program: &Path, account: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    if let Some((uid, gid)) = account {
        command.uid(uid).gid(gid);
    }
    command
}

fn check(what: &str, output: &Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    }
    Err(Error::other(format!(
        "{what}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_collates_by_bytes_and_leaves_nothing() {
        if !installed() {
            eprintln!("SKIPPED: PostgreSQL is not installed");
            return;
        }
        let pg = Postgres::start().unwrap();
        pg.create_database("t").unwrap();
        let order = pg
            .psql(
                "t",
                "SELECT string_agg(x, '' ORDER BY x) FROM (VALUES ('b'), ('B'), ('a')) v(x)",
            )
            .unwrap();
        assert_eq!(order, "Bab");
        let dir = pg.dir.clone();
        let pid = pg.server.id();
        drop(pg);
        assert!(!dir.exists() && !Path::new(&format!("/proc/{pid}")).exists());
    }
}
