//! A small query builder for lists: equality, sets, ranges, order, markers. No LIKE and no regular
//! expressions reach a database: the two order and match text differently.

use crate::V;

/// Direction of a sort key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dir {
    Asc,
    Desc,
}

/// Conditions, order and page of a list. Column names come from code, never from a request.
#[derive(Clone, Debug, Default)]
pub struct Query {
    conds: Vec<String>,
    args: Vec<V>,
    order: Vec<(String, Dir)>,
    limit: Option<i64>,
}

impl Query {
    pub fn new() -> Self {
        Self::default()
    }
    fn arg(&mut self, v: V) -> usize {
        self.args.push(v);
        self.args.len()
    }
    fn op(mut self, column: &str, op: &str, v: impl Into<V>) -> Self {
        let n = self.arg(v.into());
        self.conds.push(format!("{column} {op} ${n}"));
        self
    }
    pub fn eq(self, column: &str, v: impl Into<V>) -> Self {
        self.op(column, "=", v)
    }
    pub fn ne(self, column: &str, v: impl Into<V>) -> Self {
        self.op(column, "<>", v)
    }
    pub fn gt(self, column: &str, v: impl Into<V>) -> Self {
        self.op(column, ">", v)
    }
    pub fn ge(self, column: &str, v: impl Into<V>) -> Self {
        self.op(column, ">=", v)
    }
    pub fn lt(self, column: &str, v: impl Into<V>) -> Self {
        self.op(column, "<", v)
    }
    pub fn le(self, column: &str, v: impl Into<V>) -> Self {
        self.op(column, "<=", v)
    }
    pub fn is_null(mut self, column: &str) -> Self {
        self.conds.push(format!("{column} IS NULL"));
        self
    }
    pub fn not_null(mut self, column: &str) -> Self {
        self.conds.push(format!("{column} IS NOT NULL"));
        self
    }
    /// One of a set; an empty set matches nothing.
    pub fn is_in<T: Into<V>>(mut self, column: &str, vs: impl IntoIterator<Item = T>) -> Self {
        let ns: Vec<String> = vs.into_iter().map(|v| format!("${}", self.arg(v.into()))).collect();
        self.conds.push(if ns.is_empty() {
            "1 = 0".into()
        } else {
            format!("{column} IN ({})", ns.join(", "))
        });
        self
    }
    /// Any of several equalities, e.g. own project or public.
    pub fn any_eq(mut self, alternatives: Vec<(&str, V)>) -> Self {
        let parts: Vec<String> = alternatives
            .into_iter()
            .map(|(c, v)| format!("{c} = ${}", self.arg(v)))
            .collect();
        self.conds.push(format!("({})", parts.join(" OR ")));
        self
    }
    /// A condition in SQL with `{}` for each argument; the text is from code only.
    pub fn raw(mut self, template: &str, args: Vec<V>) -> Self {
        let mut out = String::new();
        let mut pieces = template.split("{}");
        out.push_str(pieces.next().unwrap_or_default());
        for (v, piece) in args.into_iter().zip(pieces) {
            let n = self.arg(v);
            out.push_str(&format!("${n}{piece}"));
        }
        self.conds.push(format!("({out})"));
        self
    }
    pub fn order(mut self, column: &str, dir: Dir) -> Self {
        self.order.push((column.to_owned(), dir));
        self
    }
    pub fn limit(mut self, n: i64) -> Self {
        self.limit = Some(n);
        self
    }
    /// Rows that come after the marker row in the order given so far: `values` are the marker row's
    /// values of the order's columns. The last column of the order must be unique.
    pub fn after(mut self, values: Vec<V>) -> Self {
        let order = self.order.clone();
        let mut alternatives = Vec::new();
        for i in 0..order.len().min(values.len()) {
            let mut parts = Vec::new();
            for (j, v) in values.iter().enumerate().take(i + 1) {
                let Some((column, dir)) = order.get(j) else { continue };
                let n = self.arg(v.clone());
                let op = match (j == i, dir) {
                    (false, _) => "=",
                    (true, Dir::Asc) => ">",
                    (true, Dir::Desc) => "<",
                };
                parts.push(format!("{column} {op} ${n}"));
            }
            alternatives.push(format!("({})", parts.join(" AND ")));
        }
        if !alternatives.is_empty() {
            self.conds.push(format!("({})", alternatives.join(" OR ")));
        }
        self
    }

    fn filter(&self) -> String {
        if self.conds.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", self.conds.join(" AND "))
        }
    }

    pub(crate) fn sql(&self, select: &str) -> (String, Vec<V>) {
        let mut sql = format!("{select}{}", self.filter());
        if !self.order.is_empty() {
            let keys: Vec<String> = self
                .order
                .iter()
                .map(|(c, d)| format!("{c} {}", if *d == Dir::Asc { "ASC" } else { "DESC" }))
                .collect();
            sql.push_str(&format!(" ORDER BY {}", keys.join(", ")));
        }
        if let Some(n) = self.limit {
            sql.push_str(&format!(" LIMIT {n}"));
        }
        (sql, self.args.clone())
    }

    pub(crate) fn count_sql(&self, table: &str) -> (String, Vec<V>) {
        (
            format!("SELECT COUNT(*) FROM {table}{}", self.filter()),
            self.args.clone(),
        )
    }
}
