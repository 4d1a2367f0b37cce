//! The sweep over every route of the route tables, with real ids of a project in the place of the parameters: who has no
//! token, an expired one, one of another project, or only the role reader gets what docs/sweep.txt says, which
//! `cargo xtask sweep` writes. A new route is swept without anyone thinking of it.

use crate::bad_input::Who;
use crate::bad_input::scenery::Scenery;
use haneul_testkit::Answer;
use http::Method;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/sweep.txt");
const HEAD: &str = "# What every route answers: method, path, rule; without a token, with an expired one, with one of another project's
# member, with one of a reader of the project whose things the path names. Bodies are {}: where the right comes from what a
# body says, 400 is the answer. Public routes are asked without a token only. Written by `cargo xtask sweep`.
";

/// What stands for a parameter of a path, by the service and the part before it: a thing of the project `mine` by its
/// name in the scenery or, after `=`, the text itself. What is not here is the id of nothing.
const OURS: &[(&str, &str, &str)] = &[
    ("compute", "servers", "active"),
    ("compute", "flavors", "=secret"),
    ("compute", "metadata", "=a"),
    ("compute", "os-keypairs", "key"),
    ("compute", "os-server-groups", "group"),
    ("compute", "os-services", "service"),
    ("compute", "os-hypervisors", "host"),
    ("compute", "os-quota-sets", "mine"),
    ("compute", "os-simple-tenant-usage", "mine"),
    ("compute", "os-interface", "server_port"),
    ("compute", "os-security-groups", "web"),
    ("compute", "os-security-group-rules", "rule"),
    ("compute", "os-networks", "net"),
    ("compute", "os-tenant-networks", "net"),
    ("compute", "os-floating-ips", "fip"),
    ("compute", "images", "private"),
    ("network", "networks", "net"),
    ("network", "subnets", "subnet"),
    ("network", "ports", "port"),
    ("network", "routers", "router"),
    ("network", "floatingips", "fip"),
    ("network", "security-groups", "web"),
    ("network", "security-group-rules", "rule"),
    ("network", "quotas", "mine"),
    ("image", "images", "private"),
    ("image", "members", "theirs"),
    ("image", "tags", "=t1"),
    ("identity", "users", "mia"),
    ("identity", "projects", "mine"),
    ("identity", "domains", "=default"),
    ("identity", "roles", "member"),
    ("placement", "resource_providers", "host"),
    ("placement", "allocations", "active"),
    ("placement", "inventories", "=VCPU"),
    ("placement", "resource_classes", "=CUSTOM_TIN"),
    ("placement", "traits", "=CUSTOM_SHINY"),
];

/// Answers anybody, with the same for all: the id is only repeated (nova/policies/quota_sets.py, `defaults`).
const REPEATS: &str = "/compute/v2.1/os-quota-sets/{id}/defaults";

struct Route {
    method: Method,
    /// As in the table.
    pattern: String,
    path: String,
    rule: String,
    version: Option<String>,
}

impl Route {
    fn of(s: &Scenery, r: &Value) -> Route {
        let text = |key: &str| r[key].as_str().unwrap_or_default().to_owned();
        let pattern = text("path");
        let service = pattern.split('/').nth(1).unwrap_or_default().to_owned();
        let mut path: Vec<String> = Vec::new();
        for part in pattern.split('/') {
            let before = path.last().map(String::as_str).unwrap_or_default();
            let ours = OURS.iter().find(|(of, after, _)| *of == service && *after == before);
            path.push(match (part.starts_with('{'), ours.map(|(_, _, name)| *name)) {
                (false, _) => part.to_owned(),
                (true, None) => s.ids["no"].clone(),
                (true, Some(name)) => match name.strip_prefix('=') {
                    Some(text) => text.to_owned(),
                    None => s.ids[name].clone(),
                },
            });
        }
        let version = match (service.as_str(), text("until")) {
            ("compute" | "placement", until) if until.is_empty() => Some(format!("{service} latest")),
            ("compute" | "placement", until) => Some(format!("{service} {until}")),
            _ => None,
        };
        Route {
            method: text("method").parse().unwrap(),
            path: path.join("/"),
            pattern,
            rule: text("rule"),
            version,
        }
    }

    fn changes(&self) -> bool {
        self.rule != "public" && self.method != Method::GET && self.method != Method::HEAD
    }

