//! A picture of nftables tables: what should stand, the difference to what stands, and its atomic
//! application. One transaction brings the change, so that no packet sees half a rule set.

use super::ns::Ns;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

/// Tables by `family name`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    tables: BTreeMap<String, Table>,
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    chains: BTreeMap<String, Chain>,
    sets: BTreeMap<String, Set>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Chain {
    /// `type filter hook ...;` of a base chain.
    hook: Option<String>,
    rules: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Set {
    /// `set` or `map`.
    word: &'static str,
    /// `type ifname : verdict;`
    kind: String,
    /// Key and, in a map, value.
    elements: BTreeMap<String, Option<String>>,
}

impl Model {
    /// The table `family name`, made when it is not there.
    pub fn table(&mut self, name: &str) -> &mut Table {
        self.tables.entry(name.into()).or_default()
    }

    /// Commands that make everything anew, in place of whatever stands.
    pub fn full(&self) -> String {
        let mut s = String::new();
        for t in self.tables.keys() {
            // "add" first: deleting what is not there would fail the transaction.
            let _ = writeln!(s, "add table {t}\ndelete table {t}");
        }
        s + &self.diff(&Model::default())
    }

    /// Commands that lead from `old` to this.
    pub fn diff(&self, old: &Model) -> String {
        let none = Table::default();
        let mut s = String::new();
        for name in old.tables.keys().filter(|n| !self.tables.contains_key(*n)) {
            let _ = writeln!(s, "delete table {name}");
        }
        for (name, new) in &self.tables {
            let before = old.tables.get(name);
            if before.is_none() {
                let _ = writeln!(s, "add table {name}");
            }
            new.diff(name, before.unwrap_or(&none), &mut s);
        }
        s
    }

    /// Whether going from `old` to this takes anything away: then connections may have to be cut.
    pub fn takes_away(&self, old: &Model) -> bool {
        old.tables.iter().any(|(name, o)| {
            self.tables.get(name).is_none_or(|n| {
                o.chains.iter().any(|(k, c)| {
                    n.chains
                        .get(k)
                        .is_none_or(|d| !c.rules.iter().all(|r| d.rules.contains(r)))
                }) || o.sets.iter().any(|(k, c)| {
                    n.sets
                        .get(k)
                        .is_none_or(|d| c.elements.iter().any(|(key, v)| d.elements.get(key) != Some(v)))
                })
            })
        })
    }
}

impl Table {
    /// Adds a base chain.
    pub fn base(&mut self, chain: &str, hook: &str) -> &mut Self {
        self.chains.entry(chain.into()).or_default().hook = Some(hook.into());
        self
    }
    /// Appends a rule; the chain is made when it is not there.
    pub fn rule(&mut self, chain: &str, rule: impl Into<String>) -> &mut Self {
        self.chains.entry(chain.into()).or_default().rules.push(rule.into());
        self
    }
    /// Makes a chain without rules yet.
    pub fn chain(&mut self, chain: &str) -> &mut Self {
        self.chains.entry(chain.into()).or_default();
        self
    }
    /// Makes a set.
    pub fn set(&mut self, name: &str, kind: &str) -> &mut Self {
        self.sets.entry(name.into()).or_insert_with(|| Set {
            word: "set",
            kind: kind.into(),
            elements: BTreeMap::new(),
        });
        self
    }
    /// Makes a map.
    pub fn map(&mut self, name: &str, kind: &str) -> &mut Self {
        self.set(name, kind);
        if let Some(s) = self.sets.get_mut(name) {
            s.word = "map";
        }
        self
    }
    /// Adds an element to a set made before.
    pub fn element(&mut self, set: &str, key: impl Into<String>) -> &mut Self {
        if let Some(s) = self.sets.get_mut(set) {
            s.elements.insert(key.into(), None);
        }
        self
    }
    /// Adds elements to a set made before.
    pub fn elements(&mut self, set: &str, keys: impl IntoIterator<Item = String>) {
        for key in keys {
            self.element(set, key);
        }
    }
    /// Adds an element to a map made before.
    pub fn pair(&mut self, map: &str, key: impl Into<String>, value: impl Into<String>) -> &mut Self {
        if let Some(s) = self.sets.get_mut(map) {
            s.elements.insert(key.into(), Some(value.into()));
        }
        self
    }

    fn diff(&self, table: &str, old: &Table, s: &mut String) {
        // The order keeps every reference whole: containers, then what goes, then rules, then the
        // elements that jump to them, then the chains and sets nothing leads to any more.
        for (n, set) in &self.sets {
            if !old.sets.contains_key(n) {
                let _ = writeln!(s, "add {} {table} {n} {{ {} }}", set.word, set.kind);
            }
        }
        for (n, c) in &self.chains {
            if !old.chains.contains_key(n) {
                match &c.hook {
                    Some(h) => {
                        let _ = writeln!(s, "add chain {table} {n} {{ {h} }}");
                    }
                    None => {
                        let _ = writeln!(s, "add chain {table} {n}");
                    }
                }
            }
        }
        let empty = BTreeMap::new();
        for (n, o) in &old.sets {
            let new = self.sets.get(n).map_or(&empty, |x| &x.elements);
            let gone: Vec<String> = o
                .elements
                .iter()
                .filter(|(k, v)| new.get(*k) != Some(v))
                .map(show)
                .collect();
            elements(s, "delete", table, n, &gone);
        }
        for (n, c) in &self.chains {
            let before = old.chains.get(n).map(|o| &o.rules);
            if before == Some(&c.rules) {
                continue;
            }
            if before.is_some_and(|b| !b.is_empty()) {
                let _ = writeln!(s, "flush chain {table} {n}");
            }
            for r in &c.rules {
                let _ = writeln!(s, "add rule {table} {n} {r}");
            }
        }
        for (n, set) in &self.sets {
            let before = old.sets.get(n).map_or(&empty, |x| &x.elements);
            let added: Vec<String> = set
                .elements
                .iter()
                .filter(|(k, v)| before.get(*k) != Some(v))
                .map(show)
                .collect();
            elements(s, "add", table, n, &added);
        }
        // Chains may lead to each other: empty all of them, then delete.
        let gone: BTreeSet<&String> = old.chains.keys().filter(|n| !self.chains.contains_key(*n)).collect();
        for n in &gone {
            let _ = writeln!(s, "flush chain {table} {n}");
        }
        for n in &gone {
            let _ = writeln!(s, "delete chain {table} {n}");
        }
        for (n, o) in &old.sets {
            if !self.sets.contains_key(n) {
                let _ = writeln!(s, "delete {} {table} {n}", o.word);
            }
        }
    }
}

fn show((k, v): (&String, &Option<String>)) -> String {
    match v {
        Some(v) => format!("{k} : {v}"),
        None => k.clone(),
    }
}

fn elements(s: &mut String, verb: &str, table: &str, set: &str, what: &[String]) {
    // Bounded lines: the parser's memory grows with the length of one command.
    for some in what.chunks(500) {
        let _ = writeln!(s, "{verb} element {table} {set} {{ {} }}", some.join(", "));
    }
}

/// Runs `nft -f -` in a namespace.
pub fn run(ns: &Ns, script: &str) -> io::Result<()> {
    if script.is_empty() {
        return Ok(());
    }
    tracing::trace!(ns = ns.name(), script, "nft");
    nft(ns, &["-f", "-"], script).map(drop)
}

/// Runs `nft` with arguments in a namespace and returns what it prints.
pub fn nft(ns: &Ns, args: &[&str], input: &str) -> io::Result<String> {
    // A child starts in the namespace of the thread that starts it.
    let out = ns.enter(|| -> io::Result<std::process::Output> {
        let mut child = Command::new("nft")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    })??;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let first: String = said.lines().take(4).collect::<Vec<_>>().join(" | ");
    Err(io::Error::other(format!("nft: {first}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(ports: &[u8]) -> Model {
        let mut m = Model::default();
        let t = m.table("inet t");
        t.base("fw", "type filter hook forward priority 0;")
            .rule("fw", "meta mark vmap @d")
            .map("d", "type mark : verdict;");
        for p in ports {
            t.rule(&format!("i{p}"), "drop")
                .pair("d", format!("{p}"), format!("jump i{p}"));
        }
        m
    }

    #[test]
    fn a_difference_touches_only_what_changed() {
        let d = one(&[1, 2]).diff(&one(&[1]));
        assert_eq!(
            d,
            "add chain inet t i2\nadd rule inet t i2 drop\nadd element inet t d { 2 : jump i2 }\n"
        );
        let back = one(&[1]).diff(&one(&[1, 2]));
        assert_eq!(
            back,
            "delete element inet t d { 2 : jump i2 }\nflush chain inet t i2\ndelete chain inet t i2\n"
        );
        assert!(one(&[1]).takes_away(&one(&[1, 2])));
        assert!(!one(&[1, 2]).takes_away(&one(&[1])));
        assert_eq!(one(&[1]).diff(&one(&[1])), "");
    }
}
