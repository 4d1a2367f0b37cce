//! Lists: filters on any attribute, sorting, pages, `fields`.
//!
//! What can be asked of the database is (columns of the table); the rest is compared with what would be
//! shown. Both give the same answer, the first is quick.

use crate::Network;
use crate::err::bad;
use crate::model::Described;
use crate::policy;
use haneul_auth::{Ctx, Secured, Target};
use haneul_core::{Error, Result, clock};
use haneul_http::request::parse_bool;
use haneul_http::request::percent_encode;
use haneul_http::{Page, Reply, Req};
use haneul_store::{Dir, Query, Stored, Tx, V};
use serde_json::{Map, Value, json};
use std::cmp::Ordering;
use std::sync::Arc;

/// An object as shown.
pub(crate) type Shown = Map<String, Value>;

/// What is stored in a column that filters and sort keys can use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Col {
    Text,
    Bool,
}

/// A resource with a list.
pub(crate) trait Listed: Secured + Described {
    /// `networks`
    const MANY: &'static str;
    /// `network`
    const ONE: &'static str;
    /// `get_network`
    const GET: &'static str;
    /// Attribute, column and kind, beside `id`, `name` and `project_id`.
    const COLUMNS_OF: &'static [(&'static str, &'static str, Col)];
    /// Every attribute that is shown.
    const ATTRIBUTES: &'static [&'static str];
    /// Narrows a list to what the caller may see.
    fn scope(ctx: &Ctx, query: Query) -> Query;
    /// Filters that are looked up in other tables; `None`: not one of these.
    fn special(query: Query, name: &str, values: &[String]) -> (Query, bool) {
        let _ = (name, values);
        (query, false)
    }
    /// Shows rows, all attributes; hidden ones are taken away by the caller.
    fn show(app: &Network, tx: &mut Tx, rows: &[Stored<Self>]) -> impl Future<Output = Result<Vec<Shown>>> + Send;
}

/// What all resources show.
pub(crate) fn standard<T: Secured + Described>(s: &Stored<T>) -> Shown {
    let mut m = Map::new();
    m.insert("id".into(), s.value.id().into());
    m.insert("name".into(), s.value.name().into());
    m.insert("project_id".into(), s.value.project_id().unwrap_or_default().into());
    m.insert("tenant_id".into(), s.value.project_id().unwrap_or_default().into());
    m.insert("description".into(), s.value.description().into());
    m.insert("tags".into(), json!(s.value.tags()));
    m.insert("created_at".into(), clock::iso(s.created_at).into());
    m.insert("updated_at".into(), clock::iso(s.updated_at).into());
    m.insert("revision_number".into(), s.generation.into());
    m
}

/// Adds the members of a JSON object.
pub(crate) fn with(mut base: Shown, more: Value) -> Shown {
    if let Value::Object(o) = more {
        base.extend(o);
    }
    base
}

/// Takes away what the caller may not see.
pub(crate) fn hide(ctx: &Ctx, get: &str, shown: &mut [Shown]) {
    let hidden = policy::hidden(ctx, get);
    for s in shown {
        s.retain(|k, _| !hidden.contains(&k.as_str()));
    }
}

/// `{"network": {...}}` of one row.
pub(crate) async fn one<T: Listed>(app: &Network, tx: &mut Tx, ctx: &Ctx, row: &Stored<T>) -> Result<Shown> {
    let mut shown = T::show(app, tx, std::slice::from_ref(row)).await?;
    hide(ctx, T::GET, &mut shown);
    shown.pop().ok_or_else(|| Error::internal("nothing to show"))
}

/// Keeps the attributes that `fields` names.
pub(crate) fn pick(req: &Req, shown: &mut [Shown]) {
    let wanted: Vec<&str> = req
        .qs("fields")
        .flat_map(|f| f.split(','))
        .filter(|f| !f.is_empty())
        .collect();
    if !wanted.is_empty() {
        for s in shown {
            s.retain(|k, _| wanted.contains(&k.as_str()));
        }
    }
}

