//! What a list asks for: filters, order and page (Glance API reference, "List images"). Parsed without a
//! database; columns come from here, never from the request.

use super::{Image, MemberStatus};
use haneul_auth::Ctx;
use haneul_core::{Error, Result, clock};
use haneul_store::{Dir, Query, Resource, Stored, V};

/// Rows on a page when the client does not say (Glance's `limit_param_default`).
const DEFAULT_LIMIT: i64 = 25;

/// A parsed list request.
#[derive(Clone, Debug)]
pub(crate) struct ListRequest {
    /// Rows on the page; 0 is an empty page, as in Glance.
    pub limit: i64,
    /// The image after which the page begins.
    pub marker: Option<String>,
    /// A visibility, or `all`.
    visibility: Option<String>,
    /// Which memberships count; `None`: any.
    member_status: Option<MemberStatus>,
    /// Column and direction, ending in `created_at` and `id`.
    order: Vec<(&'static str, Dir)>,
    filters: Query,
}

const SORT_KEYS: &[&str] = &[
    "name",
    "status",
    "container_format",
    "disk_format",
    "size",
    "id",
    "created_at",
    "updated_at",
];

fn bad(field: &str, message: impl Into<String>) -> Error {
    Error::field(field, message)
}

impl ListRequest {
    /// Reads the query of `GET /v2/images`.
    pub fn parse(query: &[(String, String)], max_limit: i64) -> Result<Self> {
        let mut request = Self {
            limit: DEFAULT_LIMIT.min(max_limit),
            marker: None,
            visibility: None,
            member_status: Some(MemberStatus::Accepted),
            order: Vec::new(),
            filters: Query::new(),
        };
        let mut sort: Option<&str> = None;
        let (mut keys, mut dirs) = (Vec::new(), Vec::new());
        let mut hidden = false;
        for (name, value) in query {
            if name.contains('\0') || value.contains('\0') {
                return Err(bad("query", "Query parameters must not contain the character U+0000."));
            }
            match name.as_str() {
                "limit" => request.limit = limit(value)?.min(max_limit),
                "marker" => request.marker = Some(value.clone()),
                "sort" => sort = Some(value),
                "sort_key" => keys.push(sort_key(value.trim())?),
                "sort_dir" => dirs.push(sort_dir(value.trim())?),
                "member_status" => {
                    request.member_status = if value == "all" {
                        None
                    } else {
                        Some(MemberStatus::parse(value).ok_or_else(|| {
                            bad(
                                name,
                                format!("Invalid status: {value}. It must be one of pending, accepted, rejected, all."),
                            )
                        })?)
                    }
                }
                "visibility" if !value.is_empty() => {
                    if value != "all" && super::Visibility::parse(value).is_none() {
                        return Err(bad(
                            name,
                            format!(
                                "Invalid visibility value: {value}. It must be one of community, public, private, shared, all."
                            ),
                        ));
                    }
                    request.visibility = Some(value.clone());
                }
                "visibility" => {}
                "os_hidden" => hidden = filter_bool(name, &value.to_ascii_lowercase())?,
                other => request.filters = filter(request.filters, other, value)?,
            }
        }
        request.filters = request.filters.eq("os_hidden", i64::from(hidden));
        request.order = order(sort, keys, dirs)?;
        Ok(request)
    }

    /// The whole query of a page for this caller, one row more than the page.
    pub fn query(&self, ctx: &Ctx, marker: Option<&Stored<Image>>) -> Query {
        let mut query = scope_for(
            ctx,
            self.visibility.as_deref(),
            self.member_status,
            self.filters.clone(),
        );
        for (column, dir) in &self.order {
            query = query.order(column, *dir);
        }
        if let Some(marker) = marker {
            let columns: Vec<&str> = self.order.iter().map(|(c, _)| *c).collect();
            query = query.after(column_values(marker, &columns));
        }
        query.limit(self.limit + 1)
    }
}

/// Narrows a list to what this caller's project sees: its own, what is public, and what is shared with it
/// and taken. What is offered to the whole community shows only when it is asked for.
pub(crate) fn scope_for(
    ctx: &Ctx,
    visibility: Option<&str>,
    member_status: Option<MemberStatus>,
    mut query: Query,
) -> Query {
    let me = ctx.project_id();
    if !ctx.is_admin() {
        let own_or_open = "project_id = {} OR visibility IN ('public', 'community') OR (visibility = 'shared' AND id IN \
                           (SELECT image_id FROM image_member WHERE member_id = {}";
        query = match member_status {
            Some(s) => query.raw(
                &format!("{own_or_open} AND status = {{}}))"),
                vec![me.into(), me.into(), s.as_str().into()],
            ),
            None => query.raw(&format!("{own_or_open}))"), vec![me.into(), me.into()]),
        };
    }
    match visibility {
        None => query.raw("project_id = {} OR visibility <> 'community'", vec![me.into()]),
        Some("all") => query,
        Some(v) => query.eq("visibility", v),
    }
}

/// The values of these columns in a row, for a marker.
pub(crate) fn column_values<T: Resource>(row: &Stored<T>, columns: &[&str]) -> Vec<V> {
    let all = row.value.columns();
    columns
        .iter()
        .map(|c| match *c {
            "id" => row.value.id().into(),
            "name" => row.value.name().into(),
            "created_at" => row.created_at.into(),
            "updated_at" => row.updated_at.into(),
            other => T::COLUMNS
                .iter()
                .position(|x| *x == other)
                .and_then(|i| all.get(i).cloned())
                .unwrap_or(V::NullT),
        })
        .collect()
}

pub(crate) fn limit(text: &str) -> Result<i64> {
    match text.parse::<i64>() {
        Ok(n) if n >= 0 => Ok(n),
        Ok(_) => Err(bad("limit", "limit param must be positive")),
        Err(_) => Err(bad("limit", "limit param must be an integer")),
    }
}

fn sort_key(text: &str) -> Result<&'static str> {
    SORT_KEYS.iter().find(|k| **k == text).copied().ok_or_else(|| {
        bad(
            "sort_key",
            format!(
                "Invalid sort key: {text}. It must be one of the following: {}.",
                SORT_KEYS.join(", ")
            ),
        )
    })
}

