//! oslo.policy rules: `rule:`, `role:`, `and`, `or`, `not`, parentheses, `@`, `!`, and comparisons such as
//! `project_id:%(project_id)s` or `'abc':%(target.user.id)s` (oslo.policy's documentation, "Policy Rule
//! Expressions"). Our own parser, because the rules stand in configuration files that operators bring.

use crate::{Ctx, ScopeKind, Target};
use haneul_core::config::distance;
use haneul_core::{Error, Result};
use std::collections::{HashMap, HashSet};

/// A rule as a service registers it.
#[derive(Clone, Copy, Debug)]
pub struct RuleDefault {
    pub name: &'static str,
    pub check: &'static str,
}

/// A parsed check.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    True,
    False,
    And(Vec<Check>),
    Or(Vec<Check>),
    Not(Box<Check>),
    Rule(String),
    Role(String),
    /// Left side: a credential's name or a quoted literal. Right: a template.
    Compare(String, String),
}

/// All rules, resolved by name.
#[derive(Debug, Default)]
pub struct Policy {
    rules: HashMap<String, Check>,
}

impl Policy {
    /// Defaults with an operator's overrides (`name: "check"` lines of a YAML or JSON policy file). A name that
    /// no service has and no other rule uses is refused: who misspells a rule believes a door shut that is open.
    pub fn new(defaults: &[RuleDefault], overrides: &[(String, String)]) -> Result<Self> {
        let mut rules = HashMap::new();
        for d in defaults {
            rules.insert(d.name.to_owned(), parse(d.check).map_err(|e| at(d.name, &e))?);
        }
        let known: Vec<String> = rules.keys().cloned().collect();
        for (name, check) in overrides {
            rules.insert(name.clone(), parse(check).map_err(|e| at(name, &e))?);
        }
        let mut used = HashSet::new();
        rules.values().for_each(|check| check.names(&mut used));
        let unknown = |name: &&String| !known.contains(name) && *name != "default" && !used.contains(name.as_str());
        if let Some(name) = overrides.iter().map(|(name, _)| name).find(unknown) {
            let nearest = known.iter().min_by_key(|k| (distance(k, name), k.len(), *k));
            let nearest = nearest.map_or_else(String::new, |k| format!(" Did you mean {k}?"));
            return Err(at(
                name,
                &format!("no service has it and no other rule uses it.{nearest}"),
            ));
        }
        if let Some(name) = used.iter().find(|name| !rules.contains_key(**name)) {
            return Err(at(name, "another rule uses it, but it stands nowhere"));
        }
        Ok(Self { rules })
    }

    /// Whether the rule holds. An unknown rule falls back to `default`, and is refused without one.
    pub fn check(&self, rule: &str, ctx: &Ctx, target: &Target) -> bool {
        self.named(rule, ctx, target, 0)
    }

    fn named(&self, rule: &str, ctx: &Ctx, target: &Target, depth: u8) -> bool {
        // Rules that name each other in a circle are refused.
        if depth > 16 {
            return false;
        }
        self.rules
            .get(rule)
            .or_else(|| self.rules.get("default"))
            .is_some_and(|c| self.eval(c, ctx, target, depth))
    }

    fn eval(&self, check: &Check, ctx: &Ctx, target: &Target, depth: u8) -> bool {
        match check {
            Check::True => true,
            Check::False => false,
            Check::And(cs) => cs.iter().all(|c| self.eval(c, ctx, target, depth)),
            Check::Or(cs) => cs.iter().any(|c| self.eval(c, ctx, target, depth)),
            Check::Not(c) => !self.eval(c, ctx, target, depth),
            Check::Rule(name) => self.named(name, ctx, target, depth + 1),
            Check::Role(name) => ctx.has_role(name),
            Check::Compare(left, template) => expand(template, target).is_some_and(|right| match literal(left) {
                Some(literal) => literal == right,
                None => match credential(left, ctx) {
                    Some(Some(value)) => value == right,
                    // As in oslo.policy `domain_id:None` asks for a token without a domain. What the target
                    // says is not asked so: nobody without a project owns what has no project.
                    Some(None) => template == "None",
                    None => false,
                },
            }),
        }
    }
}

