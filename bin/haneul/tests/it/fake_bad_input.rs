//! Bad input over all services (bad_input/): every row has the real service's status and shape of body, and
//! after every row no table has a row more or less, and the audit finds nothing.

use crate::bad_input::scenery::Scenery;
use crate::bad_input::{Category, JSON, Payload, Row, compute, fill, identity, image, network, placement};
use haneul_http::Service;
use haneul_store::{Db, OpenOptions};
use haneul_testkit::{Answer, eventually};
use http::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// How many rows each table has, read from the file beside the processes that write it.
struct Rows {
    db: Db,
    sql: String,
}

impl Rows {
    async fn of(dir: &Path) -> Rows {
        let url = format!("sqlite:{}", dir.join("control/haneul.db").display());
        let db = Db::open(&OpenOptions { url, readers: 1 }, &[])
            .await
            .expect("the database");
        let names = db
            .read()
            .await
            .expect("a snapshot")
            .rows(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, 7) <> 'sqlite_' ORDER BY name",
                &[],
            )
            .await
            .expect("names");
        let one = |t: &str| format!("SELECT '{t}', COUNT(*) FROM {t}");
        let all: Vec<String> = names.iter().map(|r| one(&r.str(0).expect("a name"))).collect();
        assert!(all.len() > 40, "{} tables", all.len());
        let sql = all.join(" UNION ALL ");
        Rows { db, sql }
    }

    async fn count(&self) -> BTreeMap<String, i64> {
        let mut tx = self.db.read().await.expect("a snapshot");
        let rows = tx.rows(&self.sql, &[]).await.expect("counts");
        let count = |r: &haneul_store::Row| (r.str(0).expect("a name"), r.i64(1).expect("a number"));
        rows.iter().map(count).collect()
    }
}

/// The files in which images are kept.
fn files(dir: &Path) -> BTreeSet<String> {
    let list = std::fs::read_dir(dir.join("control/images")).expect("the images");
    list.map(|f| f.expect("a file").file_name().to_string_lossy().into_owned())
        .collect()
}

async fn send(s: &Scenery, row: &Row) -> Answer {
    let path = fill(&row.path, &s.ids);
    let headers: Vec<(&str, String)> = row.headers.iter().map(|(n, v)| (*n, fill(v, &s.ids))).collect();
    let mut headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let (kind, body) = match &row.body {
        Payload::Nothing => ("", vec![]),
        Payload::Json(v) => (JSON, fill(&v.to_string(), &s.ids).into_bytes()),
        Payload::Raw(kind, bytes) => (*kind, bytes.clone()),
    };
    if !kind.is_empty() {
        headers.push(("content-type", kind));
    }
    s.client(row.who).send(row.method.clone(), &path, &headers, body).await
}

/// The message, when the answer has the shape of its service's errors.
fn message(row: &Row, a: &Answer) -> Result<String, String> {
    let body = &a.body;
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    if !a
        .headers
        .get("x-openstack-request-id")
        .is_some_and(|v| v.as_bytes().starts_with(b"req-"))
    {
        return Err("no x-openstack-request-id".into());
    }
    // Whichever the service, keystonemiddleware answers; and Keystone in the same form.
    if row.status == 401 {
        if !a.headers.contains_key("www-authenticate") {
            return Err("no www-authenticate".into());
        }
        let e = &body["error"];
        let shaped = e["code"] == 401 && e["title"] == "Unauthorized" && body.as_object().map(|o| o.len()) == Some(1);
        return shaped
            .then(|| text(&e["message"]))
            .ok_or("not the 401 of keystonemiddleware".into());
    }
    match row.service {
        Service::Compute => {
            // nova/api/openstack/wsgi.py, Fault.
            let name = match row.status {
                400 => "badRequest",
                403 => "forbidden",
                404 => "itemNotFound",
                405 => "badMethod",
                409 => "conflictingRequest",
                413 => "overLimit",
                415 => "badMediaType",
                501 => "notImplemented",
                _ => "computeFault",
            };
            let shaped = body[name]["code"] == row.status && body.as_object().map(|o| o.len()) == Some(1);
            shaped
                .then(|| text(&body[name]["message"]))
                .ok_or(format!("not a {name}"))
        }
        Service::Network => {
            let e = &body["NeutronError"];
            if e["type"] != row.kind {
                return Err(format!("the type is {}, and should be {}", e["type"], row.kind));
            }
            e["detail"]
                .is_string()
                .then(|| text(&e["message"]))
                .ok_or("no detail".into())
        }
        Service::Placement => {
            let e = &body["errors"][0];
            let shaped = e["status"] == row.status && e["title"].is_string() && e["request_id"].is_string();
            if !shaped || (!row.kind.is_empty() && e["code"] != row.kind) {
                return Err(format!("not an error of Placement with the code {}", row.kind));
            }
            // microversion_parse says what would do.
            if row.status == 406 && !(e["min_version"].is_string() && e["max_version"].is_string()) {
                return Err("no min_version and max_version".into());
            }
            Ok(text(&e["detail"]))
        }
        Service::Image => {
            // webob: HTML, unless JSON is preferred.
            let html = !row.headers.iter().any(|(n, v)| *n == "accept" && v == JSON);
            let title = format!("{} ", row.status);
            if html {
                let shaped = a.text.contains(&format!("<title>{title}")) && a.text.starts_with("<html>");
                return shaped.then(|| a.text.clone()).ok_or("not webob's HTML".into());
            }
            let shaped = body["code"].as_str().is_some_and(|c| c.starts_with(&title)) && body["title"].is_string();
            shaped.then(|| text(&body["message"])).ok_or("not webob's JSON".into())
        }
        Service::Identity | Service::Front => {
            let e = &body["error"];
            let shaped = e["code"] == row.status && e["title"].is_string();
            shaped
                .then(|| text(&e["message"]))
                .ok_or("not an error of Keystone".into())
        }
    }
}