pub(crate) fn sort_dir(text: &str) -> Result<Dir> {
    match text {
        "asc" => Ok(Dir::Asc),
        "desc" => Ok(Dir::Desc),
        _ => Err(bad(
            "sort_dir",
            format!("Invalid sort direction: {text}. It must be asc or desc."),
        )),
    }
}

/// Glance's two ways to say an order, closed with the creation time and the id so that it is total.
fn order(sort: Option<&str>, mut keys: Vec<&'static str>, mut dirs: Vec<Dir>) -> Result<Vec<(&'static str, Dir)>> {
    if let Some(sort) = sort {
        if !keys.is_empty() || !dirs.is_empty() {
            return Err(bad("sort", "Old and new sorting syntax cannot be combined"));
        }
        for one in sort.trim().split(',') {
            let (key, dir) = one.split_once(':').unwrap_or((one, "desc"));
            keys.push(sort_key(key.trim())?);
            dirs.push(sort_dir(dir.trim())?);
        }
    }
    if keys.is_empty() {
        keys.push("created_at");
    }
    if dirs.len() > 1 && dirs.len() != keys.len() {
        return Err(bad(
            "sort_dir",
            "Number of sort dirs does not match the number of sort keys",
        ));
    }
    // One direction holds for all keys, and for the closing ones.
    let default = match dirs.as_slice() {
        [one] => *one,
        _ => Dir::Desc,
    };
    let mut order: Vec<(&'static str, Dir)> = Vec::new();
    for (i, key) in keys.into_iter().enumerate() {
        if !order.iter().any(|(k, _)| *k == key) {
            order.push((key, dirs.get(i).copied().unwrap_or(default)));
        }
    }
    for key in ["created_at", "id"] {
        if !order.iter().any(|(k, _)| *k == key) {
            order.push((key, default));
        }
    }
    Ok(order)
}

fn filter_bool(name: &str, value: &str) -> Result<bool> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(bad(
            name,
            format!("Invalid value '{value}' for '{name}' filter. Valid values are 'true' or 'false'."),
        )),
    }
}

fn filter(query: Query, name: &str, value: &str) -> Result<Query> {
    const INTS: &[&str] = &["size", "virtual_size", "min_disk", "min_ram"];
    Ok(match name {
        "tag" => query.raw(
            "id IN (SELECT image_id FROM image_tag WHERE value = {})",
            vec![value.trim().into()],
        ),
        "protected" => query.eq("protected", i64::from(filter_bool(name, value)?)),
        "changes-since" if !value.is_empty() => {
            return Err(bad(name, "The \"changes-since\" filter is no longer available on v2."));
        }
        "changes-since" => query,
        "owner" => query.eq("project_id", value),
        "checksum" | "os_hash_value" => query.eq(name, value),
        "name" | "id" | "status" | "container_format" | "disk_format" => match split_op(value) {
            ("eq", v) => query.eq(name, v),
            ("in", list) => query.is_in(name, split_list(name, list)?),
            (op, _) => {
                return Err(bad(name, format!("Unable to filter by unknown operator '{op}'.")));
            }
        },
        "created_at" | "updated_at" => time_filter(query, name, value)?,
        _ if INTS.contains(&name) => match value.parse::<i64>() {
            Ok(n) => query.eq(name, n),
            Err(_) => query.is_in::<i64>(name, []),
        },
        _ => match range_of(name).filter(|(column, _)| INTS.contains(column)) {
            Some((column, is_min)) => {
                let n: i64 = value
                    .parse()
                    .map_err(|_| bad(name, "Unable to filter on a range with a non-numeric value."))?;
                // -1 stands for an unknown size, which is in no range.
                let query = query.ge(column, 0);
                if is_min {
                    query.ge(column, n)
                } else {
                    query.le(column, n)
                }
            }
            None => query.raw(
                "id IN (SELECT image_id FROM image_property WHERE name = {} AND value = {})",
                vec![name.into(), value.into()],
            ),
        },
    })
}

