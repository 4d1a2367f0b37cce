//! What a run of Tempest came to, read from what stestr prints for people: a line a test.

use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Passed,
    Skipped { why: String },
    Failed { why: String },
}

impl Outcome {
    pub fn passed(&self) -> bool {
        *self == Outcome::Passed
    }
}

/// By the test's full name; a class whose set-up failed or was skipped stands there as `CLASS.setUpClass`.
#[derive(Debug, Default)]
pub struct Results {
    pub tests: BTreeMap<String, Outcome>,
    /// Seconds that each test took.
    pub seconds: BTreeMap<String, f64>,
}

impl Results {
    /// `{1} tempest.api....test_x [0.03s] ... ok`, or `... FAILED` with the trace below it, or `... SKIPPED: why`.
    pub fn parse(text: &str) -> Self {
        let mut out = Self::default();
        let mut failing: Option<String> = None;
        for line in text.lines() {
            if let Some((name, seconds, how)) = test_line(line) {
                failing = None;
                let outcome = match how.split_once(':').map_or((how, ""), |(a, b)| (a, b.trim())) {
                    ("ok", _) => Outcome::Passed,
                    ("SKIPPED", why) => Outcome::Skipped { why: why.to_owned() },
                    _ => {
                        failing = Some(name.clone());
                        Outcome::Failed { why: String::new() }
                    }
                };
                out.seconds.insert(name.clone(), seconds);
                out.tests.insert(name, outcome);
            } else if line.starts_with("======") {
                // What follows repeats the failures.
                failing = None;
            } else if let Some(name) = &failing {
                out.explain(name, line);
            }
        }
        out
    }

    /// The trace's last word: the exception, and what the cloud answered.
    fn explain(&mut self, name: &str, line: &str) {
        let line = line.trim();
        let exception = line
            .split_once(": ")
            .filter(|(kind, _)| kind.contains('.') && !kind.contains(' ') && kind.chars().any(char::is_uppercase));
        let Some(Outcome::Failed { why }) = self.tests.get_mut(name) else {
            return;
        };
        if let Some((kind, text)) = exception {
            *why = format!("{}: {text}", kind.rsplit('.').next().unwrap_or(kind));
        } else if let Some(text) = line.strip_prefix("Details: ") {
            // Python's notation of an error body: its message says more than the exception.
            if let Some((_, message)) = text.split_once("'message': ") {
                let end = message
                    .find("', '")
                    .or_else(|| message.find("\", '"))
                    .map_or(message.len(), |i| i + 1);
                *why = message[..end].trim_end_matches('}').chars().take(200).collect();
            } else {
                *why = format!("{why} ({text})");
            }
        }
    }

    /// (passed, failed, skipped, seconds) of the tests whose name begins so.
    pub fn count(&self, prefix: &str) -> (usize, usize, usize, f64) {
        let of = |name: &str| name.starts_with(prefix);
        let mut out = (0, 0, 0, 0.0);
        for (_, outcome) in self.tests.iter().filter(|(n, _)| of(n)) {
            match outcome {
                Outcome::Passed => out.0 += 1,
                Outcome::Failed { .. } => out.1 += 1,
                Outcome::Skipped { .. } => out.2 += 1,
            }
        }
        out.3 = self.seconds.iter().filter(|(n, _)| of(n)).map(|(_, s)| s).sum();
        out
    }
}

fn test_line(line: &str) -> Option<(String, f64, &str)> {
    let rest = line.strip_prefix('{')?.split_once("} ")?.1;
    let (what, how) = rest.rsplit_once(" ... ").or_else(|| rest.split_once(" ... "))?;
    let (name, seconds) = match what.rsplit_once(" [") {
        Some((name, s)) => (name, s.trim_end_matches("s]").parse().unwrap_or(0.0)),
        None => (what, 0.0),
    };
    let name = match name.strip_prefix("setUpClass (").and_then(|n| n.strip_suffix(')')) {
        Some(class) => format!("{class}.setUpClass"),
        None => name.to_owned(),
    };
    name.starts_with("tempest.").then_some((name, seconds, how))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_stestr_prints() {
        let r = Results::parse(
            "{1} tempest.api.identity.A.test_ok [0.031819s] ... ok\n\
             {0} tempest.api.identity.A.test_bad [0.5s] ... FAILED\n\
             \nCaptured traceback:\n    tempest.lib.exceptions.NotFound: Object not found\nDetails: {'code': 404, 'message': 'no'}\n\
             {0} tempest.api.identity.A.test_skip ... SKIPPED: not enabled: really\n\
             {0} setUpClass (tempest.api.image.B) [0.000000s] ... FAILED\n    a.b.Oops: why\n\
             ======\nTotals\n",
        );
        assert!(r.tests["tempest.api.identity.A.test_ok"].passed());
        let failed = |why: &str| Outcome::Failed { why: why.into() };
        assert_eq!(r.tests["tempest.api.identity.A.test_bad"], failed("'no'"));
        assert_eq!(r.tests["tempest.api.image.B.setUpClass"], failed("Oops: why"));
        let skipped = Outcome::Skipped {
            why: "not enabled: really".into(),
        };
        assert_eq!(r.tests["tempest.api.identity.A.test_skip"], skipped);
        let (passed, failed, skipped, seconds) = r.count("tempest.api.identity");
        assert_eq!((passed, failed, skipped), (1, 1, 1));
        assert!((0.5..0.6).contains(&seconds));
    }
}
