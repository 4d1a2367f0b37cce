//! `haneul restore` and `haneul store move`: the two commands that open the database themselves, with serve stopped.

use haneul_cli::backup::{CONTROL, DATABASE, Manifest};
use haneul_core::config::Config;
use haneul_core::durable::{make_dir, sync_dir};
use haneul_core::{Error, Result, release};
use haneul_store::{Copied, Db, OpenOptions};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

fn options(url: &str) -> OpenOptions {
    OpenOptions {
        url: url.to_owned(),
        readers: 2,
    }
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |e| Error::conflict(format!("{}: {e}", path.display()))
}

/// Puts a backup in the place of a control plane that is not there (any more). The epoch rises: what hosts have of the
/// time after the backup is older than what control says now, and what control does not know is left alone.
pub async fn restore(config: Config, from: &Path) -> Result<()> {
    let manifest = Manifest::read(from)?;
    let control = config.control_dir();
    if std::fs::read_dir(&control).is_ok_and(|mut d| d.next().is_some()) {
        return Err(Error::conflict(format!(
            "{} is not empty: a control plane is there. Move it away, or choose another state_dir",
            control.display()
        )));
    }
    // Whole or not at all: what an attempt left that was cut off is made anew.
    let half = control.with_extension("restoring");
    if half.exists() {
        std::fs::remove_dir_all(&half).map_err(at(&half))?;
    }
    make_dir(&half, 0o700)?;
    haneul_cli::backup::copy_tree(&from.join(CONTROL), &half)?;
    let url = match &config.database.url {
        Some(url) => url.clone(),
        None => format!("sqlite:{}", half.join("haneul.db").display()),
    };
    let file = from.join(DATABASE);
    let input = BufReader::new(File::open(&file).map_err(at(&file))?);
    let (db, copied) = Db::load(&options(&url), &crate::serve::migrations(), input).await?;
    let epoch = haneul_fleet::raise_epoch(&db).await?;
    drop(db);
    if control.exists() {
        std::fs::remove_dir(&control).map_err(at(&control))?;
    }
    std::fs::rename(&half, &control).map_err(at(&control))?;
    sync_dir(&config.state_dir.0)?;
    haneul_cli::supervisor::prepare(&config)?;
    haneul_cli::ui::line(format_args!(
        "The control plane of cloud {} is as it was at {}: {} rows of {} tables, epoch {epoch}.",
        manifest.cloud_id, manifest.time, copied.rows, copied.tables
    ));
    haneul_cli::ui::line(
        "Start it with `haneul up`, then look at `haneul audit`: what was made since is on the hosts and unknown here.",
    );
    Ok(())
}

/// Copies the database to another one, empty, of either kind. Ids stay; the old one refuses to be opened from then on.
pub async fn store_move(config: Config, from: &str, to: &str) -> Result<()> {
    let here = config.control_dir().join("haneul.db");
    let whole = |url: &str| match url {
        "sqlite:" => format!("sqlite:{}", here.display()),
        other => other.to_owned(),
    };
    let (from, to) = (whole(from), whole(to));
    if from != config.database_url() {
        return Err(Error::bad_request(format!(
            "{} is not the database of this cloud, which is {}",
            told(&from),
            told(&config.database_url())
        )));
    }
    let source = Db::open(&options(&from), &crate::serve::migrations()).await?;
    let serving = source.read().await?.other_processes().await?.len();
    if serving > 0 {
        return Err(Error::conflict(format!(
            "{serving} processes serve {} at this moment, here or on other machines: end them first (`haneul down --keep-guests`)",
            told(&from)
        )));
    }
    let between = config.control_dir().join("store-move.jsonl");
    let dumped = dump(&source, &between).await;
    let moved = match dumped {
        Ok(dumped) => fill(&to, &between, dumped).await,
        Err(e) => Err(e),
    };
    let _ = std::fs::remove_file(&between);
    let copied = moved?;
    source.retire(&told(&to)).await?;
    haneul_cli::supervisor::prepare(&config)?;
    haneul_cli::ui::line(format_args!(
        "Moved {} rows of {} tables to {}.",
        copied.rows,
        copied.tables,
        told(&to)
    ));
    haneul_cli::ui::line(
        "Write it as database.url into the configuration and start with `haneul up`. The old database is untouched, and refuses to be served.",
    );
    Ok(())
}

async fn dump(db: &Db, file: &Path) -> Result<Copied> {
    let mut out = BufWriter::new(private(file)?);
    let (send, mut pieces) = tokio::sync::mpsc::channel(4);
    // It takes the receiver along: when writing fails, the dump ends as well.
    let write = async move {
        while let Some(piece) = pieces.recv().await {
            out.write_all(String::as_bytes(&piece)).map_err(at(file))?;
        }
        out.flush().map_err(at(file))
    };
    let (copied, written) = tokio::join!(db.dump(release::name(), send), write);
    written?;
    copied
}

async fn fill(to: &str, file: &PathBuf, dumped: Copied) -> Result<Copied> {
    let input = BufReader::new(File::open(file).map_err(at(file))?);
    let (_, copied) = Db::load(&options(to), &crate::serve::migrations(), input).await?;
    if copied != dumped {
        return Err(Error::internal(format!("{dumped:?} became {copied:?}")));
    }
    Ok(copied)
}

fn private(file: &Path) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut how = File::options();
    how.create(true).write(true).truncate(true).mode(0o600);
    how.open(file).map_err(at(file))
}

/// A database URL without its password.
fn told(url: &str) -> String {
    match (url.find("://"), url.find('@')) {
        (Some(scheme), Some(host)) => {
            let user = url.get(scheme + 3..host).unwrap_or_default();
            let user = user.split(':').next().unwrap_or_default();
            format!("{}://{user}{}", &url[..scheme], &url[host..])
        }
        _ => url.to_owned(),
    }
}
