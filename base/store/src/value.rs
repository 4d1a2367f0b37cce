//! Values and rows, the same for both databases.

use haneul_core::{Error, Result};
use sqlx::Row as _;

/// A value for a statement. NULLs are typed: PostgreSQL wants to know.
#[derive(Clone, Debug, PartialEq)]
pub enum V {
    I(i64),
    F(f64),
    T(String),
    B(Vec<u8>),
    NullT,
    NullI,
    NullF,
    NullB,
}

impl From<i64> for V {
    fn from(v: i64) -> Self {
        V::I(v)
    }
}
impl From<i32> for V {
    fn from(v: i32) -> Self {
        V::I(v.into())
    }
}
impl From<u32> for V {
    fn from(v: u32) -> Self {
        V::I(v.into())
    }
}
impl From<u64> for V {
    fn from(v: u64) -> Self {
        V::I(i64::try_from(v).unwrap_or(i64::MAX))
    }
}
impl From<usize> for V {
    fn from(v: usize) -> Self {
        V::from(v as u64)
    }
}
impl From<bool> for V {
    fn from(v: bool) -> Self {
        V::I(v.into())
    }
}
impl From<f64> for V {
    fn from(v: f64) -> Self {
        V::F(v)
    }
}
impl From<&str> for V {
    fn from(v: &str) -> Self {
        V::T(v.to_owned())
    }
}
impl From<String> for V {
    fn from(v: String) -> Self {
        V::T(v)
    }
}
impl From<&String> for V {
    fn from(v: &String) -> Self {
        V::T(v.clone())
    }
}
impl From<Vec<u8>> for V {
    fn from(v: Vec<u8>) -> Self {
        V::B(v)
    }
}
impl From<Option<&str>> for V {
    fn from(v: Option<&str>) -> Self {
        v.map_or(V::NullT, V::from)
    }
}
impl From<Option<String>> for V {
    fn from(v: Option<String>) -> Self {
        v.map_or(V::NullT, V::T)
    }
}
impl From<&Option<String>> for V {
    fn from(v: &Option<String>) -> Self {
        v.clone().map_or(V::NullT, V::T)
    }
}
impl From<Option<i64>> for V {
    fn from(v: Option<i64>) -> Self {
        v.map_or(V::NullI, V::I)
    }
}

/// One row. Columns are taken by position, in the order of the SELECT.
pub enum Row {
    Sqlite(sqlx::sqlite::SqliteRow),
    Postgres(sqlx::postgres::PgRow),
}

fn wrong(i: usize, e: sqlx::Error) -> Error {
    Error::internal(format!("column {i}: {e}"))
}

macro_rules! getter {
    ($(#[$doc:meta])* $name:ident, $t:ty) => {
        $(#[$doc])*
        pub fn $name(&self, i: usize) -> Result<$t> {
            match self {
                Row::Sqlite(r) => r.try_get(i).map_err(|e| wrong(i, e)),
                Row::Postgres(r) => r.try_get(i).map_err(|e| wrong(i, e)),
            }
        }
    };
}

impl Row {
    getter!(
        /// A BIGINT.
        i64, i64
    );
    getter!(
        /// A BIGINT or NULL.
        opt_i64, Option<i64>
    );
    getter!(
        /// A DOUBLE PRECISION.
        f64, f64
    );
    getter!(
        /// A DOUBLE PRECISION or NULL.
        opt_f64, Option<f64>
    );
    getter!(
        /// A TEXT.
        str, String
    );
    getter!(
        /// A TEXT or NULL.
        opt_str, Option<String>
    );
    getter!(
        /// A BLOB.
        bytes, Vec<u8>
    );
    getter!(
        /// A BLOB or NULL.
        opt_bytes, Option<Vec<u8>>
    );
}
