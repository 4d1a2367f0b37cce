//! What the handlers share: bodies without secrets in errors, open attributes, lists with filters and pages,
//! views.

use crate::Identity;
use haneul_auth::{Action, Ctx, ScopeKind, Secured, Target, fetch};
use haneul_core::clock::{self, Micros};
use haneul_core::{Error, Result};
use haneul_http::request::percent_encode;
use haneul_http::{Body, FieldKind, Page, Reply, Req, Ver, fields};
use haneul_store::{Dir, Query, Resource, Stored, Tx};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A name of a user, group or role (keystone/identity/schema.py: 1 to 255, not only white space).
pub(crate) const NAME: FieldKind = FieldKind::Check(|v| name(v, 255));
/// A name of a project or domain (keystone/resource/schema.py: 1 to 64).
pub(crate) const NAME64: FieldKind = FieldKind::Check(|v| name(v, 64));
/// A text without a limit of its own.
pub(crate) const TEXT: FieldKind = FieldKind::Str { min: 0, max: 65_535 };
/// An id as people choose them.
pub(crate) const ID: FieldKind = FieldKind::Check(|v| match v.as_str() {
    None => Err("It must be a string.".into()),
    Some(s) if s.is_empty() || s.len() > 64 => Err("It must have 1 to 64 characters.".into()),
    Some(s) if !s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') => {
        Err("It must consist of letters, digits, - and _.".into())
    }
    Some(_) => Ok(()),
});
/// A password (keystone.conf `[identity] max_password_length`).
pub(crate) const PASSWORD: FieldKind = FieldKind::Str { min: 1, max: 4096 };
/// A boolean and nothing that reads as one, where Keystone's schema is strict.
pub(crate) const STRICT_BOOL: FieldKind = FieldKind::Check(|v| match v.is_boolean() {
    true => Ok(()),
    false => Err("It must be true or false, without quotes.".into()),
});
/// A time at which something ends.
pub(crate) const EXPIRES: FieldKind = FieldKind::Check(|v| match v.as_str().and_then(haneul_core::clock::parse) {
    Some(_) => Ok(()),
    None => Err("It must be a time such as 2027-01-31T12:00:00.".into()),
});
/// The options of a domain, project or role (keystone/common/resource_options).
pub(crate) const OPTIONS: FieldKind = FieldKind::Check(|v| {
    let options = v.as_object().ok_or("It must be an object.")?;
    match options
        .iter()
        .find(|(name, v)| *name != "immutable" || !(v.is_boolean() || v.is_null()))
    {
        None => Ok(()),
        Some((name, _)) if name == "immutable" => Err("The option immutable must be true, false or null.".into()),
        Some((name, _)) => Err(format!("There is no option {name}: there is immutable.")),
    }
});
/// A tag of a project (API reference: up to 255 characters, no comma or slash).
pub(crate) const TAG: FieldKind = FieldKind::Check(|v| match v.as_str() {
    None => Err("It must be a string.".into()),
    Some(s) => tag(s),
});
pub(crate) const TAGS: FieldKind = FieldKind::List { of: &TAG, max: 80 };

pub(crate) fn tag(s: &str) -> Result<(), String> {
    if s.is_empty() || s.chars().count() > 255 || s.contains([',', '/']) {
        return Err("It must have 1 to 255 characters, without comma and slash.".into());
    }
    Ok(())
}

fn name(v: &Value, max: usize) -> Result<(), String> {
    match v.as_str() {
        None => Err("It must be a string.".into()),
        Some(s) if s.trim().is_empty() => Err("It must not be empty or white space only.".into()),
        Some(s) if s.chars().count() > max => Err(format!(
            "It is too long: {} characters, and at most {max} are allowed.",
            s.chars().count()
        )),
        Some(_) => Ok(()),
    }
}