const RESERVED: &[&str] = &[
    "fields",
    "limit",
    "marker",
    "sort_key",
    "sort_dir",
    "page_reverse",
    "tags",
    "tags-any",
    "not-tags",
    "not-tags-any",
];

fn column<T: Listed>(attribute: &str) -> Option<(&'static str, Col)> {
    match attribute {
        "id" => Some(("id", Col::Text)),
        "name" if T::ONE != "floatingip" => Some(("name", Col::Text)),
        "project_id" => Some(("project_id", Col::Text)),
        _ => T::COLUMNS_OF
            .iter()
            .find(|(a, ..)| *a == attribute)
            .map(|(_, c, k)| (*c, *k)),
    }
}

fn alias(name: &str) -> &str {
    if name == "tenant_id" { "project_id" } else { name }
}

/// The filters of a request: attribute and the values of which any may match.
fn filters<T: Listed>(req: &Req) -> Result<Vec<(String, Vec<String>)>> {
    let mut out: Vec<(String, Vec<String>)> = Vec::new();
    let mut strange = Vec::new();
    for (name, value) in &req.query {
        if RESERVED.contains(&name.as_str()) {
            continue;
        }
        let name = alias(name);
        if !T::ATTRIBUTES.contains(&name) && column::<T>(name).is_none() && !T::special(Query::new(), name, &[]).1 {
            strange.push(name.to_owned());
            continue;
        }
        match out.iter_mut().find(|(n, _)| n == name) {
            Some((_, values)) => values.push(value.clone()),
            None => out.push((name.to_owned(), vec![value.clone()])),
        }
    }
    match strange.first() {
        None => Ok(out),
        Some(first) => Err(bad(
            "HTTPBadRequest",
            first,
            format!("['{}'] is invalid attribute for filtering", strange.join("', '")),
        )),
    }
}

fn sorts<T: Listed>(req: &Req) -> Result<Vec<(String, Dir)>> {
    let keys: Vec<&str> = req.qs("sort_key").filter(|k| !k.is_empty()).map(alias).collect();
    let dirs: Vec<&str> = req.qs("sort_dir").filter(|k| !k.is_empty()).collect();
    if keys.len() != dirs.len() && !dirs.is_empty() {
        return Err(bad(
            "HTTPBadRequest",
            "sort_dir",
            "The number of sort_keys and sort_dirs must be same",
        ));
    }
    let mut out = Vec::new();
    for (i, key) in keys.iter().enumerate() {
        if !T::ATTRIBUTES.contains(key) && column::<T>(key).is_none() {
            return Err(bad(
                "HTTPBadRequest",
                "sort_key",
                format!("['{key}'] is invalid attribute for sort_keys"),
            ));
        }
        let dir = match dirs.get(i).copied() {
            None | Some("asc") => Dir::Asc,
            Some("desc") => Dir::Desc,
            Some(other) => {
                return Err(bad(
                    "HTTPBadRequest",
                    "sort_dir",
                    format!("['{other}'] is invalid value for sort_dirs, valid value is 'asc' and 'desc'"),
                ));
            }
        };
        out.push(((*key).to_owned(), dir));
    }
    if out.iter().all(|(k, _)| k != "id") {
        out.push(("id".into(), Dir::Asc));
    }
    Ok(out)
}

/// Whether a shown value matches one of the texts.
fn matches(shown: Option<&Value>, values: &[String]) -> bool {
    let text = |v: &Value| match v {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    values.iter().any(|want| match shown {
        None | Some(Value::Null) => want.is_empty() || want == "None" || want == "null",
        Some(Value::Bool(b)) => parse_bool(want) == Some(*b),
        Some(Value::Array(items)) => items.iter().any(|i| &text(i) == want),
        Some(Value::String(s)) if s.parse::<std::net::Ipv6Addr>().is_ok() => {
            s == want || s.parse::<std::net::IpAddr>().ok() == want.parse().ok()
        }
        Some(v) => &text(v) == want,
    })
}

fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(Value::Number(x)), Some(Value::Number(y))) => {
            x.as_f64().partial_cmp(&y.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Some(Value::Bool(x)), Some(Value::Bool(y))) => x.cmp(y),
        (Some(Value::String(x)), Some(Value::String(y))) => x.cmp(y),
        (x, y) => {
            let t = |v: Option<&Value>| v.filter(|v| !v.is_null()).map(Value::to_string).unwrap_or_default();
            t(x).cmp(&t(y))
        }
    }
}

