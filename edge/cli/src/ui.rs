//! What a person sees. The only place of this crate that writes to the terminal.
//!
//! On a terminal a step shows what it is doing on a line that is replaced by its outcome; in a pipe or a
//! log every step is one line, written when it is over.

use crate::proc::monotonic;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// A line on standard output. A closed pipe (`haneul logs | head`) is no error of ours.
pub fn line(text: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// Bytes on standard output, as they are. False when nobody reads any more.
pub fn raw(bytes: &[u8]) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).is_ok()
}

/// A line on standard error.
pub fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Pretty JSON on standard output.
pub fn json(value: &serde_json::Value) {
    line(format_args!("{value:#}"));
}

/// Asks a question that is answered by yes or no. `None` when no person is there to answer.
pub fn ask(question: &str) -> Option<bool> {
    if !std::io::stdin().is_terminal() {
        return None;
    }
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "{question} [Y/n] ");
    let _ = err.flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).ok()?;
    Some(matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes"))
}

/// One step of a longer command.
pub struct Step {
    name: String,
    begun: Duration,
    live: bool,
    over: bool,
}

impl Drop for Step {
    /// A step that an error left: the error itself is printed by the caller.
    fn drop(&mut self) {
        if !self.over {
            self.end("FAIL", "see below");
        }
    }
}

impl Step {
    /// Begins a step.
    pub fn begin(name: impl Into<String>) -> Self {
        let step = Self {
            name: name.into(),
            begun: monotonic(),
            live: std::io::stdout().is_terminal(),
            over: false,
        };
        step.doing("...");
        step
    }

    /// What the step is doing just now; shown on a terminal only.
    pub fn doing(&self, what: impl Display) {
        if self.live {
            let what: String = format!("     {}: {what}", self.name).chars().take(110).collect();
            let _ = raw(format!("\r\x1b[2K{what}").as_bytes());
        }
    }

    /// Ends the step.
    pub fn done(mut self, outcome: impl Display) {
        self.end(" ok ", outcome);
    }

    /// Ends the step with something to look at.
    pub fn warn(mut self, outcome: impl Display) {
        self.end("warn", outcome);
    }

    /// Ends the step; the caller returns the error, which says more.
    pub fn fail(mut self, outcome: impl Display) {
        self.end("FAIL", outcome);
    }

    fn end(&mut self, mark: &str, outcome: impl Display) {
        self.over = true;
        if self.live {
            let _ = raw(b"\r\x1b[2K");
        }
        let took = (monotonic() - self.begun).as_secs_f64();
        line(format_args!("[{mark}] {}: {outcome} ({took:.1} s)", self.name));
    }
}

/// A table with a header; columns are as wide as they need to be.
pub fn table(header: &[&str], rows: &[Vec<String>]) {
    let mut width: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (w, cell) in width.iter_mut().zip(row) {
            *w = (*w).max(cell.chars().count());
        }
    }
    let print = |cells: &mut dyn Iterator<Item = &str>| {
        let text: Vec<String> = cells.zip(&width).map(|(c, w)| format!("{c:<w$}")).collect();
        line(text.join("  ").trim_end());
    };
    print(&mut header.iter().copied());
    for row in rows {
        print(&mut row.iter().map(String::as_str));
    }
}

/// Bytes for people: `18.2 MiB`.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}
