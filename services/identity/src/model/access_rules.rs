//! What requests a token of an application credential may make.

use super::{resource, secured};
use haneul_auth::Target;
use serde::{Deserialize, Serialize};

/// An access rule (API reference: Identity API v3, "Application credentials", access rules).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRule {
    pub id: String,
    pub user_id: String,
    /// The type of a service, as in the catalog.
    pub service: String,
    /// `*` and `{name}` stand for one part of a path, `**` for any number of them.
    pub path: String,
    pub method: String,
}

impl AccessRule {
    fn label(&self) -> &str {
        ""
    }

    /// Whether this request is one of those that the rule is about. `path` is as it was sent, undecoded: what is
    /// written in another way is another path.
    pub(crate) fn allows(&self, service: &str, method: &str, path: &str) -> bool {
        self.service == service && self.method == method && matches(&self.path, path)
    }
}

resource!(AccessRule, "access_rule", "identity_access_rule", |_| None, {
    "user_id" => |r| r.user_id.as_str().into(),
});
secured!(AccessRule, "Access Rule", |r| of_owner(&r.user_id));

/// What rules about a user's access rules are checked against.
pub(crate) fn of_owner(user: &str) -> Target {
    Target::user(user).with("target.user.id", user)
}

enum Part {
    One(u8),
    /// At least one character, none of them a slash.
    Segment,
    Rest,
}

fn parts(pattern: &str) -> Vec<Part> {
    let mut out = Vec::new();
    let mut rest = pattern.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = match first {
            b'*' if tail.first() == Some(&b'*') => {
                out.push(Part::Rest);
                tail.get(1..).unwrap_or_default()
            }
            b'*' => {
                out.push(Part::Segment);
                tail
            }
            b'{' if tail.contains(&b'}') => {
                out.push(Part::Segment);
                let end = tail.iter().position(|b| *b == b'}').unwrap_or(0);
                tail.get(end + 1..).unwrap_or_default()
            }
            other => {
                out.push(Part::One(*other));
                tail
            }
        };
    }
    out
}

/// Whether a path is as a pattern says (keystonemiddleware/auth_token, `_path_matches`, with everything that is no
/// wildcard taken literally). Without backtracking: the work is pattern times path, whatever is in them.
fn matches(pattern: &str, path: &str) -> bool {
    let path = path.as_bytes();
    // At which places of the path the parts so far may end.
    let mut at = vec![false; path.len() + 1];
    if let Some(start) = at.first_mut() {
        *start = true;
    }
    for part in parts(pattern) {
        let mut next = vec![false; path.len() + 1];
        let mut open = false;
        match part {
            Part::Rest => {
                for (n, was) in next.iter_mut().zip(&at) {
                    open |= *was;
                    *n = open;
                }
            }
            Part::One(b) => {
                for ((n, was), c) in next.iter_mut().skip(1).zip(&at).zip(path) {
                    *n = *was && *c == b;
                }
            }
            Part::Segment => {
                for ((n, was), c) in next.iter_mut().skip(1).zip(&at).zip(path) {
                    open = (open || *was) && *c != b'/';
                    *n = open;
                }
            }
        }
        at = next;
    }
    at.last() == Some(&true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, path, yes) in [
            ("/v2.1/servers", "/v2.1/servers", true),
            ("/v2.1/servers", "/v2.1/servers/", false),
            ("/v2.1/servers", "/v2x1/servers", false),
            ("/v2.1/servers/*/ips", "/v2.1/servers/abc/ips", true),
            ("/v2.1/servers/*/ips", "/v2.1/servers/a/b/ips", false),
            ("/v2.1/servers/*/ips", "/v2.1/servers//ips", false),
            ("/v2.1/servers/{id}", "/v2.1/servers/abc", true),
            ("/v2.1/servers/{id}", "/v2.1/servers/abc/action", false),
            ("/v2.1/servers/{id}/action", "/v2.1/servers/abc/action", true),
            ("/v2.1/**", "/v2.1/servers/a/b", true),
            ("/v2.1/**", "/v2.1/", true),
            ("/v2.1/**", "/v2.1", false),
            ("/**/ips", "/v2.1/servers/a/ips", true),
            ("/v1/a*c/*", "/v1/abbc/x", true),
            ("/v1/a*c/*", "/v1/ac/x", false),
            ("**", "", true),
            ("*", "", false),
            ("/{open", "/{open", true),
            ("", "/", false),
        ] {
            assert_eq!(matches(pattern, path), yes, "{pattern} {path}");
        }
        // What a pattern with backtracking would never finish.
        let slow = "/*a".repeat(70);
        assert!(!matches(&slow, &"/aaaa".repeat(1000)));
    }
}
