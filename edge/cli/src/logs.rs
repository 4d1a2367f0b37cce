//! `haneul logs`: the end of the log files, and what is added to them.

use crate::args::{LogsOptions, Process};
use crate::supervisor::log_dir;
use crate::{Result, Trouble, failed, systemd, ui};
use haneul_core::config::Config;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The command.
pub fn logs(config: &Config, options: &LogsOptions) -> Result<()> {
    let wanted: Vec<Process> = options.process.map_or(Process::ALL.to_vec(), |p| vec![p]);
    if systemd::manages(config) {
        return systemd::journal(&wanted, options);
    }
    let files: Vec<(Process, PathBuf)> = wanted
        .iter()
        .map(|p| (*p, log_dir(config).join(format!("{}.log", p.name()))))
        .filter(|(_, f)| f.exists())
        .collect();
    if files.is_empty() {
        return Err(failed(format!(
            "there are no logs in {}: nothing has been started here yet",
            log_dir(config).display()
        )));
    }
    let many = files.len() > 1;
    let mut at = Vec::new();
    for (process, file) in &files {
        // Where to go on is taken before the past is read: rather a line twice than a line lost.
        at.push(std::fs::metadata(file).at(file)?.len());
        if many {
            ui::line(format_args!("==> {} <==", process.name()));
        }
        if !ui::raw(tail(file, options.lines).as_bytes()) {
            return Ok(());
        }
    }
    if options.follow {
        follow(&files, at, many)?;
    }
    Ok(())
}

fn follow(files: &[(Process, PathBuf)], mut at: Vec<u64>, many: bool) -> Result<()> {
    let mut last = None;
    loop {
        for ((process, file), at) in files.iter().zip(&mut at) {
            let length = std::fs::metadata(file).map_or(0, |m| m.len());
            if length < *at {
                // The supervisor cut it.
                *at = 0;
            }
            if length == *at {
                continue;
            }
            let mut f = File::open(file).at(file)?;
            f.seek(SeekFrom::Start(*at)).at(file)?;
            let mut new = Vec::new();
            f.take(1 << 20).read_to_end(&mut new).at(file)?;
            // Whole lines only, so that two processes do not share one.
            let end = new.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
            new.truncate(end);
            if new.is_empty() {
                continue;
            }
            *at += new.len() as u64;
            if many && last != Some(*process) {
                ui::line(format_args!("==> {} <==", process.name()));
                last = Some(*process);
            }
            if !ui::raw(&new) {
                return Ok(());
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The last lines of a file, reading no more than its last MiB; empty when there is none.
pub fn tail(file: &Path, lines: usize) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut f = File::open(file)?;
        let length = f.metadata()?.len();
        f.seek(SeekFrom::Start(length.saturating_sub(1 << 20)))?;
        let mut bytes = Vec::new();
        f.take(1 << 20).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    let mut out = all.get(all.len().saturating_sub(lines)..).unwrap_or(&[]).join("\n");
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_end() {
        let file = std::env::temp_dir().join(format!("haneul-tail-{}", haneul_core::id::hex()));
        std::fs::write(&file, "a\nb\nc\n").unwrap();
        assert_eq!(tail(&file, 2), "b\nc\n");
        assert_eq!(tail(&file, 9), "a\nb\nc\n");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(tail(&file, 2), "");
    }
}
