//! The credential walk: whatever a token is changed for, by whatever chain, reaches no scope, role or lifetime that its
//! origin had not, and ends with each link of its chain.
//!
//! From each kind of login all steps are tried on each token that can be had; a token that is like one seen before (of
//! the same person, scope, roles and kinds of delegation) is not walked from again, so that the chains of four steps are
//! all of them, up to likeness. What a token may reach is worked out here from what was asked for, and not from what the
//! service says.

use crate::cloud::{Cloud, token_of};
use crate::signing::{self, Signer, ec2_token, passcode, totp};
use haneul_auth::Policy;
use haneul_core::clock::{self, SECOND};
use haneul_http::client::Answer;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Scopes by their names here: `a`, `b` (projects), `domain`, `system`, `unscoped`; with the roles that can be had there.
type Reach = BTreeMap<&'static str, BTreeSet<&'static str>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Rescope(&'static str),
    Trust {
        impersonation: bool,
        project: &'static str,
        role: &'static str,
        again: bool,
    },
    AppCred {
        unrestricted: bool,
        role: &'static str,
    },
    Ec2 {
        project: &'static str,
        plain: bool,
    },
    OAuth {
        project: &'static str,
        role: &'static str,
    },
    Totp {
        project: Option<&'static str>,
        scope: &'static str,
    },
}

const SCOPES: [&str; 6] = ["", "unscoped", "a", "b", "domain", "system"];

fn steps() -> Vec<Step> {
    let mut out: Vec<Step> = SCOPES.into_iter().map(Step::Rescope).collect();
    for (project, role) in [("a", "manager"), ("a", "member"), ("b", "member")] {
        for (impersonation, again) in [(true, true), (true, false), (false, true), (false, false)] {
            out.push(Step::Trust {
                impersonation,
                project,
                role,
                again,
            });
        }
        out.push(Step::OAuth { project, role });
    }
    for unrestricted in [true, false] {
        for role in ["manager", "member"] {
            out.push(Step::AppCred { unrestricted, role });
        }
    }
    for project in ["a", "b"] {
        for plain in [true, false] {
            out.push(Step::Ec2 { project, plain });
        }
    }
    for project in [None, Some("a")] {
        for scope in ["a", "b", "system"] {
            out.push(Step::Totp { project, scope });
        }
    }
    out
}

/// What somebody with this role has.
fn with_implied(role: &str) -> BTreeSet<&'static str> {
    let ladder = ["manager", "member", "reader"];
    ladder.into_iter().skip_while(|r| *r != role).collect()
}

