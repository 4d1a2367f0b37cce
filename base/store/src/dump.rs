//! The whole database as lines of text, the same for both kinds: for backups, and to move from one kind to the other.
//!
//! First a header (version, migrations), then for each table its columns and its rows, then the number of rows. Every
//! row is there as of one instant. Columns are known by name and type only, so that a newer release reads what an older
//! one wrote: it makes the older schema, fills it, and migrates.

use crate::db::{Migration, STORE};
use crate::tx::Tx;
use crate::{Actor, Db, OpenOptions, Row, V};
use haneul_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::BufRead;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Version of the format.
const FORMAT: u32 = 1;
/// Rows that are read, and written, at a time.
const PAGE: usize = 2000;
/// A table that stands in a database while it is being filled.
const FILLING: &str = "store_filling";
/// Tables that say who has this database, and not what is in it.
const OURS: [&str; 7] = [
    "schema_migration",
    "schema_release",
    "process",
    "process_claim",
    "process_writer",
    "process_turn",
    FILLING,
];
/// A table of a database that was moved, with where to.
const MOVED: &str = "store_moved";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Header {
        format: u32,
        release: String,
        migrations: Vec<(String, i64)>,
    },
    Table(Table),
    Row(Vec<Value>),
    End {
        rows: u64,
    },
}

#[derive(Clone, Serialize, Deserialize)]
struct Table {
    name: String,
    columns: Vec<(String, Type)>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Type {
    Text,
    Integer,
    Float,
    /// As lower-case hex.
    Bytes,
}

impl Table {
    fn names(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(n, _)| n.as_str()).collect();
        names.join(", ")
    }
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    pub tables: u64,
    pub rows: u64,
}

impl Type {
    fn of(declared: &str) -> Result<Self> {
        match declared.to_ascii_lowercase().as_str() {
            "text" => Ok(Type::Text),
            "bigint" | "integer" => Ok(Type::Integer),
            "double precision" => Ok(Type::Float),
            "blob" | "bytea" => Ok(Type::Bytes),
            other => Err(Error::internal(format!("a column of type {other} is not known"))),
        }
    }

    fn read(self, row: &Row, i: usize) -> Result<Value> {
        Ok(match self {
            Type::Text => row.opt_str(i)?.into(),
            Type::Integer => row.opt_i64(i)?.into(),
            Type::Float => row.opt_f64(i)?.into(),
            Type::Bytes => row.opt_bytes(i)?.map(|b| hex(&b)).into(),
        })
    }

