//! oslo.policy rules: `rule:`, `role:`, `and`, `or`, `not`, parentheses, `@`, `!`, and comparisons such as
//! `project_id:%(project_id)s` or `'abc':%(target.user.id)s` (oslo.policy's documentation, "Policy Rule
//! Expressions"). Our own parser, because the rules stand in configuration files that operators bring.

use crate::{Ctx, ScopeKind, Target};
use haneul_core::{Error, Result};
use std::collections::HashMap;

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
    /// Defaults with an operator's overrides (`name: "check"` lines of a YAML or JSON policy file).
    pub fn new(defaults: &[RuleDefault], overrides: &[(String, String)]) -> Result<Self> {
        let mut rules = HashMap::new();
        for d in defaults {
            rules.insert(d.name.to_owned(), parse(d.check).map_err(|e| at(d.name, &e))?);
        }
        for (name, check) in overrides {
            rules.insert(name.clone(), parse(check).map_err(|e| at(name, &e))?);
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
            Check::Compare(left, right) => {
                let Some(right) = expand(right, target) else {
                    return false;
                };
                match left.strip_prefix('\'').and_then(|l| l.strip_suffix('\'')) {
                    Some(literal) => literal == right,
                    None => credential(left, ctx).is_some_and(|c| c == right),
                }
            }
        }
    }
}

fn at(name: &str, e: &str) -> Error {
    Error::bad_request(format!("policy rule {name}: {e}"))
}

fn credential(name: &str, ctx: &Ctx) -> Option<String> {
    Some(match name {
        "user_id" | "token.user.id" => ctx.user_id.clone(),
        "user_domain_id" | "token.user.domain.id" => ctx.user_domain_id.clone(),
        "project_id" | "tenant_id" | "token.project.id" => match &ctx.scope {
            ScopeKind::Project { id, .. } => id.clone(),
            _ => return None,
        },
        "project_domain_id" | "token.project.domain.id" => match &ctx.scope {
            ScopeKind::Project { domain_id, .. } => domain_id.clone(),
            _ => return None,
        },
        "domain_id" | "token.domain.id" => ctx.domain_scope()?.to_owned(),
        "system_scope" => match ctx.scope {
            ScopeKind::System => "all".into(),
            _ => return None,
        },
        "is_admin" => if ctx.is_admin() { "True" } else { "False" }.into(),
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
mod tests {
    use super::*;

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
}
