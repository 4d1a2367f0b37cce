//! What the lists of definitions and tasks have in common: order, limit and marker, read from the query.

use crate::model::filter::{column_values, limit, sort_dir};
use haneul_core::{Error, Result};
use haneul_http::Req;
use haneul_store::{Dir, Query, Resource, Stored};

/// Rows on a page when the client does not say (Glance's `limit_param_default`).
const DEFAULT_LIMIT: i64 = 25;

/// Order and page of a list.
#[derive(Debug)]
pub(super) struct Listing {
    /// What the client asked for, at most the cloud's maximum.
    pub asked: Option<i64>,
    pub marker: Option<String>,
    key: &'static str,
    dir: Dir,
    max: i64,
}

impl Listing {
    /// `keys`: what may be sorted by, as clients and as the table call it.
    pub fn of(req: &Req, keys: &[(&str, &'static str)]) -> Result<Self> {
        if let Some((name, _)) = req.query.iter().find(|(n, v)| n.contains('\0') || v.contains('\0')) {
            return Err(Error::field(
                name.replace('\0', "?"),
                "Query parameters must not contain the character U+0000.",
            ));
        }
        let wanted = req.q("sort_key").unwrap_or("created_at");
        let Some((_, key)) = keys.iter().find(|(k, _)| *k == wanted) else {
            let names: Vec<&str> = keys.iter().map(|(k, _)| *k).collect();
            return Err(Error::field(
                "sort_key",
                format!(
                    "Invalid sort key: {wanted}. It must be one of the following: {}.",
                    names.join(", ")
                ),
            ));
        };
        Ok(Self {
            asked: req.q("limit").map(limit).transpose()?.map(|n| n.min(req.max_limit)),
            marker: req.q("marker").filter(|m| !m.is_empty()).map(str::to_owned),
            key,
            dir: sort_dir(req.q("sort_dir").unwrap_or("desc"))?,
            max: req.max_limit,
        })
    }

    /// Rows on a page.
    pub fn limit(&self) -> i64 {
        self.asked.unwrap_or_else(|| DEFAULT_LIMIT.min(self.max))
    }

    /// The order, always total, and what comes after the marker's row.
    pub fn order<T: Resource>(&self, mut query: Query, marker: Option<&Stored<T>>) -> Query {
        let mut columns = vec![self.key];
        columns.extend(["created_at", "id"].into_iter().filter(|c| *c != self.key));
        for column in &columns {
            query = query.order(column, self.dir);
        }
        match marker {
            Some(row) => query.after(column_values(row, &columns)),
            None => query,
        }
    }
}