/// Which tags a resource must or must not have.
struct TagFilter {
    all: Vec<String>,
    any: Vec<String>,
    not_all: Vec<String>,
    not_any: Vec<String>,
}

impl TagFilter {
    fn of(req: &Req) -> Self {
        let read = |name| -> Vec<String> {
            req.qs(name)
                .flat_map(|v| v.split(','))
                .filter(|v| !v.is_empty())
                .map(str::to_owned)
                .collect()
        };
        Self {
            all: read("tags"),
            any: read("tags-any"),
            not_all: read("not-tags"),
            not_any: read("not-tags-any"),
        }
    }
    fn is_empty(&self) -> bool {
        self.all.is_empty() && self.any.is_empty() && self.not_all.is_empty() && self.not_any.is_empty()
    }
    fn fits(&self, tags: &[String]) -> bool {
        let has = |t: &String| tags.contains(t);
        self.all.iter().all(has)
            && (self.any.is_empty() || self.any.iter().any(has))
            && (self.not_all.is_empty() || !self.not_all.iter().all(has))
            && !self.not_any.iter().any(has)
    }
}

/// `GET /v2.0/networks` and the like.
pub(crate) async fn list<T: Listed>(app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    ctx.enforce(
        T::GET,
        &Target::own(&ctx)
            .with("network:project_id", ctx.project_id())
            .with("security_group:project_id", ctx.project_id()),
    )?;
    let page = page(&req)?;
    let reverse = req.q("page_reverse").is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let tags = TagFilter::of(&req);
    let mut query = T::scope(&ctx, Query::new());
    let mut rest = Vec::new();
    for (name, values) in filters::<T>(&req)? {
        let (next, done) = T::special(query, &name, &values);
        query = next;
        if done {
            continue;
        }
        query = match column::<T>(&name) {
            Some((column, Col::Text)) => query.is_in(column, values),
            Some((column, Col::Bool)) => {
                let bits: Vec<bool> = values.iter().filter_map(|v| parse_bool(v)).collect();
                query.is_in(column, bits)
            }
            None => {
                rest.push((name, values));
                query
            }
        };
    }
    let sort = sorts::<T>(&req)?;
    let columns: Option<Vec<(&'static str, Col, Dir)>> = sort
        .iter()
        .map(|(k, d)| column::<T>(k).map(|(c, kind)| (c, kind, if reverse { flip(*d) } else { *d })))
        .collect();
    let mut tx = app.db.read().await?;
    let (shown, more) = match columns.filter(|_| rest.is_empty() && tags.is_empty()) {
        Some(columns) => quick::<T>(&app, &mut tx, query, &page, &columns).await?,
        None => slow::<T>(&app, &mut tx, query, &page, &rest, &tags, &sort, reverse).await?,
    };
    let mut shown = shown;
    if reverse {
        shown.reverse();
    }
    let links = links::<T>(&req, &page, &shown, more, reverse);
    hide(&ctx, T::GET, &mut shown);
    pick(&req, &mut shown);
    let mut out = json!({ T::MANY: shown });
    if let (Some(links), Some(o)) = (links, out.as_object_mut()) {
        o.insert(format!("{}_links", T::MANY), links);
    }
    Ok(Reply::ok(&out))
}

fn page(req: &Req) -> Result<Page> {
    match req.q("limit").map(|l| l.parse::<i64>()) {
        Some(Err(_)) => {}
        Some(Ok(n)) if n < 0 => {}
        _ => return Page::of(req),
    }
    let text = req.q("limit").unwrap_or_default();
    Err(bad(
        "BadRequest",
        "limit",
        format!("Bad limit request: Limit must be an integer 0 or greater and not '{text}'."),
    ))
}

fn flip(d: Dir) -> Dir {
    match d {
        Dir::Asc => Dir::Desc,
        Dir::Desc => Dir::Asc,
    }
}

fn bad_marker<T: Listed>(marker: &str) -> Error {
    let e = T::not_found(marker);
    Error::not_found(format!(
        "{} It is the marker of the page that was asked for.",
        e.public()
    ))
    .with_code(e.code())
    .with_field("marker")
}

async fn quick<T: Listed>(
    app: &Network,
    tx: &mut Tx,
    mut query: Query,
    page: &Page,
    columns: &[(&'static str, Col, Dir)],
) -> Result<(Vec<Shown>, bool)> {
    for (c, _, d) in columns {
        query = query.order(c, *d);
    }
    if let Some(marker) = &page.marker {
        let names: Vec<&str> = columns.iter().map(|(c, ..)| *c).collect();
        let row = tx
            .row(
                &format!("SELECT {} FROM {} WHERE id = $1", names.join(", "), T::TABLE),
                &[marker.into()],
            )
            .await?
            .ok_or_else(|| bad_marker::<T>(marker))?;
        let mut values: Vec<V> = Vec::new();
        for (i, (_, kind, _)) in columns.iter().enumerate() {
            values.push(match kind {
                Col::Text => row.opt_str(i)?.unwrap_or_default().into(),
                Col::Bool => row.i64(i)?.into(),
            });
        }
        query = query.after(values);
    }
    let mut rows = tx.list::<T>(&query.limit(page.fetch())).await?;
    let more = page.cut(&mut rows);
    Ok((T::show(app, tx, &rows).await?, more))
}

#[allow(clippy::too_many_arguments)]
async fn slow<T: Listed>(
    app: &Network,
    tx: &mut Tx,
    query: Query,
    page: &Page,
    rest: &[(String, Vec<String>)],
    tags: &TagFilter,
    sort: &[(String, Dir)],
    reverse: bool,
) -> Result<(Vec<Shown>, bool)> {
    let rows = tx.list::<T>(&query).await?;
    let rows: Vec<Stored<T>> = rows.into_iter().filter(|r| tags.fits(r.value.tags())).collect();
    let mut shown = T::show(app, tx, &rows).await?;
    shown.retain(|s| rest.iter().all(|(name, values)| matches(s.get(name), values)));
    shown.sort_by(|a, b| {
        sort.iter()
            .map(|(k, d)| {
                let o = compare(a.get(k), b.get(k));
                if *d == Dir::Asc { o } else { o.reverse() }
            })
            .find(|o| o.is_ne())
            .unwrap_or(Ordering::Equal)
    });
    if reverse {
        shown.reverse();
    }
    if let Some(marker) = &page.marker {
        let at = shown
            .iter()
            .position(|s| s.get("id").and_then(Value::as_str) == Some(marker))
            .ok_or_else(|| bad_marker::<T>(marker))?;
        shown.drain(..=at);
    }
    let more = page.cut(&mut shown);
    Ok((shown, more))
}

fn links<T: Listed>(req: &Req, page: &Page, shown: &[Shown], more: bool, reverse: bool) -> Option<Value> {
    let mut out = Vec::new();
    let mut push = |rel: &str, marker: Option<&Shown>, back: bool| {
        let Some(id) = marker.and_then(|s| s.get("id")).and_then(Value::as_str) else {
            return;
        };
        let mut parts: Vec<String> = req
            .query
            .iter()
            .filter(|(k, _)| k != "marker" && k != "page_reverse")
            .map(|(k, v)| format!("{}={}", percent_encode(k), percent_encode(v)))
            .collect();
        parts.push(format!("marker={}", percent_encode(id)));
        if back {
            parts.push("page_reverse=True".into());
        }
        out.push(json!({"rel": rel, "href": format!("{}{}?{}", req.base, req.uri_path, parts.join("&"))}));
    };
    if !reverse && more || reverse && page.marker.is_some() {
        push("next", shown.last(), false);
    }
    if page.asked && (reverse && more || !reverse && page.marker.is_some()) {
        push("previous", shown.first(), true);
    }
    (!out.is_empty()).then_some(Value::Array(out))
}