    async fn ask(&self, s: &Scenery, who: Who) -> Answer {
        let mut client = s.client(who);
        client.version = self.version.clone();
        let body = if self.changes() && self.method != Method::DELETE {
            "{}"
        } else {
            ""
        };
        let json_type = [("content-type", "application/json")];
        client
            .send(self.method.clone(), &self.path, &json_type, body.into())
            .await
    }
}

async fn rows(s: &Scenery) -> Value {
    s.r.cloud.admin(Method::GET, "/admin/v1/rows").await.expect("rows")
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_sweep_refuses_rightly_on_every_route() {
    let s = Scenery::build().await;
    let all = s.r.cloud.admin(Method::GET, "/admin/v1/routes").await.expect("routes");
    let mut routes: Vec<Route> = all["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| Route::of(&s, r))
        .collect();
    routes.sort_by(|a, b| (&a.pattern, a.method.as_str()).cmp(&(&b.pattern, b.method.as_str())));
    assert!(routes.len() > 400, "{} routes", routes.len());
    let before = rows(&s).await;
    let mut wrong = Vec::new();
    let mut table = HEAD.to_owned();

    for r in &routes {
        write!(table, "{} {} {}", r.method, r.pattern, r.rule).unwrap();
        let nobody = r.ask(&s, Who::Nobody).await;
        write!(table, " {}", nobody.status).unwrap();
        if r.rule == "public" {
            table.push('\n');
            if nobody.status >= 500 {
                wrong.push(format!("{} {}: {}", r.method, r.path, nobody.text));
            }
            continue;
        }
        let told = |a: &Answer| {
            // Placement repeats the request id in the body.
            let id = a.headers["x-openstack-request-id"].to_str().unwrap().to_owned();
            (a.status, a.text.replace(&id, "ID"))
        };
        // Nothing tells a forged token from an old one, a revoked one or none.
        for who in [Who::Forged, Who::Tampered, Who::Revoked, Who::Expired] {
            let a = r.ask(&s, who).await;
            if a.status != 401 || told(&a) != told(&nobody) {
                wrong.push(format!("{who:?}: {} {}: {} {}", r.method, r.path, a.status, a.text));
            }
        }
        let expired = r.ask(&s, Who::Expired).await.status;
        let reader = r.ask(&s, Who::Reader).await;
        if reader.status >= 500 || (r.changes() && reader.status < 400) {
            wrong.push(format!(
                "a reader: {} {}: {} {}",
                r.method, r.path, reader.status, reader.text
            ));
        }
        // The other project's column is filled in below, when all that must change nothing has been counted.
        writeln!(table, " {expired} OTHER {}", reader.status).unwrap();
    }
    assert_eq!(rows(&s).await, before, "what was refused changed something");

    // Everything of `mine` that has an id of its own; what all may see has none here.
    let secrets: BTreeSet<&str> = [
        "active",
        "stopped",
        "locked",
        "paused",
        "net",
        "subnet",
        "port",
        "router",
        "fip",
        "web",
        "rule",
        "private",
        "queued_raw",
        "mia",
        "rea",
        "mine",
        "group",
    ]
    .into_iter()
    .map(|name| s.ids[name].as_str())
    .collect();
    for r in routes.iter().filter(|r| r.rule != "public") {
        let a = r.ask(&s, Who::Other).await;
        table = table.replacen("OTHER", &a.status.to_string(), 1);
        let named = r.path != r.pattern;
        let shown = (a.status < 400 && r.pattern != REPEATS)
            .then(|| secrets.iter().find(|id| a.text.contains(**id)))
            .flatten();
        if a.status >= 500 || shown.is_some() || (named && r.changes() && a.status < 400) {
            let text = format!(
                "another project: {} {}: {} {} {shown:?}",
                r.method, r.path, a.status, a.text
            );
            wrong.push(text);
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), s.r.cloud.tail());
    s.r.cloud.audit().await;

    if std::env::var_os("HANEUL_TEST_WRITE_SWEEP").is_some() {
        std::fs::write(TABLE, table).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(TABLE).unwrap_or_default();
    let differ: Vec<String> = diff(&committed, &table);
    assert!(
        differ.is_empty(),
        "docs/sweep.txt: look at these, then `cargo xtask sweep`\n{}",
        differ.join("\n")
    );
}

/// Lines that only one of two texts has.
fn diff(old: &str, new: &str) -> Vec<String> {
    let (a, b): (BTreeSet<&str>, BTreeSet<&str>) = (old.lines().collect(), new.lines().collect());
    let gone = a.difference(&b).map(|l| format!("- {l}"));
    let come = b.difference(&a).map(|l| format!("+ {l}"));
    gone.chain(come).collect()
}