/// The value with every secret in it replaced by stars of the same length, so that an error which shows
/// what it refuses shows none. `under` is the name of the object around it.
pub(crate) fn masked(value: &Value, under: &str) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| {
                let shown = match (under, k.as_str()) {
                    // The method's data, which has the secret further in.
                    ("identity", "password") if v.is_object() => masked(v, k),
                    (_, "password" | "original_password" | "secret" | "blob" | "passcode" | "signature")
                    | ("token", "id") => stars(v),
                    _ => masked(v, k),
                };
                (k.clone(), shown)
            })
            .collect(),
        Value::Array(list) => list.iter().map(|v| masked(v, under)).collect(),
        other => other.clone(),
    }
}

fn stars(v: &Value) -> Value {
    match v {
        Value::Null => Value::Null,
        Value::String(s) => "*".repeat(s.chars().count()).into(),
        Value::Array(_) => json!([]),
        Value::Object(_) => json!({}),
        _ => json!(0),
    }
}

/// The object under `wrapper`, checked against its table. As `Req::fields`, but what is secret does not
/// reach an error's text.
pub(crate) async fn body(req: &mut Req, wrapper: &str, table: &Body) -> Result<Map<String, Value>> {
    let mut value = req.json().await?;
    let Some(inner) = value.get_mut(wrapper).map(Value::take) else {
        return Err(Error::field(
            wrapper,
            format!(
                "Invalid input for field '{wrapper}': the request body must be an object with the key '{wrapper}'."
            ),
        ));
    };
    let other = value.as_object().and_then(|o| o.keys().find(|k| *k != wrapper));
    if let Some(other) = other {
        return Err(Error::field(
            other.clone(),
            format!("Invalid input: additional properties are not allowed ('{other}' beside '{wrapper}')."),
        ));
    }
    fields::check(table, &masked(&inner, wrapper), Ver(0, 0), wrapper)?;
    match inner {
        Value::Object(map) => Ok(map),
        _ => Err(Error::field(
            wrapper,
            format!("Invalid input for field '{wrapper}': it must be an object."),
        )),
    }
}

/// Taking known fields out of a body; what is left is the resource's own.
pub(crate) trait Take {
    fn text(&mut self, name: &str) -> Option<String>;
    /// `Some(None)`: it was set to null.
    fn nullable(&mut self, name: &str) -> Option<Option<String>>;
    fn flag(&mut self, name: &str) -> Option<bool>;
    fn object(&mut self, name: &str) -> Option<Map<String, Value>>;
    fn texts(&mut self, name: &str) -> Option<Vec<String>>;
    /// The rest, without names that only the cloud gives.
    fn rest(self) -> Map<String, Value>;
}

impl Take for Map<String, Value> {
    fn text(&mut self, name: &str) -> Option<String> {
        self.nullable(name).flatten()
    }
    fn nullable(&mut self, name: &str) -> Option<Option<String>> {
        self.remove(name).map(|v| v.as_str().map(str::to_owned))
    }
    fn flag(&mut self, name: &str) -> Option<bool> {
        self.remove(name).as_ref().and_then(fields::boolean)
    }
    fn object(&mut self, name: &str) -> Option<Map<String, Value>> {
        match self.remove(name) {
            Some(Value::Object(map)) => Some(map),
            _ => None,
        }
    }
    fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        let list = self.remove(name)?;
        Some(
            list.as_array()?
                .iter()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect(),
        )
    }
    fn rest(mut self) -> Map<String, Value> {
        // Names of our own members, and those that a view adds: a user's attribute never stands for one.
        for name in [
            "id",
            "links",
            "name",
            "domain_id",
            "parent_id",
            "is_domain",
            "enabled",
            "description",
            "tags",
            "options",
            "default_project_id",
            "password",
            "original_password",
            "password_expires_at",
            "password_set_at",
            "password_self_service",
            "federated",
            "type",
            "url",
            "interface",
            "service_id",
            "region_id",
            "region",
            "parent_region_id",
        ] {
            self.remove(name);
        }
        self
    }
}

/// Refuses a change that changes nothing (the update schemas' `minProperties`) or whose `id` is not the one of the path.
pub(crate) fn check_change(map: &Map<String, Value>, id: &str, what: &str) -> Result<()> {
    match map.get("id") {
        _ if map.is_empty() => Err(Error::field(
            what,
            format!("Invalid input for field '{what}': it is empty. Name at least one attribute to change."),
        )),
        Some(v) if v.as_str() != Some(id) => Err(Error::field(
            format!("{what}.id"),
            format!("Cannot change {what} ID: the field id is not the id in the path."),
        )),
        _ => Ok(()),
    }
}