    fn value(self, v: Value) -> Result<V> {
        let wrong = |v: &Value| Error::bad_request(format!("the dump has {v} in a column of another type"));
        Ok(match (self, v) {
            (Type::Text, Value::Null) => V::NullT,
            (Type::Integer, Value::Null) => V::NullI,
            (Type::Float, Value::Null) => V::NullF,
            (Type::Bytes, Value::Null) => V::NullB,
            (Type::Text, Value::String(s)) => V::T(s),
            (Type::Integer, v) => V::I(v.as_i64().ok_or_else(|| wrong(&v))?),
            (Type::Float, v) => V::F(v.as_f64().ok_or_else(|| wrong(&v))?),
            (Type::Bytes, Value::String(s)) => V::B(unhex(&s).ok_or_else(|| wrong(&Value::String(s)))?),
            (_, v) => return Err(wrong(&v)),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks_exact(2);
    digits.remainder().is_empty().then(|| {
        digits
            .map(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok())
            .collect()
    })?
}

/// Tables with their columns; those with numbers that the database counts itself, with the column.
async fn tables(tx: &mut Tx) -> Result<(Vec<Table>, Vec<(String, String)>)> {
    let rows = if tx.is_postgres() {
        tx.rows(
            "SELECT table_name::TEXT, column_name::TEXT, data_type::TEXT, CASE WHEN is_identity = 'YES' THEN 1::BIGINT ELSE 0::BIGINT END
             FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
             WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' ORDER BY table_name, ordinal_position",
            &[],
        )
        .await?
    } else {
        tx.rows(
            "SELECT m.name, p.name, p.type, 0 FROM sqlite_master m JOIN pragma_table_info(m.name) p
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY m.name, p.cid",
            &[],
        )
        .await?
    };
    let (mut tables, mut counted): (Vec<Table>, Vec<(String, String)>) = (Vec::new(), Vec::new());
    for r in rows {
        let (name, column) = (r.str(0)?, r.str(1)?);
        if OURS.contains(&name.as_str()) {
            continue;
        }
        if r.i64(3)? == 1 {
            counted.push((name.clone(), column.clone()));
        }
        let column = (column, Type::of(&r.str(2)?)?);
        match tables.last_mut() {
            Some(t) if t.name == name => t.columns.push(column),
            _ => tables.push(Table {
                name,
                columns: vec![column],
            }),
        }
    }
    Ok((tables, counted))
}

fn line(out: &mut String, line: &Line) -> Result<()> {
    out.push_str(&serde_json::to_string(line)?);
    out.push('\n');
    Ok(())
}

impl Db {
    /// Sends everything in the database, as of now, in pieces that end with a line; the last line says that it is whole.
    pub async fn dump(&self, release: &str, out: mpsc::Sender<String>) -> Result<Copied> {
        let gone = |_| Error::unavailable("nobody takes the dump any more");
        let mut tx = self.read().await?;
        let migrations = tx
            .rows("SELECT owner, number FROM schema_migration ORDER BY owner, number", &[])
            .await?
            .iter()
            .map(|r| Ok((r.str(0)?, r.i64(1)?)))
            .collect::<Result<_>>()?;
        let mut text = String::new();
        let header = Line::Header {
            format: FORMAT,
            release: release.to_owned(),
            migrations,
        };
        line(&mut text, &header)?;
        let mut copied = Copied::default();
        for table in tables(&mut tx).await?.0 {
            copied.tables += 1;
            line(&mut text, &Line::Table(table.clone()))?;
            // Within one snapshot this order stands still.
            let place = if tx.is_postgres() { "ctid" } else { "rowid" };
            let mut seen = 0;
            loop {
                let query = format!(
                    "SELECT {} FROM {} ORDER BY {place} LIMIT {PAGE} OFFSET {seen}",
                    table.names(),
                    table.name
                );
                let rows = tx.rows(&query, &[]).await?;
                for row in &rows {
                    let columns = table.columns.iter().enumerate();
                    let values = columns.map(|(i, (_, t))| t.read(row, i)).collect::<Result<_>>()?;
                    line(&mut text, &Line::Row(values))?;
                }
                seen += rows.len();
                out.send(std::mem::take(&mut text)).await.map_err(gone)?;
                if rows.len() < PAGE {
                    break;
                }
            }
            copied.rows += seen as u64;
        }
        line(&mut text, &Line::End { rows: copied.rows })?;
        out.send(text).await.map_err(gone)?;
        Ok(copied)
    }

    /// Fills an empty database with what [`Db::dump`] wrote, and answers it open, with today's schema. What is cut off
    /// on the way is refused by [`Db::open`] until it is removed.
    ///
    /// # Errors
    /// Conflict when the database is not empty; bad request for a dump that is cut off, damaged or from a newer release.
    pub async fn load(options: &OpenOptions, migrations: &[Migration], input: impl BufRead) -> Result<(Db, Copied)> {
        let mut lines = input.lines().enumerate();
        let mut next = || -> Result<Option<Line>> {
            let Some((number, text)) = lines.next() else {
                return Ok(None);
            };
            let text = text.map_err(|e| Error::bad_request(format!("the dump cannot be read: {e}")))?;
            serde_json::from_str(&text)
                .map(Some)
                .map_err(|e| Error::bad_request(format!("line {} of the dump is damaged: {e}", number + 1)))
        };
        let Some(Line::Header {
            format: FORMAT,
            release,
            migrations: wanted,
        }) = next()?
        else {
            return Err(Error::bad_request(
                "this is no dump of a Haneul database, or one of a newer format",
            ));
        };
        let wanted: BTreeSet<(String, i64)> = wanted.into_iter().collect();
        let known: Vec<Migration> = STORE.iter().chain(migrations).copied().collect();
        let then: Vec<Migration> = known
            .iter()
            .filter(|m| wanted.contains(&(m.owner.to_owned(), m.number)))
            .copied()
            .collect();
        if then.len() < wanted.len() {
            return Err(Error::bad_request(format!(
                "the dump is of release {release}, which knows tables that this release does not: use that release or a newer one"
            )));
        }
        let db = Db::open_as(options, &then).await?;
        let copied = db.fill(&mut next).await?;
        drop(db);
        Ok((Db::open_as(options, &known).await?, copied))
    }

    async fn fill(&self, next: &mut impl FnMut() -> Result<Option<Line>>) -> Result<Copied> {
        let actor = Actor::system("restore");
        let (tables, counted) = self
            .write(&actor, async |tx| {
                let (tables, counted) = tables(tx).await?;
                for t in &tables {
                    let n = tx.row(&format!("SELECT COUNT(*) FROM {}", t.name), &[]).await?;
                    let n = n.map_or(Ok(0), |r| r.i64(0))?;
                    if n > 0 {
                        return Err(Error::conflict(format!(
                            "the database is not empty: {} has {n} rows. Name an empty one",
                            t.name
                        )));
                    }
                }
                tx.raw(&format!("CREATE TABLE {FILLING}(id TEXT PRIMARY KEY)")).await?;
                Ok((tables, counted))
            })
            .await?;
        let mut copied = Copied::default();
        let mut batch: Vec<Vec<V>> = Vec::new();
        let mut into: Option<Table> = None;
        loop {
            let line = next()?.ok_or_else(|| Error::bad_request("the dump is cut off: its last line is missing"))?;
            if (batch.len() >= PAGE || !matches!(line, Line::Row(_)))
                && let Some(table) = into.clone()
            {
                copied.rows += batch.len() as u64;
                self.insert(&actor, table, std::mem::take(&mut batch)).await?;
            }
            match line {
                Line::Row(values) => {
                    let table = into.as_ref().filter(|t| t.columns.len() == values.len());
                    let table = table.ok_or_else(|| Error::bad_request("the dump has a row without its table"))?;
                    let types = table.columns.iter().map(|(_, t)| t);
                    batch.push(types.zip(values).map(|(t, v)| t.value(v)).collect::<Result<_>>()?);
                }
                Line::Table(table) => {
                    // Names go into statements: only those that this release has made itself.
                    let ours = tables.iter().find(|t| t.name == table.name);
                    let fits = |c: &(String, Type)| ours.is_some_and(|t| t.columns.iter().any(|o| o.0 == c.0));
                    if !table.columns.iter().all(fits) {
                        return Err(Error::bad_request(format!(
                            "the dump has a table {} that this release does not know",
                            table.name
                        )));
                    }
                    copied.tables += 1;
                    into = Some(table);
                }
                Line::End { rows } if rows == copied.rows => break,
                Line::End { rows } => {
                    return Err(Error::bad_request(format!(
                        "the dump should have {rows} rows and has {}",
                        copied.rows
                    )));
                }
                Line::Header { .. } => return Err(Error::bad_request("the dump has two headers")),
            }
        }
        self.write(&actor, async move |tx| {
            for (table, column) in &counted {
                tx.rows(
                    &format!("SELECT setval(pg_get_serial_sequence('{table}', '{column}'), (SELECT COALESCE(MAX({column}), 1) FROM {table}))"),
                    &[],
                )
                .await?;
            }
            tx.raw(&format!("DROP TABLE {FILLING}")).await
        })
        .await?;
        Ok(copied)
    }

    async fn insert(&self, actor: &Actor, table: Table, rows: Vec<Vec<V>>) -> Result<()> {
        let places: Vec<String> = (1..=table.columns.len()).map(|i| format!("${i}")).collect();
        let statement = format!(
            "INSERT INTO {}({}) VALUES({})",
            table.name,
            table.names(),
            places.join(", ")
        );
        let rows = Arc::new(rows);
        self.write(actor, async move |tx| {
            for row in rows.iter() {
                tx.exec(&statement, row).await?;
            }
            Ok(())
        })
        .await
    }
}

impl Db {
    /// Makes this database one that [`Db::open`] refuses: its content is served from `target` now.
    pub async fn retire(&self, target: &str) -> Result<()> {
        let target = target.to_owned();
        self.write(&Actor::system("store move"), async move |tx| {
            tx.raw(&format!("CREATE TABLE {MOVED}(id TEXT PRIMARY KEY)")).await?;
            tx.exec(
                &format!("INSERT INTO {MOVED}(id) VALUES($1)"),
                &[target.as_str().into()],
            )
            .await?;
            Ok(())
        })
        .await
    }
}

/// Refuses a database whose filling did not come to its end, and one that was moved away.
pub(crate) async fn check_whole(tx: &mut Tx) -> Result<()> {
    let query = if tx.is_postgres() {
        "SELECT table_name::TEXT FROM information_schema.tables WHERE table_schema = current_schema() AND table_name IN ($1, $2)"
    } else {
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ($1, $2)"
    };
    let Some(found) = tx.row(query, &[FILLING.into(), MOVED.into()]).await? else {
        return Ok(());
    };
    if found.str(0)? == FILLING {
        return Err(Error::conflict(
            "this database was being filled by `haneul restore` or `haneul store move`, which did not come to its end: remove it and repeat that",
        ));
    }
    let target = tx.row(&format!("SELECT id FROM {MOVED}"), &[]).await?;
    Err(Error::conflict(format!(
        "this database was moved to {}: set database.url to that",
        target.map_or(Ok(String::new()), |r| r.str(0))?
    )))
}
