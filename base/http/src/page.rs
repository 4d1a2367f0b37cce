//! Paging: `limit`, `marker`, and one row more to know whether there is a next page.

use crate::request::percent_encode;
use crate::{Req, Service};
use haneul_core::{Error, Result};
use serde_json::{Value, json};

/// Where a page begins and how long it is.
#[derive(Clone, Debug)]
pub struct Page {
    /// Rows that the client gets at the most.
    pub limit: i64,
    /// Whether the client (or the maximum) limits at all; without one, all rows up to the maximum.
    pub asked: bool,
    pub marker: Option<String>,
}

impl Page {
    /// Reads `limit` and `marker`.
    pub fn of(req: &Req) -> Result<Page> {
        let asked = req.q("limit");
        let limit = match asked {
            None => req.max_limit,
            Some(text) => match text.parse::<i64>() {
                Ok(n) if n >= 0 => n.min(req.max_limit),
                Ok(_) => {
                    return Err(Error::field(
                        "limit",
                        format!(
                            "Invalid input for query parameters limit. Value: {text}. The value must be an integer of at least 0."
                        ),
                    ));
                }
                Err(_) => {
                    return Err(Error::field(
                        "limit",
                        format!("Invalid input for query parameters limit. Value: {text}. '{text}' is not an integer."),
                    ));
                }
            },
        };
        // 0 means no limit of the client's, but to Nova, who takes it at its word.
        let limit = match req.service {
            Service::Compute => limit,
            _ if limit == 0 => req.max_limit,
            _ => limit,
        };
        Ok(Page {
            limit,
            asked: asked.is_some(),
            marker: req.q("marker").filter(|m| !m.is_empty()).map(str::to_owned),
        })
    }

    /// One more than the page, for the query.
    pub fn fetch(&self) -> i64 {
        self.limit + 1
    }

    /// Cuts the surplus row off and says whether there was one.
    pub fn cut<T>(&self, rows: &mut Vec<T>) -> bool {
        let more = self.limit > 0 && rows.len() as i64 > self.limit;
        rows.truncate(self.limit as usize);
        more
    }

    /// `[{"rel": "next", "href": ...}]` for a list at `path`.
    pub fn next_link(req: &Req, path: &str, last_id: &str) -> Value {
        let mut query: Vec<String> = req
            .query
            .iter()
            .filter(|(k, _)| k != "marker")
            .map(|(k, v)| format!("{}={}", percent_encode(k), percent_encode(v)))
            .collect();
        query.push(format!("marker={}", percent_encode(last_id)));
        json!([{"rel": "next", "href": format!("{}{path}?{}", req.base, query.join("&"))}])
    }
}