/// Refuses a change of the domain.
pub(crate) fn same_domain(map: &Map<String, Value>, domain: &str, what: &str) -> Result<()> {
    match map.get("domain_id") {
        Some(v) if !v.is_null() && v.as_str() != Some(domain) => Err(Error::field(
            format!("{what}.domain_id"),
            "Cannot change Domain ID: the field domain_id cannot be updated.",
        )),
        _ => Ok(()),
    }
}

/// The domain of a new thing whose body names none: that of the token's scope (keystone's
/// `_get_domain_id_from_token`).
pub(crate) fn own_domain(ctx: &Ctx) -> String {
    match &ctx.scope {
        ScopeKind::Domain { id, .. } => id.clone(),
        ScopeKind::Project { domain_id, .. } => domain_id.clone(),
        _ => crate::DEFAULT_DOMAIN.to_owned(),
    }
}

/// What the rule of a list is checked against: the domain of a domain-scoped token.
pub(crate) fn list_target(ctx: &Ctx) -> Target {
    match ctx.domain_scope() {
        Some(d) => Target::default().with("target.domain_id", d),
        None => Target::default(),
    }
}

/// Something that clashes with what is there (keystone/exception.py, `Conflict`).
pub(crate) fn conflict(what: &str, details: impl std::fmt::Display) -> Error {
    Error::conflict(format!("Conflict occurred attempting to store {what} - {details}."))
}

/// An immutable resource (keystone's `immutable` option).
pub(crate) fn is_immutable(options: &Map<String, Value>) -> bool {
    options.get("immutable").and_then(Value::as_bool) == Some(true)
}

/// Refuses a change of an immutable resource, unless it makes it mutable and nothing else.
pub(crate) fn check_immutable(old: &Map<String, Value>, body: &Map<String, Value>, what: &str, id: &str) -> Result<()> {
    let opens = body.len() == 1
        && body
            .get("options")
            .and_then(|o| o.get("immutable"))
            .is_some_and(|v| v != &Value::Bool(true));
    if is_immutable(old) && !opens {
        return Err(Error::forbidden(format!(
            "Unable to update immutable {what} resource: {id}. Set the resource option 'immutable' to false first."
        )));
    }
    Ok(())
}

/// Refuses the deletion of an immutable resource.
pub(crate) fn check_deletable(options: &Map<String, Value>, what: &str, id: &str) -> Result<()> {
    if is_immutable(options) {
        return Err(Error::forbidden(format!(
            "Unable to delete immutable {what} resource: {id}. Set the resource option 'immutable' to false first."
        )));
    }
    Ok(())
}

/// The options of something new.
pub(crate) fn new_options(body: &mut Map<String, Value>) -> Map<String, Value> {
    let mut options = Map::new();
    merge_options(&mut options, body.object("options").unwrap_or_default());
    options
}

/// New options over old ones; null takes one away.
pub(crate) fn merge_options(old: &mut Map<String, Value>, new: Map<String, Value>) {
    for (k, v) in new {
        if v.is_null() {
            old.remove(&k);
        } else {
            old.insert(k, v);
        }
    }
}

/// A resource's document with its own link.
pub(crate) fn view<T: Resource>(base: &str, collection: &str, value: &T) -> Value {
    let mut doc = serde_json::to_value(value).unwrap_or(Value::Null);
    put(
        &mut doc,
        "links",
        json!({"self": format!("{base}/v3/{collection}/{}", percent_encode(value.id()))}),
    );
    doc
}

pub(crate) fn put(doc: &mut Value, name: &str, value: Value) {
    if let Some(map) = doc.as_object_mut() {
        map.insert(name.to_owned(), value);
    }
}

pub(crate) fn remove(doc: &mut Value, name: &str) {
    if let Some(map) = doc.as_object_mut() {
        map.remove(name);
    }
}