impl Check {
    /// The rules that it uses.
    fn names<'a>(&'a self, into: &mut HashSet<&'a str>) {
        match self {
            Check::And(checks) | Check::Or(checks) => checks.iter().for_each(|c| c.names(into)),
            Check::Not(check) => check.names(into),
            Check::Rule(name) => {
                into.insert(name);
            }
            Check::True | Check::False | Check::Role(_) | Check::Compare(..) => {}
        }
    }
}

/// The left side of a comparison, when it is a Python literal and not the name of a credential.
fn literal(left: &str) -> Option<&str> {
    let quoted = |q: char| left.strip_prefix(q).and_then(|l| l.strip_suffix(q));
    let word = matches!(left, "None" | "True" | "False") || left.parse::<i64>().is_ok();
    quoted('\'').or_else(|| quoted('"')).or(word.then_some(left))
}

fn at(name: &str, e: &str) -> Error {
    Error::bad_request(format!("policy rule {name}: {e}"))
}

/// What the token says: the outer `None` for a name that no token has, the inner one for what this token lacks.
fn credential<'a>(name: &str, ctx: &'a Ctx) -> Option<Option<&'a str>> {
    let project = match &ctx.scope {
        ScopeKind::Project { id, domain_id, .. } => Some((id.as_str(), domain_id.as_str())),
        _ => None,
    };
    Some(match name {
        "user_id" | "token.user.id" => Some(&ctx.user_id),
        "user_domain_id" | "token.user.domain.id" => Some(&ctx.user_domain_id),
        "project_id" | "tenant_id" | "token.project.id" => project.map(|(id, _)| id),
        "project_domain_id" | "token.project.domain.id" => project.map(|(_, domain)| domain),
        "domain_id" | "token.domain.id" => ctx.domain_scope(),
        "system_scope" => ctx.is_system().then_some("all"),
        "is_admin" => Some(if ctx.is_admin() { "True" } else { "False" }),
        _ => return None,
    })
}

/// Fills `%(name)s`. A name that the target lacks makes the comparison false.
fn expand(template: &str, target: &Target) -> Option<String> {
    let Some(start) = template.find("%(") else {
        return Some(template.to_owned());
    };
    let end = template.get(start..)?.find(")s")? + start;
    let name = template.get(start + 2..end)?;
    let value = target.get(name)?;
    Some(format!("{}{value}{}", template.get(..start)?, template.get(end + 2..)?))
}

/// Parses a check.
pub fn parse(text: &str) -> Result<Check, String> {
    let tokens = tokens(text);
    let mut at = 0;
    if tokens.is_empty() {
        return Ok(Check::True);
    }
    let check = or(&tokens, &mut at)?;
    if at != tokens.len() {
        return Err(format!(
            "\"{text}\": unexpected \"{}\"",
            tokens.get(at).map_or("", String::as_str)
        ));
    }
    Ok(check)
}

fn tokens(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for word in text.split_whitespace() {
        // Parentheses around words; those of %(name)s stay inside.
        let mut word = word;
        while let Some(rest) = word.strip_prefix('(') {
            out.push("(".to_owned());
            word = rest;
        }
        let mut closing = 0;
        while let Some(rest) = word.strip_suffix(')') {
            closing += 1;
            word = rest;
        }
        if !word.is_empty() {
            out.push(word.to_owned());
        }
        out.extend(std::iter::repeat_n(")".to_owned(), closing));
    }
    out
}

fn or(tokens: &[String], at: &mut usize) -> Result<Check, String> {
    let mut parts = vec![and(tokens, at)?];
    while tokens.get(*at).is_some_and(|t| t.eq_ignore_ascii_case("or")) {
        *at += 1;
        parts.push(and(tokens, at)?);
    }
    Ok(if parts.len() == 1 {
        parts.remove(0)
    } else {
        Check::Or(parts)
    })
}

fn and(tokens: &[String], at: &mut usize) -> Result<Check, String> {
    let mut parts = vec![not(tokens, at)?];
    while tokens.get(*at).is_some_and(|t| t.eq_ignore_ascii_case("and")) {
        *at += 1;
        parts.push(not(tokens, at)?);
    }
    Ok(if parts.len() == 1 {
        parts.remove(0)
    } else {
        Check::And(parts)
    })
}

fn not(tokens: &[String], at: &mut usize) -> Result<Check, String> {
    if tokens.get(*at).is_some_and(|t| t.eq_ignore_ascii_case("not")) {
        *at += 1;
        return Ok(Check::Not(Box::new(not(tokens, at)?)));
    }
    atom(tokens, at)
}

