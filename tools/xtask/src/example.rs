//! The example configuration: every key with its meaning and default, made from base/core's source and from
//! the defaults themselves, so that it cannot be wrong.

use anyhow::{Context, Result};
use haneul_core::config::Config;
use toml::{Table, Value};

const SOURCE: &str = include_str!("../../../base/core/src/config.rs");

/// The text of haneul.toml, with every key as a comment.
pub fn example() -> Result<String> {
    let defaults = Table::try_from(Config::default())?;
    let mut out = String::from(
        "# Configuration of Haneul. Every key is optional; what stands here in comments is the default.\n# `HANEUL_SECTION__KEY=value` in the environment and `--set section.key=value` override it.\n",
    );
    let top = fields(SOURCE, "pub struct Config {").context("struct Config")?;
    for field in top
        .iter()
        .filter(|f| !defaults.get(&f.name).is_some_and(Value::is_table))
    {
        out.push_str(&entry(field, defaults.get(&field.name)));
    }
    for field in top
        .iter()
        .filter(|f| defaults.get(&f.name).is_some_and(Value::is_table))
    {
        let section = defaults.get(&field.name).and_then(Value::as_table).context("section")?;
        out.push_str(&format!("\n[{}]\n", field.name));
        for f in fields(SOURCE, &format!("    {} {{", field.kind)).with_context(|| format!("section {}", field.kind))? {
            out.push_str(&entry(&f, section.get(&f.name)));
        }
    }
    Ok(out)
}

struct Field {
    name: String,
    kind: String,
    doc: Vec<String>,
}

/// The fields that follow `head` in the source, up to the brace that closes it.
fn fields(source: &str, head: &str) -> Option<Vec<Field>> {
    let body = source.split_once(&format!("{head}\n"))?.1;
    let mut out = Vec::new();
    let mut doc = Vec::new();
    for line in body.lines().map(str::trim).take_while(|l| !l.starts_with('}')) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push(text.trim().to_owned());
        } else if let Some((name, kind)) = line
            .trim_start_matches("pub ")
            .split_once(':')
            .filter(|(n, _)| !n.contains(['(', '#', ' ']))
        {
            let kind = kind.split(['=', ',']).next().unwrap_or_default().trim().to_owned();
            out.push(Field {
                name: name.to_owned(),
                kind,
                doc: std::mem::take(&mut doc),
            });
        }
    }
    Some(out)
}

fn entry(field: &Field, default: Option<&Value>) -> String {
    let mut out = String::new();
    for line in &field.doc {
        out.push_str(&format!("# {line}\n"));
    }
    match default {
        Some(v) => out.push_str(&format!("#{} = {v}\n", field.name)),
        None => out.push_str(&format!("#{} = \"\"\n", field.name)),
    }
    out
}

/// The example with the comment signs of the keys taken away must be the default again.
#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_key_is_there_with_its_default() {
        let text = example().unwrap();
        let mut keys: BTreeMap<String, usize> = BTreeMap::new();
        let plain: String = text
            .lines()
            .map(|l| match l.strip_prefix('#') {
                Some(key) if !key.starts_with(' ') => format!("{key}\n"),
                _ => format!("{l}\n"),
            })
            .collect();
        let table: Table = plain.parse().unwrap_or_else(|e| panic!("{e}\n{plain}"));
        let defaults = Table::try_from(Config::default()).unwrap();
        for (key, value) in &defaults {
            match (value, table.get(key)) {
                (Value::Table(section), Some(Value::Table(shown))) => {
                    for (k, v) in section {
                        assert_eq!(shown.get(k), Some(v), "{key}.{k}");
                        *keys.entry(key.clone()).or_default() += 1;
                    }
                }
                (v, shown) => assert_eq!(shown, Some(v), "{key}"),
            }
        }
        assert!(keys.len() >= 8, "{keys:?}");
        assert!(
            text.contains("#public_url = \"\""),
            "keys without a default are there too"
        );
    }
}
