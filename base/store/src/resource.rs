//! Resources: a row with the columns that are searched by, and a JSON document with all the rest.
//!
//! Why a document: one statement text per table, a state that goes into the change log as it is, and
//! fields that come and go with releases without a migration (docs/adr/0001).

use crate::{Operation, Query, Tx, V};
use haneul_core::{Error, Result, clock};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::ops::Deref;

/// Something that a user can show. Its table has the columns `id`, `project_id`, `name`, `generation`,
/// `created_at`, `updated_at`, `doc`, and then [`Resource::COLUMNS`].
pub trait Resource: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// The field's name for it (`server`, `port`): kind in the change log and in messages.
    const KIND: &'static str;
    const TABLE: &'static str;
    /// Further columns, each searched by somebody. Order as in [`Resource::columns`].
    const COLUMNS: &'static [&'static str] = &[];
    /// Unique id; for kinds whose users choose ids per project or user, a composed key.
    fn id(&self) -> &str;
    fn project_id(&self) -> Option<&str>;
    fn name(&self) -> &str;
    /// Values of [`Resource::COLUMNS`].
    fn columns(&self) -> Vec<V> {
        vec![]
    }
    /// What the change log keeps: the document without secrets. Override where there are secrets.
    fn logged(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }
}

/// A resource as stored.
#[derive(Clone, Debug)]
pub struct Stored<T> {
    pub value: T,
    /// Goes up by one with each change; guards updates.
    pub generation: i64,
    /// Microseconds since 1970.
    pub created_at: i64,
    pub updated_at: i64,
}

impl<T> Deref for Stored<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// Proof that somebody looked the resource up and may change it. base/auth implements it for
/// `Authorized<T, Action>`; [`System`] is the cloud's own. `cargo xtask tidy` keeps the list short.
pub trait Grant<T: Resource>: Sync {
    fn stored(&self) -> &Stored<T>;
}

/// Proof that somebody may create a `T`. From base/auth, or [`System::create`].
pub trait CreateGrant<T: Resource>: Sync {}

/// The cloud's own permission: cascades, observations and jobs, never a user's request directly.
pub struct System<T>(Stored<T>);

impl<T> Deref for System<T> {
    type Target = Stored<T>;
    fn deref(&self) -> &Stored<T> {
        &self.0
    }
}
impl<T: Resource> Grant<T> for System<T> {
    fn stored(&self) -> &Stored<T> {
        &self.0
    }
}

/// See [`System::create`].
pub struct SystemCreate(());
impl<T: Resource> CreateGrant<T> for SystemCreate {}

impl System<()> {
    /// The cloud itself creates something (a default security group, a service port, a catalog).
    pub fn create() -> SystemCreate {
        SystemCreate(())
    }
}
impl<T: Resource> System<T> {
    /// The cloud itself changes what was loaded in this transaction.
    pub fn of(stored: Stored<T>) -> Self {
        System(stored)
    }
}

fn select<T: Resource>() -> String {
    format!("SELECT doc, generation, created_at, updated_at FROM {}", T::TABLE)
}

fn stored<T: Resource>(row: &crate::Row) -> Result<Stored<T>> {
    let doc = row.str(0)?;
    Ok(Stored {
        value: serde_json::from_str(&doc)
            .map_err(|e| Error::internal(format!("{}: document does not parse: {e}", T::KIND)))?,
        generation: row.i64(1)?,
        created_at: row.i64(2)?,
        updated_at: row.i64(3)?,
    })
}

impl Tx {
    /// The resource with this id. No permission is checked: services go through base/auth's `fetch`.
    pub async fn find<T: Resource>(&mut self, id: &str) -> Result<Option<Stored<T>>> {
        let sql = format!("{} WHERE id = $1", select::<T>());
        self.row(&sql, &[id.into()]).await?.as_ref().map(stored).transpose()
    }

    /// Resources that match.
    pub async fn list<T: Resource>(&mut self, query: &Query) -> Result<Vec<Stored<T>>> {
        let (sql, args) = query.sql(&select::<T>());
        self.rows(&sql, &args).await?.iter().map(stored).collect()
    }