/// Deletes what a path names, with what goes with it, and ends the tokens that were worth something by it. `before` may
/// refuse.
pub(crate) async fn delete<A, F>(app: Arc<Identity>, ctx: &Ctx, id: String, action: A, before: F) -> Result<Reply>
where
    A: Action + Copy + Send + Sync + 'static,
    A::On: Secured,
    F: for<'t> AsyncFn(&'t mut Tx, &'t A::On) -> Result<()> + Send + Sync + 'static,
{
    let (this, asker) = (app.clone(), ctx.clone());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, action, &id).await?;
            before(tx, &found).await?;
            this.invalidate(tx).await?;
            tx.delete(&found).await
        })
        .await?;
    Ok(Reply::no_content())
}

/// How a filter's value is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A column of text.
    Column,
    /// A column of 0 and 1.
    Flag,
    /// A member of the view only.
    Member,
    /// A time in the view. The value may say how it is compared: `lt:2026-11-21T10:00:00Z`.
    Time,
}

enum Op {
    Equals,
    Contains,
    StartsWith,
    EndsWith,
    Time(fn(&Micros, &Micros) -> bool, Micros),
}

/// How a time is compared, and with what (keystone/identity/core.py, `_translate_expired_password_hints`).
fn time(name: &str, value: &str) -> Result<Op> {
    // The operators have two or three letters; a time has its first colon behind those.
    let (how, text) = match value.split_once(':') {
        Some((how, text)) if (2..=3).contains(&how.len()) => (how, text),
        _ => ("eq", value),
    };
    let compare: fn(&Micros, &Micros) -> bool = match how {
        "eq" => Micros::eq,
        "neq" => Micros::ne,
        "lt" => Micros::lt,
        "lte" => Micros::le,
        "gt" => Micros::gt,
        "gte" => Micros::ge,
        _ => {
            return Err(Error::field(
                name,
                format!(
                    "The given operator {how} is not valid. It must be one of the following: 'eq', 'neq', 'lt', 'lte', 'gt', or 'gte'."
                ),
            ));
        }
    };
    let time = clock::parse(text).ok_or_else(|| {
        Error::field(
            name,
            format!("Timestamp not in expected format: write {name}=lt:2026-11-21T10:00:00Z, and not '{text}'."),
        )
    })?;
    Ok(Op::Time(compare, time))
}

struct Filter {
    name: &'static str,
    kind: Kind,
    op: Op,
    ignore_case: bool,
    value: String,
}

impl Filter {
    fn in_sql(&self) -> bool {
        matches!(self.op, Op::Equals) && !self.ignore_case && [Kind::Column, Kind::Flag].contains(&self.kind)
    }
    fn matches(&self, view: &Value) -> bool {
        let Some(text) = view.get(self.name).and_then(Value::as_str) else {
            return false;
        };
        let (text, wanted) = if self.ignore_case {
            (text.to_lowercase(), self.value.to_lowercase())
        } else {
            (text.to_owned(), self.value.clone())
        };
        match self.op {
            Op::Equals => text == wanted,
            Op::Contains => text.contains(&wanted),
            Op::StartsWith => text.starts_with(&wanted),
            Op::EndsWith => text.ends_with(&wanted),
            Op::Time(compare, time) => clock::parse(&text).is_some_and(|t| compare(&t, &time)),
        }
    }
}

/// A list as asked for: filters, page, and where it was asked.
pub(crate) struct Listing {
    filters: Vec<Filter>,
    /// `None`: all, as Keystone does when no limit is asked for.
    limit: Option<usize>,
    marker: Option<String>,
    pub base: String,
    path: String,
    query: Vec<(String, String)>,
}