fn range_of(name: &str) -> Option<(&str, bool)> {
    match name.strip_suffix("_min") {
        Some(column) => Some((column, true)),
        None => name.strip_suffix("_max").map(|column| (column, false)),
    }
}

/// `op:value`, or a value alone, which means equality.
fn split_op(expression: &str) -> (&str, &str) {
    match expression.split_once(':') {
        Some(_) if clock::parse(expression).is_some() => ("eq", expression),
        Some((op, value)) => (op, value),
        None => ("eq", expression),
    }
}

/// `a,"b,c",d`: commas separate, double quotes protect, a backslash takes the next character as it is.
fn split_list(field: &str, list: &str) -> Result<Vec<String>> {
    let (mut out, mut word) = (Vec::new(), String::new());
    let (mut quoted, mut chars) = (false, list.chars());
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => word.extend(chars.next()),
            ',' if !quoted => out.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    if quoted {
        return Err(bad(
            field,
            format!("Invalid filter value {list}. The quote is not closed."),
        ));
    }
    out.push(word);
    Ok(out)
}

fn time_filter(query: Query, column: &str, value: &str) -> Result<Query> {
    let (op, text) = split_op(value);
    let t = clock::parse(text).ok_or_else(|| {
        bad(
            column,
            format!("Bad \"{column}\" query filter format. Use ISO 8601 DateTime notation."),
        )
    })?;
    // Clients see whole seconds, so a second is what they compare with.
    let begin = t.div_euclid(clock::SECOND) * clock::SECOND;
    let end = begin + clock::SECOND;
    Ok(match op {
        "eq" => query.ge(column, begin).lt(column, end),
        "neq" => query.raw(
            &format!("{column} < {{}} OR {column} >= {{}}"),
            vec![begin.into(), end.into()],
        ),
        "gt" => query.ge(column, end),
        "gte" => query.ge(column, begin),
        "lt" => query.lt(column, begin),
        "lte" => query.lt(column, end),
        _ => return Err(bad(column, "Unable to filter on a unknown operator.")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<ListRequest> {
        let pairs: Vec<(String, String)> = query
            .split('&')
            .filter(|p| !p.is_empty())
            .map(|p| p.split_once('=').unwrap_or((p, "")))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        ListRequest::parse(&pairs, 1000)
    }

    #[test]
    fn orders_are_total() {
        let order = |q: &str| parse(q).unwrap().order;
        use Dir::{Asc, Desc};
        assert_eq!(order(""), [("created_at", Desc), ("id", Desc)]);
        assert_eq!(order("sort_dir=asc"), [("created_at", Asc), ("id", Asc)]);
        assert_eq!(
            order("sort=size:desc,name:asc"),
            [("size", Desc), ("name", Asc), ("created_at", Desc), ("id", Desc)]
        );
        assert_eq!(
            order("sort_key=name&sort_key=size&sort_dir=asc"),
            [("name", Asc), ("size", Asc), ("created_at", Asc), ("id", Asc)]
        );
        assert_eq!(order("sort=id:asc"), [("id", Asc), ("created_at", Asc)]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, field) in [
            ("limit=x", "limit"),
            ("limit=-1", "limit"),
            ("sort_key=owner", "sort_key"),
            ("sort_dir=up", "sort_dir"),
            ("sort=name&sort_key=id", "sort"),
            ("sort_key=name&sort_dir=asc&sort_dir=desc", "sort_dir"),
            ("member_status=x", "member_status"),
            ("visibility=x", "visibility"),
            ("os_hidden=x", "os_hidden"),
            ("protected=x", "protected"),
            ("size_min=x", "size_min"),
            ("name=like:x", "name"),
            ("name=in:\"x", "name"),
            ("created_at=x", "created_at"),
            ("created_at=about:2026-01-01", "created_at"),
            ("changes-since=1", "changes-since"),
        ] {
            assert_eq!(parse(query).unwrap_err().field_name(), Some(field), "{query}");
        }
    }

    #[test]
    fn limits() {
        assert_eq!(parse("").unwrap().limit, 25);
        assert_eq!(parse("limit=0").unwrap().limit, 0);
        assert_eq!(parse("limit=5000").unwrap().limit, 1000);
    }

    #[test]
    fn lists_keep_quoted_commas() {
        let list = split_list("name", r#"a,"b,c","d\"e",f"#).unwrap();
        assert_eq!(list, ["a", "b,c", "d\"e", "f"]);
    }
}