fn atom(tokens: &[String], at: &mut usize) -> Result<Check, String> {
    let token = tokens.get(*at).ok_or("it ends where a check should stand")?;
    *at += 1;
    Ok(match token.as_str() {
        "@" => Check::True,
        "!" => Check::False,
        "(" => {
            let inner = or(tokens, at)?;
            if tokens.get(*at).map(String::as_str) != Some(")") {
                return Err("a parenthesis is not closed".into());
            }
            *at += 1;
            inner
        }
        ")" | "and" | "or" => return Err(format!("unexpected \"{token}\"")),
        other => {
            let (left, right) = other
                .split_once(':')
                .ok_or_else(|| format!("\"{other}\" is not a check: write kind:match"))?;
            match left {
                "rule" => Check::Rule(right.to_owned()),
                "role" => Check::Role(right.to_owned()),
                _ => Check::Compare(left.to_owned(), right.to_owned()),
            }
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::context::CtxInner;
    use std::sync::Arc;

    #[test]
    fn parses() {
        assert_eq!(parse("@"), Ok(Check::True));
        assert_eq!(parse(""), Ok(Check::True));
        assert_eq!(
            parse("role:admin or (role:member and project_id:%(project_id)s)"),
            Ok(Check::Or(vec![
                Check::Role("admin".into()),
                Check::And(vec![
                    Check::Role("member".into()),
                    Check::Compare("project_id".into(), "%(project_id)s".into())
                ])
            ]))
        );
        assert_eq!(parse("not rule:a"), Ok(Check::Not(Box::new(Check::Rule("a".into())))));
        for bad in ["(role:a", "role:a and", "nonsense", ") or ("] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn overrides_are_checked() {
        const DEFAULTS: &[RuleDefault] = &[
            RuleDefault {
                name: "owner",
                check: "project_id:%(project_id)s",
            },
            RuleDefault {
                name: "thing:get",
                check: "rule:owner",
            },
        ];
        let with = |name: &str, check: &str| Policy::new(DEFAULTS, &[(name.to_owned(), check.to_owned())]);
        assert!(with("thing:get", "role:admin").is_ok());
        let refused = |name: &str, check: &str| with(name, check).unwrap_err().to_string();
        let said = refused("thing:gte", "role:admin");
        assert!(
            said.contains("thing:gte") && said.contains("Did you mean thing:get?"),
            "{said}"
        );
        let said = refused("thing:get", "rule:ownr");
        assert!(said.contains("ownr"), "{said}");
        // A rule of the operator's own, which another one uses.
        let own = [("thing:get", "rule:auditor"), ("auditor", "role:auditor")];
        assert!(Policy::new(DEFAULTS, &own.map(|(n, c)| (n.to_owned(), c.to_owned()))).is_ok());
    }

    #[test]
    fn compares_as_oslo_policy_does() {
        let ctx = Ctx {
            inner: Arc::new(CtxInner {
                user_id: "u1".into(),
                user_name: "u".into(),
                user_domain_id: "default".into(),
                user_domain_name: "Default".into(),
                scope: ScopeKind::System,
                roles: vec![],
                expires_at: 0,
                issued_at: 0,
                audit_ids: vec![],
                methods: vec![],
                application_credential_id: None,
                password_expires_at: None,
            }),
            request_id: "req".into(),
            policy: Arc::default(),
        };
        let holds = |check: &str, target: &Target| {
            let rule = [RuleDefault { name: "r", check: "@" }];
            let policy = Policy::new(&rule, &[("r".to_owned(), check.to_owned())]).unwrap();
            policy.check("r", &ctx, target)
        };
        let target = Target::user("u1").with("target.count", "3").with("target.open", "None");
        for yes in [
            "user_id:%(user_id)s",
            "'u1':%(user_id)s",
            "\"u1\":%(user_id)s",
            "3:%(target.count)s",
            "None:%(target.open)s",
            "project_id:None",
        ] {
            assert!(holds(yes, &target), "{yes}");
        }
        // The system's token has no project, and neither has a target of nobody: that does not make it its own.
        let nobody = Target::project("None");
        for no in [
            "user_id:None",
            "u1:None",
            "project_id:%(project_id)s",
            "user_id:%(missing)s",
        ] {
            assert!(!holds(no, &nobody), "{no}");
        }
    }
}