impl Listing {
    /// Reads the query; parameters that are no filter of this list are ignored, as Keystone does.
    pub(crate) fn of(req: &Req, allowed: &[(&'static str, Kind)]) -> Result<Self> {
        let page = Page::of(req)?;
        let mut filters = Vec::new();
        for (key, value) in &req.query {
            let (stem, how) = key.split_once("__").unwrap_or((key, "equals"));
            let Some((name, kind)) = allowed.iter().find(|(n, _)| *n == stem) else {
                continue;
            };
            // What is no boolean would silently match nothing.
            if *kind == Kind::Flag && !value.is_empty() && haneul_http::request::parse_bool(value).is_none() {
                return Err(Error::field(
                    *name,
                    format!("Invalid input for query parameter {name}. Value: {value}. Write true or false."),
                ));
            }
            let (ignore_case, how) = match how.strip_prefix('i') {
                Some(rest) if how != "iexact" => (true, rest),
                Some(_) => (true, "equals"),
                None => (false, how),
            };
            let op = match how {
                _ if *kind == Kind::Time => time(name, value)?,
                "equals" | "exact" => Op::Equals,
                "contains" => Op::Contains,
                "startswith" => Op::StartsWith,
                "endswith" => Op::EndsWith,
                _ => continue,
            };
            filters.push(Filter {
                name,
                kind: *kind,
                op,
                ignore_case,
                value: value.clone(),
            });
        }
        Ok(Self {
            filters,
            limit: page.asked.then_some(page.limit as usize),
            marker: page.marker,
            base: req.base.to_string(),
            path: req.uri_path.clone(),
            query: req.query.clone(),
        })
    }

    /// The rows of the page as views, and whether there are more. `keep` is a filter beyond the named ones.
    pub(crate) async fn run<T: Resource>(
        &self,
        tx: &mut Tx,
        mut query: Query,
        keep: Option<&(dyn Fn(&T) -> bool + Sync)>,
        view: &(dyn Fn(&T) -> Value + Sync),
    ) -> Result<Vec<Value>> {
        let mut in_rust = keep.is_some();
        for f in &self.filters {
            if !f.in_sql() {
                in_rust = true;
            } else if f.kind == Kind::Flag {
                // A flag that is named without a value is meant as true.
                let wanted = haneul_http::request::parse_bool(&f.value).unwrap_or(true);
                query = query.eq(f.name, wanted);
            } else {
                query = query.eq(f.name, f.value.as_str());
            }
        }
        query = query.order("id", Dir::Asc);
        if let Some(marker) = &self.marker {
            if tx.find::<T>(marker).await?.is_none() {
                return Err(Error::not_found(format!("Marker {marker} could not be found.")).with_field("marker"));
            }
            query = query.after(vec![marker.as_str().into()]);
        }
        if let Some(n) = self.limit
            && !in_rust
        {
            query = query.limit(n as i64 + 1);
        }
        let rows: Vec<Stored<T>> = tx.list(&query).await?;
        Ok(rows
            .iter()
            .filter(|r| keep.is_none_or(|k| k(r)))
            .map(|r| view(r))
            .filter(|v| self.filters.iter().all(|f| f.in_sql() || f.matches(v)))
            .collect())
    }

    /// The answer (keystone/server/flask/common.py, `wrap_collection`).
    /// Whether it asks for a value of one of these.
    pub(crate) fn filters_by(&self, names: &[&str]) -> bool {
        self.filters
            .iter()
            .any(|f| names.contains(&f.name) && !f.value.is_empty())
    }

    pub(crate) fn reply(&self, collection: &str, mut rows: Vec<Value>) -> Reply {
        let limited = self.limit.is_some_and(|n| rows.len() > n);
        if let Some(n) = self.limit {
            rows.truncate(n);
        }
        let mut next = Value::Null;
        if limited && let Some(last) = rows.last().and_then(|r| r.get("id")).and_then(Value::as_str) {
            let mut query: Vec<String> = self
                .query
                .iter()
                .filter(|(k, _)| k != "marker")
                .map(|(k, v)| format!("{}={}", percent_encode(k), percent_encode(v)))
                .collect();
            query.push(format!("marker={}", percent_encode(last)));
            next = format!("{}{}?{}", self.base, self.path, query.join("&")).into();
        }
        let mut doc = json!({
            "links": {"next": next, "self": format!("{}{}", self.base, self.path), "previous": null},
        });
        put(&mut doc, collection, rows.into());
        if limited {
            put(&mut doc, "truncated", true.into());
        }
        Reply::ok(&doc)
    }
}