    /// Some columns of the resources that match, for lists that show little of each.
    pub async fn columns_of<T: Resource>(&mut self, columns: &str, query: &Query) -> Result<Vec<crate::Row>> {
        let (sql, args) = query.sql(&format!("SELECT {columns} FROM {}", T::TABLE));
        self.rows(&sql, &args).await
    }

    /// How many match.
    pub async fn count<T: Resource>(&mut self, query: &Query) -> Result<i64> {
        let (sql, args) = query.count_sql(T::TABLE);
        self.row(&sql, &args)
            .await?
            .ok_or_else(|| Error::internal("count gave no row"))?
            .i64(0)
    }

    /// Stores a new resource and logs it. Answers `None` when its id or another unique column is taken:
    /// the caller says what clashed.
    pub async fn insert<T: Resource>(&mut self, _grant: &impl CreateGrant<T>, value: &T) -> Result<Option<Stored<T>>> {
        let now = clock::now();
        let mut sql = format!(
            "INSERT INTO {}(id, project_id, name, generation, created_at, updated_at, doc",
            T::TABLE
        );
        for c in T::COLUMNS {
            sql.push_str(", ");
            sql.push_str(c);
        }
        sql.push_str(") VALUES($1,$2,$3,1,$4,$4,$5");
        for i in 0..T::COLUMNS.len() {
            sql.push_str(&format!(",${}", i + 6));
        }
        sql.push_str(") ON CONFLICT DO NOTHING RETURNING generation");
        let mut args = vec![
            value.id().into(),
            value.project_id().into(),
            value.name().into(),
            now.into(),
            serde_json::to_string(value)?.into(),
        ];
        args.extend(value.columns());
        if self.row(&sql, &args).await?.is_none() {
            return Ok(None);
        }
        self.note_change(
            T::KIND,
            value.id(),
            value.project_id(),
            1,
            Operation::Create,
            value.logged(),
        );
        Ok(Some(Stored {
            value: value.clone(),
            generation: 1,
            created_at: now,
            updated_at: now,
        }))
    }

    /// Stores a new state of the resource and logs it. The generation that the grant saw guards it: when
    /// somebody else was faster, the whole write is repeated.
    pub async fn update<T: Resource>(&mut self, grant: &impl Grant<T>, value: &T) -> Result<Stored<T>> {
        let old = grant.stored();
        let now = clock::now();
        let mut sql = format!(
            "UPDATE {} SET project_id = $2, name = $3, updated_at = $4, doc = $5, generation = generation + 1",
            T::TABLE
        );
        for (i, c) in T::COLUMNS.iter().enumerate() {
            sql.push_str(&format!(", {c} = ${}", i + 7));
        }
        sql.push_str(" WHERE id = $1 AND generation = $6 RETURNING generation");
        let mut args = vec![
            value.id().into(),
            value.project_id().into(),
            value.name().into(),
            now.into(),
            serde_json::to_string(value)?.into(),
            old.generation.into(),
        ];
        args.extend(value.columns());
        let Some(row) = self.row(&sql, &args).await? else {
            return Err(lost::<T>());
        };
        let generation = row.i64(0)?;
        self.note_change(
            T::KIND,
            value.id(),
            value.project_id(),
            generation,
            Operation::Update,
            value.logged(),
        );
        Ok(Stored {
            value: value.clone(),
            generation,
            created_at: old.created_at,
            updated_at: now,
        })
    }

    /// Removes the resource and logs it.
    pub async fn delete<T: Resource>(&mut self, grant: &impl Grant<T>) -> Result<()> {
        let old = grant.stored();
        let n = self
            .exec(
                &format!("DELETE FROM {} WHERE id = $1 AND generation = $2", T::TABLE),
                &[old.id().into(), old.generation.into()],
            )
            .await?;
        if n == 0 {
            return Err(lost::<T>());
        }
        self.note_change(
            T::KIND,
            old.id(),
            old.project_id(),
            old.generation + 1,
            Operation::Delete,
            old.logged(),
        );
        Ok(())
    }
}

fn lost<T: Resource>() -> Error {
    Error::conflict(format!(
        "The {} was changed by another request at the same time. Repeat the request.",
        T::KIND
    ))
    .retryable()
}
