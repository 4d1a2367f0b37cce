//! What the test runners say, as numbers. A test that cannot run on this machine prints `SKIPPED: reason` and
//! returns; it counts as skipped, not as passed, so that nobody takes a green run for a proof that it is not.

use std::collections::BTreeMap;

/// The outcome of one lane.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: usize,
    pub failed: Vec<String>,
    /// Reasons and how many tests gave each.
    pub skipped: BTreeMap<String, usize>,
}

const SKIPPED: &str = "SKIPPED:";

impl Tally {
    fn count(&mut self, name: &str, failed: bool, output: &str) {
        let reason = output
            .lines()
            .find_map(|l| Some(l.split_once(SKIPPED)?.1.trim().to_owned()));
        match (failed, reason) {
            (true, _) => self.failed.push(name.to_owned()),
            (false, Some(reason)) => *self.skipped.entry(reason).or_default() += 1,
            (false, None) => self.passed += 1,
        }
    }

    pub fn skips(&self) -> usize {
        self.skipped.values().sum()
    }

    /// Reads nextest's JUnit file (a small, known subset of XML; `store-success-output` is on).
    pub fn from_junit(xml: &str) -> Self {
        let mut tally = Self::default();
        for case in xml.split("<testcase ").skip(1) {
            let (head, rest) = case.split_once('>').unwrap_or((case, ""));
            let body = if head.ends_with('/') {
                ""
            } else {
                rest.split("</testcase>").next().unwrap_or_default()
            };
            let attribute = |key: &str| {
                let value = head
                    .split_once(&format!("{key}=\""))
                    .and_then(|(_, v)| v.split_once('"'))
                    .map(|(v, _)| v);
                unescape(value.unwrap_or_default())
            };
            let name = format!("{} {}", attribute("classname"), attribute("name"));
            let failed = body.contains("<failure") || body.contains("<error");
            tally.count(&name, failed, &unescape(body));
        }
        tally
    }

    /// Reads what `cargo test -- --show-output` prints.
    pub fn from_libtest(text: &str) -> Self {
        let mut outputs: BTreeMap<&str, String> = BTreeMap::new();
        let mut current = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" stdout ----")) {
                current = Some(name);
            } else if line.starts_with("successes:") || line.starts_with("failures:") {
                current = None;
            } else if let Some(name) = current {
                outputs.entry(name).or_default().push_str(&format!("{line}\n"));
            }
        }
        let mut tally = Self::default();
        for line in text.lines().filter_map(|l| l.strip_prefix("test ")) {
            let Some((name, result)) = line.rsplit_once(" ... ") else {
                continue;
            };
            let output = outputs.get(name).map_or("", String::as_str);
            match result {
                "ok" => tally.count(name, false, output),
                "FAILED" => tally.count(name, true, output),
                // Ignored tests belong to `--full`, and are not of this lane.
                _ => {}
            }
        }
        tally
    }
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_junit() {
        let xml = r#"<testsuites><testsuite name="a" tests="3">
<testcase name="t::one" classname="a" time="0.1"><system-out>x</system-out></testcase>
<testcase name="t::two" classname="a" time="0.1"/>
<testcase name="t::three" classname="a" time="0.1"><failure type="test failure"/></testcase>
<testcase name="t::four" classname="a" time="0.1"><system-err>
SKIPPED: no &lt;kvm&gt;
</system-err></testcase></testsuite></testsuites>"#;
        let t = Tally::from_junit(xml);
        assert_eq!((t.passed, t.failed.as_slice()), (2, &["a t::three".to_owned()][..]));
        assert_eq!(t.skipped.get("no <kvm>"), Some(&1));
    }

    #[test]
    fn reads_libtest() {
        let text = "running 4 tests\ntest a ... ok\ntest b ... FAILED\ntest c ... ok\ntest d ... ignored, why\n\nsuccesses:\n\n---- c stdout ----\nSKIPPED: no root\n\nsuccesses:\n    a\n";
        let t = Tally::from_libtest(text);
        assert_eq!((t.passed, t.failed.len(), t.skips()), (1, 1, 1));
    }
}