/// What is wrong with an answer.
fn judge(s: &Scenery, row: &Row, a: &Answer) -> Option<String> {
    if a.status != row.status {
        return Some(format!("{} instead of {}", a.status, row.status));
    }
    match message(row, a) {
        Err(why) => Some(why),
        Ok(m) if m.is_empty() => Some("no message".into()),
        Ok(m) if !m.contains(&fill(row.says, &s.ids)) => Some(format!("does not say \"{}\"", row.says)),
        Ok(_) => None,
    }
}

/// Each category has rows in each service to which it applies.
fn covered(rows: &[Row]) {
    use Category as C;
    let everywhere = [
        C::Malformed,
        C::WrongType,
        C::UnknownField,
        C::TooLong,
        C::HugeBody,
        C::BadId,
        C::Exhausted,
        C::InUse,
        C::WrongState,
        C::Others,
        C::Token,
        C::Value,
    ];
    let network = [C::BadCidr, C::Overlap];
    let image = [C::HostileImage];
    for (service, more) in [
        (Service::Identity, &[][..]),
        (Service::Image, &image),
        (Service::Network, &network),
        (Service::Compute, &[]),
        (Service::Placement, &[]),
    ] {
        for c in everywhere.iter().chain(more) {
            let n = rows.iter().filter(|r| r.service == service && r.category == *c).count();
            assert!(n > 0, "no row of {service:?} is about {c:?}");
        }
    }
    assert!(rows.iter().all(|r| !r.doc.is_empty()));
    let names: BTreeSet<_> = rows.iter().map(|r| (r.service.prefix(), r.category, &r.name)).collect();
    assert_eq!(names.len(), rows.len(), "two rows have the same name");
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_bad_input_changes_nothing_and_is_answered_as_the_real_services_do() {
    let rows: Vec<Row> = [
        identity::rows(),
        image::rows(),
        network::rows(),
        compute::rows(),
        placement::rows(),
    ]
    .into_iter()
    .flatten()
    .collect();
    covered(&rows);
    let s = Scenery::build().await;
    let cloud = &s.r.cloud;
    cloud.audit().await;
    let table = Rows::of(&cloud.dir).await;
    // What the scenery left to do later: the last round of "members of a group changed".
    let mut before = eventually("nothing is left to do", Duration::from_secs(10), || async {
        let count = table.count().await;
        (count["members_changed"] == 0).then_some(count)
    })
    .await;
    let mut kept = files(&cloud.dir);
    let mut wrong = Vec::new();
    for row in &rows {
        let a = send(&s, row).await;
        let mut found: Vec<String> = judge(&s, row, &a).into_iter().collect();
        if let Some(log) = before.get_mut("change_log") {
            *log += row.changes;
        }
        let after = table.count().await;
        if after != before {
            let changed = after.iter().filter(|(t, n)| before.get(*t) != Some(n));
            found.push(format!("rows were written: {:?}", changed.collect::<Vec<_>>()));
            before = after;
        }
        let now = files(&cloud.dir);
        if now != kept {
            found.push(format!(
                "there are {} files of images instead of {}",
                now.len(),
                kept.len()
            ));
            kept = now;
        }
        let audit = cloud.admin(Method::GET, "/admin/v1/audit").await.expect("an audit");
        if audit["findings"] != json!([]) {
            found.push(format!("the audit finds {}", audit["findings"]));
        }
        if !found.is_empty() {
            wrong.push(format!(
                "{:?}, {:?}, \"{}\" ({}): {}\n    {} {} by {:?}: {} {}",
                row.service,
                row.category,
                row.name,
                row.doc,
                found.join("; "),
                row.method,
                row.path,
                row.who,
                a.status,
                a.text.chars().take(400).collect::<String>().replace('\n', " ")
            ));
        }
    }
    println!("{} rows", rows.len());
    assert!(
        wrong.is_empty(),
        "{} of {} rows:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
}
