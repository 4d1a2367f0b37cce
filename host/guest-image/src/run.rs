//! Programs of the host, a scratch directory that goes away, and errors that say what to do.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};

use haneul_core::{Error, Kind, Result};

/// Where programs are looked for, whatever the caller's PATH: a service often has none with sbin.
const SBIN: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An error for a file: `at("write", path)`.
pub(crate) fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |e| {
        if e.kind() == io::ErrorKind::StorageFull {
            return Error::new(
                Kind::InsufficientStorage,
                format!(
                    "The disk is full at {}. Building the guest image needs about 400 MB; free some space and try again.",
                    path.display()
                ),
            );
        }
        Error::new(
            Kind::Internal,
            format!(
                "Cannot {what} {}: {e}. Check the directory's permissions and free space.",
                path.display()
            ),
        )
    }
}

/// Something in a package is not as expected.
pub(crate) fn unexpected(what: impl std::fmt::Display) -> Error {
    Error::new(
        Kind::Internal,
        format!(
            "The guest image cannot be built from these Debian packages: {what}. It is made for Debian 12 (bookworm)."
        ),
    )
}

pub(crate) struct Run {
    command: Command,
    program: String,
    stdin: Option<Vec<u8>>,
}

/// A program with a plain environment.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Run {
    let program = program.as_ref();
    let mut command = Command::new(find(program).unwrap_or_else(|| PathBuf::from(program)));
    command
        .env("LC_ALL", "C")
        .env("PATH", SBIN)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null());
    Run {
        command,
        program: program.to_string_lossy().into_owned(),
        stdin: None,
    }
}

impl Run {
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }
    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }
    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }
    pub(crate) fn stdin(mut self, data: Vec<u8>) -> Self {
        self.stdin = Some(data);
        self
    }

    /// Runs it to its end and returns what it wrote to stdout.
    pub(crate) fn run(mut self) -> Result<Vec<u8>> {
        let program = self.program;
        let failed = |e: io::Error| {
            Error::new(
                Kind::Internal,
                format!("Cannot run {program}: {e}. Check that it is installed and may be run."),
            )
        };
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if self.stdin.is_some() {
            self.command.stdin(Stdio::piped());
        }
        let mut child = self.command.spawn().map_err(failed)?;
        let feeder = self.stdin.and_then(|data| {
            let mut pipe = child.stdin.take()?;
            // In a thread of its own: the program may fill its stdout before it has read everything.
            Some(std::thread::spawn(move || pipe.write_all(&data)))
        });
        let output = child.wait_with_output().map_err(failed)?;
        if let Some(feeder) = feeder {
            // A program that stopped reading also says why by its status.
            let _ = feeder.join();
        }
        if output.status.success() {
            return Ok(output.stdout);
        }
        let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if said.is_empty() {
            said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        }
        let tail: Vec<&str> = said.lines().rev().take(4).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        Err(Error::new(
            Kind::Internal,
            format!("{program} failed ({}): {}", output.status, tail.join(" | ")),
        ))
    }
}

fn find(program: &OsStr) -> Option<PathBuf> {
    if Path::new(program).is_absolute() {
        return Some(PathBuf::from(program));
    }
    let mut dirs: OsString = env::var_os("PATH").unwrap_or_default();
    dirs.push(":");
    dirs.push(SBIN);
    env::split_paths(&dirs)
        .filter(|d| d.is_absolute())
        .map(|d| d.join(program))
        .find(|p| p.is_file())
}

/// Refuses with the name of the package to install when a program is missing.
pub(crate) fn require(program: &str, package: &str) -> Result<()> {
    if find(OsStr::new(program)).is_some() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Unavailable,
        format!("Building the guest image needs {program}, which is not installed. Run: apt-get install {package}"),
    ))
}

/// Whether we may give files to any owner, by asking who owns our own process entry.
pub(crate) fn is_root() -> Result<bool> {
    let me = Path::new("/proc/self");
    Ok(fs::metadata(me).map_err(at("read", me))?.uid() == 0)
}

/// A directory inside the work directory that is removed with everything in it at the end, also after an error.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Also removes what a killed build left; the caller holds the lock.
    pub(crate) fn create(work: &Path) -> Result<Self> {
        let path = work.join("building");
        if path.exists() {
            fs::remove_dir_all(&path).map_err(at("remove", &path))?;
        }
        fs::create_dir(&path).map_err(at("create", &path))?;
        Ok(Self(path))
    }
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nobody to tell; the next build removes it first.
        let _ = fs::remove_dir_all(&self.0);
    }
}