/// What ends a link: method and path for the administrator.
type End = (&'static str, String, Value);

#[derive(Clone)]
struct Node {
    token: String,
    /// What the service says of it.
    view: Value,
    path: Vec<Step>,
    /// What its chain allows.
    reach: Reach,
    /// When what is delegated ends.
    until: i64,
    /// When the token ends that this one was made from.
    by_token: i64,
    ends: Vec<End>,
}

impl Node {
    fn text(&self, pointer: &str) -> &str {
        self.view.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
    fn expires(&self) -> i64 {
        clock::parse(self.text("/expires_at")).unwrap()
    }
    fn roles(&self) -> BTreeSet<&str> {
        let roles = self.view["roles"].as_array();
        roles.into_iter().flatten().filter_map(|r| r["name"].as_str()).collect()
    }
    /// Likeness: from two tokens of which this is the same the same can be reached.
    fn like(&self, w: &World) -> String {
        let mut methods: Vec<&str> = self.view["methods"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        methods.sort_unstable();
        let again = self.path.iter().rev().find_map(|s| match s {
            Step::Trust { again, .. } => Some(*again),
            _ => None,
        });
        format!(
            "{} {} {:?} {methods:?} trust {:?} {:?} {again:?} app cred {:?} oauth {} of {:?}",
            w.person(self.text("/user/id")),
            w.scope(&self.view),
            self.roles(),
            self.view.pointer("/OS-TRUST:trust/impersonation"),
            self.path.iter().filter(|s| matches!(s, Step::Trust { .. })).count(),
            self.view.pointer("/application_credential/restricted"),
            self.view.get("OS-OAUTH1").is_some(),
            self.reach,
        )
    }
}

struct World {
    c: Cloud,
    /// Ids of the three users: the walker and those whom is lent to.
    people: [String; 3],
    a: String,
    b: String,
    consumer: Signer,
}

const NAMES: [&str; 3] = ["walker", "friend", "third"];

impl World {
    async fn new() -> World {
        let c = Cloud::with(|config| config.security_compliance.lockout_failure_attempts = 0).await;
        // By default only administrators authorize, and they may do everything.
        let open = [("identity:authorize_request_token".to_owned(), String::new())];
        c.identity
            .set_policy(Arc::new(Policy::new(haneul_identity::RULES, &open).unwrap()));
        let (walker, a, _) = c.tenant("walker", "manager").await;
        let (friend, _, _) = c.tenant("friend", "manager").await;
        let (third, _, _) = c.tenant("third", "manager").await;
        let b = c.make("project", json!({"name": "b"})).await;
        let consumer = signing::consumer(&c).await;
        let w = World {
            people: [walker, friend, third],
            a,
            b,
            consumer,
            c,
        };
        w.give().await;
        w
    }

    /// All that the walker has.
    async fn give(&self) {
        let user = &self.people[0];
        for (target, role) in [
            (format!("projects/{}", self.a), "manager"),
            (format!("projects/{}", self.b), "member"),
            ("domains/default".to_owned(), "reader"),
            ("system".to_owned(), "reader"),
        ] {
            let role = self.c.role(role).await;
            self.c
                .ok(204, "PUT", &format!("/{target}/users/{user}/roles/{role}"), Value::Null)
                .await;
        }
    }

    fn all() -> Reach {
        BTreeMap::from([
            ("a", with_implied("manager")),
            ("b", with_implied("member")),
            ("domain", with_implied("reader")),
            ("system", with_implied("reader")),
            ("unscoped", BTreeSet::new()),
        ])
    }

    fn person(&self, id: &str) -> &'static str {
        let at = self.people.iter().position(|p| p == id);
        at.map_or("nobody", |n| NAMES[n])
    }

    fn project(&self, name: &str) -> &str {
        if name == "a" { &self.a } else { &self.b }
    }

    fn asked(&self, scope: &str) -> Value {
        match scope {
            "" => Value::Null,
            "unscoped" => json!("unscoped"),
            "domain" => json!({"domain": {"id": "default"}}),
            "system" => json!({"system": {"all": true}}),
            project => json!({"project": {"id": self.project(project)}}),
        }
    }

    /// The name of a token's scope.
    fn scope(&self, view: &Value) -> &'static str {
        match view.pointer("/project/id").and_then(Value::as_str) {
            Some(id) if id == self.a => return "a",
            Some(id) if id == self.b => return "b",
            Some(_) => return "elsewhere",
            None => {}
        }
        match (view.get("domain"), view.get("system")) {
            (Some(_), _) => "domain",
            (_, Some(_)) => "system",
            _ => "unscoped",
        }
    }

    async fn root(&self, scope: &'static str) -> Node {
        let asked = if scope == "unscoped" {
            json!("unscoped")
        } else {
            self.asked(scope)
        };
        let a = self.c.login("walker", "secret", asked).await;
        let mut reach = Self::all();
        if scope == "system" {
            // It gives no other scope.
            reach.retain(|s, _| *s == "system");
        }
        let user = format!("/users/{}", self.people[0]);
        Node {
            token: token_of(&a),
            view: a.json()["token"].clone(),
            path: vec![],
            reach,
            until: i64::MAX,
            by_token: i64::MAX,
            ends: vec![("PATCH", user, json!({"user": {"enabled": false}}))],
        }
    }

    async fn good(&self, token: &str) -> bool {
        let headers = [("x-auth-token", self.c.admin.as_str()), ("x-subject-token", token)];
        self.c.raw("HEAD", "/auth/tokens", &headers, "").await.status == 200
    }

    /// What an application credential or a trust lends of what there is.
    fn lent(&self, of: &Node, project: &'static str, role: &str) -> Reach {
        let wanted = with_implied(role);
        let mut out = Reach::new();
        if let Some(had) = of.reach.get(project) {
            out.insert(project, had.intersection(&wanted).copied().collect());
        }
        out
    }

    /// One step. `None`: it was refused.
    async fn step(&self, at: &Node, step: Step) -> Option<Node> {
        let c = &self.c;
        let user = at.text("/user/id").to_owned();
        let mut next = at.clone();
        next.path.push(step);
        next.by_token = i64::MAX;
        let made = |a: &Answer| a.status.is_success();
        let answer: Answer = match step {
            Step::Rescope(scope) => {
                next.by_token = at.by_token.min(at.expires());
                if at.view.get("system").is_some() {
                    next.reach.retain(|s, _| *s == "system");
                }
                c.rescope(&at.token, self.asked(scope)).await
            }
            Step::Trust {
                impersonation,
                project,
                role,
                again,
            } => {
                // To the next person.
                let from = self.people.iter().position(|p| *p == user)?;
                let to = match at
                    .view
                    .pointer("/OS-TRUST:trust/trustee_user/id")
                    .and_then(Value::as_str)
                {
                    Some(t) => (self.people.iter().position(|p| p == t)? + 1) % 3,
                    None => (from + 1) % 3,
                };
                let end = clock::now() + 900 * SECOND;
                let mut trust = json!({"trustor_user_id": user, "trustee_user_id": self.people[to],
                    "project_id": self.project(project), "impersonation": impersonation, "roles": [{"name": role}],
                    "allow_redelegation": again});
                // A trust that is lent on ends, when nothing is said, with the one above.
                if at.view.get("OS-TRUST:trust").is_none() {
                    trust["expires_at"] = clock::iso_micros(end).into();
                    next.until = at.until.min(end);
                }
                let a = c
                    .call(&at.token, "POST", "/OS-TRUST/trusts", json!({ "trust": trust }))
                    .await;
                if !made(&a) {
                    return None;
                }
                let id = a.json()["trust"]["id"].clone();
                next.reach = self.lent(at, project, role);
                next.ends
                    .push(("DELETE", format!("/OS-TRUST/trusts/{}", id.as_str()?), Value::Null));
                c.login(NAMES[to], "secret", json!({"OS-TRUST:trust": {"id": id}}))
                    .await
            }
            Step::AppCred { unrestricted, role } => {
                let end = clock::now() + 600 * SECOND;
                let mut cred = json!({"name": haneul_core::id::hex(), "unrestricted": unrestricted,
                    "roles": [{"name": role}]});
                // Without one it ends with the one that made it.
                if at.view.get("application_credential").is_none() {
                    cred["expires_at"] = clock::iso_micros(end).into();
                    next.until = at.until.min(end);
                }
                let path = format!("/users/{user}/application_credentials");
                let a = c
                    .call(&at.token, "POST", &path, json!({ "application_credential": cred }))
                    .await;
                if !made(&a) {
                    return None;
                }
                let cred = a.json()["application_credential"].clone();
                let project = self.scope(&at.view);
                next.reach = self.lent(at, project, role);
                next.ends
                    .push(("DELETE", format!("{path}/{}", cred["id"].as_str()?), Value::Null));
                let data = json!({"id": cred["id"], "secret": cred["secret"]});
                c.auth(json!({"identity": {"methods": ["application_credential"], "application_credential": data}}))
                    .await
            }
            Step::Ec2 { project, plain } => {
                let id = self.project(project);
                let path = format!("/users/{user}/credentials/OS-EC2");
                let cred = if plain {
                    let a = c.call(&at.token, "POST", &path, json!({ "tenant_id": id })).await;
                    if !made(&a) {
                        return None;
                    }
                    a.json()["credential"].clone()
                } else {
                    let cred = json!({"access": haneul_core::id::hex(), "secret": haneul_core::id::hex()});
                    let body = json!({"credential": {"type": "ec2", "user_id": user, "project_id": id,
                        "blob": cred.to_string()}});
                    let a = c.call(&at.token, "POST", "/credentials", body).await;
                    if !made(&a) {
                        return None;
                    }
                    cred
                };
                next.reach.retain(|s, _| *s == project);
                next.ends
                    .push(("DELETE", format!("{path}/{}", cred["access"].as_str()?), Value::Null));
                ec2_token(c, &cred).await
            }
            Step::OAuth { project, role } => {
                let request = self
                    .consumer
                    .post(
                        c,
                        "/OS-OAUTH1/request_token",
                        &[("requested-project-id", self.project(project))],
                        Value::Null,
                    )
                    .await;
                let request = signing::pair(&request);
                let path = format!("/OS-OAUTH1/authorize/{}", request.0);
                let a = c
                    .call(&at.token, "PUT", &path, json!({"roles": [{"name": role}]}))
                    .await;
                if !made(&a) {
                    return None;
                }
                let with = Signer {
                    token: Some(request),
                    verifier: Some(a.json()["token"]["oauth_verifier"].as_str()?.to_owned()),
                    ..self.consumer.clone()
                };
                let a = with.post(c, "/OS-OAUTH1/access_token", &[], Value::Null).await;
                let token = signing::pair(&a);
                next.reach = self.lent(at, project, role);
                let path = format!("/users/{user}/OS-OAUTH1/access_tokens/{}", token.0);
                next.ends.push(("DELETE", path, Value::Null));
                let with = Signer {
                    token: Some(token),
                    verifier: None,
                    ..with
                };
                with.login(c).await
            }
            Step::Totp { project, scope } => {
                let secret = data_encoding::BASE32_NOPAD.encode(&haneul_core::id::random_bytes(20));
                let body = json!({"credential": {"type": "totp", "user_id": user, "blob": secret,
                    "project_id": project.map(|p| self.project(p))}});
                let a = c.call(&at.token, "POST", "/credentials", body).await;
                if !made(&a) {
                    return None;
                }
                let code = passcode(&secret, clock::now());
                c.auth(json!({"identity": totp(&user, &code), "scope": self.asked(scope)}))
                    .await
            }
        };
        if !made(&answer) {
            return None;
        }
        next.view = answer.json()["token"].clone();
        next.token = token_of(&answer);
        Some(next)
    }

    /// The invariant. What the chain allows is in the node.
    fn check(&self, n: &Node) {
        let scope = self.scope(&n.view);
        let has = n.roles();
        let may = n.reach.get(scope);
        assert!(
            may.is_some_and(|may| has.is_subset(may)),
            "{:?} reaches {scope} with {has:?}, and its origin {:?}",
            n.path,
            n.reach
        );
        assert!(
            n.expires() <= n.until.min(n.by_token),
            "{:?} ends at {}, and its origin at {}",
            n.path,
            n.expires(),
            n.until.min(n.by_token)
        );
    }

    async fn again(&self, root: &'static str, path: &[Step]) -> Node {
        let mut at = self.root(root).await;
        for step in path {
            at = self
                .step(&at, *step)
                .await
                .unwrap_or_else(|| panic!("the chain {path:?} was good before"));
        }
        at
    }

    /// Each link of a chain ends all that comes after it.
    async fn check_ends(&self, root: &'static str, n: &Node) {
        for link in 0..=n.ends.len() {
            let fresh = self.again(root, &n.path).await;
            assert!(self.good(&fresh.token).await, "{:?}", n.path);
            if let Some((method, path, body)) = fresh.ends.get(link) {
                let (status, doc) = self.c.admin(method, path, body.clone()).await;
                assert!(status < 300, "{method} {path}: {status} {doc}");
            } else if ["a", "b"].contains(&self.scope(&n.view)) {
                // And what the walker has no longer is worth nothing to whom it was lent.
                let project = self.project(self.scope(&n.view));
                for role in ["manager", "member"] {
                    let role = self.c.role(role).await;
                    let path = format!("/projects/{project}/users/{}/roles/{role}", self.people[0]);
                    self.c.admin("DELETE", &path, Value::Null).await;
                }
            } else {
                continue;
            }
            assert!(
                !self.good(&fresh.token).await,
                "{:?} is good after its link {link} has ended: {:?}",
                n.path,
                fresh.ends.get(link)
            );
            let user = format!("/users/{}", self.people[0]);
            self.c.ok(200, "PATCH", &user, json!({"user": {"enabled": true}})).await;
            self.give().await;
        }
    }
}

/// How long the chains are.
const LENGTH: usize = 4;

async fn walk_from(root: &'static str) {
    let w = World::new().await;
    let start = w.root(root).await;
    w.check(&start);
    let mut seen = BTreeSet::from([start.like(&w)]);
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let (mut level, mut found, mut tried) = (vec![start], Vec::new(), 0);
    for _ in 0..LENGTH {
        let mut next = Vec::new();
        for at in &level {
            for step in steps() {
                tried += 1;
                let Some(n) = w.step(at, step).await else { continue };
                w.check(&n);
                let word = format!("{step:?}");
                *kinds
                    .entry(word.split([' ', '(']).next().unwrap().to_owned())
                    .or_default() += 1;
                if seen.insert(n.like(&w)) {
                    next.push(n);
                }
            }
        }
        found.extend(next.clone());
        level = next;
    }
    println!(
        "{root}: {tried} steps tried, {} kinds of tokens, made by {kinds:?}",
        found.len()
    );
    // A walk in which nothing could be made would prove nothing.
    let expected: &[&str] = match root {
        "system" => &["Rescope"],
        _ => &["AppCred", "Ec2", "OAuth", "Rescope", "Totp", "Trust"],
    };
    assert_eq!(kinds.keys().collect::<Vec<_>>(), expected);
    // Once for each kind of chain: other roles and projects end in the same way.
    let mut done = BTreeSet::new();
    for n in found.iter().filter(|n| n.path.len() <= 3) {
        let kind: Vec<String> = n
            .path
            .iter()
            .map(|s| match s {
                Step::Trust { impersonation, .. } => format!("trust {impersonation}"),
                Step::AppCred { unrestricted, .. } => format!("app cred {unrestricted}"),
                other => format!("{other:?}").split([' ', '(']).next().unwrap().to_owned(),
            })
            .collect();
        if done.insert(kind) {
            w.check_ends(root, n).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_project() {
    walk_from("a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_domain() {
    walk_from("domain").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_system() {
    walk_from("system").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_no_scope() {
    walk_from("unscoped").await;
}
