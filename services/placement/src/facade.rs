//! What other services call, inside their transactions.

use crate::logic::forest::{Forest, Stock};
use crate::names::Names;
use crate::{Inventory, ResourceProvider};
use haneul_core::{Error, Result};
use haneul_store::{Db, Row, System, Tx};
use std::collections::{BTreeMap, HashMap};

/// See the crate.
pub struct Placement {
    pub(crate) db: Db,
}

/// A provider with what it has and what is used; what a scheduler decides on.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderState {
    pub uuid: String,
    pub name: String,
    /// By resource class: inventory and what is used.
    pub inventories: BTreeMap<String, (Inventory, i64)>,
    pub traits: Vec<String>,
}

pub(crate) const INVENTORY: &str = "class, total, reserved, min_unit, max_unit, step_size, allocation_ratio, used";

pub(crate) fn inventory(r: &Row) -> Result<(String, Inventory, i64)> {
    Ok((
        r.str(0)?,
        Inventory {
            total: r.i64(1)?,
            reserved: r.i64(2)?,
            min_unit: r.i64(3)?,
            max_unit: r.i64(4)?,
            step_size: r.i64(5)?,
            allocation_ratio: r.f64(6)?,
        },
        r.i64(7)?,
    ))
}

/// The only value of a query; empty when there is none.
async fn one_text(tx: &mut Tx, sql: &str) -> Result<String> {
    let row = tx.row(sql, &[]).await?;
    Ok(row.map(|r| r.opt_str(0)).transpose()?.flatten().unwrap_or_default())
}

impl Placement {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Makes the provider, or renames it.
    pub async fn provider_upsert(&self, tx: &mut Tx, uuid: &str, name: &str) -> Result<()> {
        match tx.find::<ResourceProvider>(uuid).await? {
            None => {
                let new = ResourceProvider {
                    uuid: uuid.to_owned(),
                    name: name.to_owned(),
                    provider_generation: 0,
                    parent: None,
                    traits: vec![],
                    aggregates: vec![],
                };
                if tx.insert(&System::create(), &new).await?.is_none() {
                    // Another host has this name already: names are for people, the id tells them apart.
                    let named = ResourceProvider {
                        name: format!("{name}-{}", uuid.get(..8).unwrap_or(uuid)),
                        ..new
                    };
                    tx.insert(&System::create(), &named).await?;
                }
            }
            Some(old) if old.name != name && !old.name.starts_with(&format!("{name}-")) => {
                let mut new = old.value.clone();
                new.name = name.to_owned();
                tx.update(&System::of(old), &new).await?;
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Gives a provider, of the traits that are the caller's to say, those that it has; others stay.
    pub async fn set_traits(&self, tx: &mut Tx, uuid: &str, ours: impl Fn(&str) -> bool, has: &[String]) -> Result<()> {
        let Some(old) = tx.find::<ResourceProvider>(uuid).await? else {
            return Ok(());
        };
        let mut new = old.value.clone();
        new.traits.retain(|t| !ours(t) || has.contains(t));
        for name in has {
            if !new.traits.contains(name) && Names::Trait.known(tx, name).await? {
                new.traits.push(name.clone());
            }
        }
        if new != old.value {
            new.provider_generation += 1;
            tx.update(&System::of(old), &new).await?;
        }
        Ok(())
    }

    /// Removes the provider of a host that leaves, with its inventories.
    ///
    /// # Errors
    /// Conflict while something is allocated from it.
    pub async fn provider_remove(&self, tx: &mut Tx, uuid: &str) -> Result<()> {
        match tx.find::<ResourceProvider>(uuid).await? {
            Some(p) => self.remove_provider(tx, &System::of(p)).await,
            None => Ok(()),
        }
    }

    /// Removes a provider that nothing is allocated from and that has no children.
    pub(crate) async fn remove_provider<G>(&self, tx: &mut Tx, grant: &G) -> Result<()>
    where
        G: haneul_store::Grant<ResourceProvider>,
    {
        let uuid = grant.stored().uuid.as_str();
        let query = "SELECT COUNT(*) FROM placement_allocation WHERE provider_id = $1";
        if tx.row(query, &[uuid.into()]).await?.map_or(Ok(0), |r| r.i64(0))? > 0 {
            return Err(Error::conflict(format!(
                "Unable to delete resource provider {uuid}: Resource provider has allocations."
            ))
            .with_code("placement.resource_provider.inuse"));
        }
        let all = self.snapshot_providers(tx).await?;
        if all.iter().any(|o| o.parent.as_deref() == Some(uuid)) {
            return Err(Error::conflict(format!(
                "Unable to delete parent resource provider {uuid}: It has child resource providers."
            ))
            .with_code("placement.resource_provider.cannot_delete_parent"));
        }
        tx.exec("DELETE FROM placement_inventory WHERE provider_id = $1", &[uuid.into()])
            .await?;
        tx.delete(grant).await
    }

    /// Sets one inventory of a provider. What is used stays, even when it is more than the new capacity.
    pub async fn set_inventory(&self, tx: &mut Tx, provider: &str, class: &str, new: &Inventory) -> Result<()> {
        let args = [
            provider.into(),
            class.into(),
            new.total.into(),
            new.reserved.into(),
            new.min_unit.into(),
            new.max_unit.into(),
            new.step_size.into(),
            new.allocation_ratio.into(),
            new.capacity().into(),
        ];
        tx.exec(
            "INSERT INTO placement_inventory(provider_id, class, total, reserved, min_unit, max_unit, step_size, allocation_ratio, capacity, used)
             VALUES($1,$2,$3,$4,$5,$6,$7,$8,$9,0)
             ON CONFLICT(provider_id, class) DO UPDATE SET total = excluded.total, reserved = excluded.reserved,
               min_unit = excluded.min_unit, max_unit = excluded.max_unit, step_size = excluded.step_size,
               allocation_ratio = excluded.allocation_ratio, capacity = excluded.capacity",
            &args,
        )
        .await?;
        Ok(())
    }

    /// Inventories of one provider.
    pub async fn inventories(&self, tx: &mut Tx, provider: &str) -> Result<BTreeMap<String, (Inventory, i64)>> {
        tx.rows(
            &format!("SELECT {INVENTORY} FROM placement_inventory WHERE provider_id = $1 ORDER BY class"),
            &[provider.into()],
        )
        .await?
        .iter()
        .map(|r| inventory(r).map(|(c, i, u)| (c, (i, u))))
        .collect()
    }

    /// All providers with their inventories.
    pub async fn snapshot(&self, tx: &mut Tx) -> Result<Vec<ProviderState>> {
        let providers = self.snapshot_providers(tx).await?;
        let mut by_id: BTreeMap<String, BTreeMap<String, (Inventory, i64)>> = BTreeMap::new();
        for r in tx
            .rows(
                &format!("SELECT {INVENTORY}, provider_id FROM placement_inventory"),
                &[],
            )
            .await?
        {
            let (class, have, used) = inventory(&r)?;
            by_id.entry(r.str(8)?).or_default().insert(class, (have, used));
        }
        Ok(providers
            .into_iter()
            .map(|p| ProviderState {
                inventories: by_id.remove(&p.uuid).unwrap_or_default(),
                uuid: p.uuid,
                name: p.name,
                traits: p.traits,
            })
            .collect())
    }

    /// All providers as trees, in the order in which they were made. Two rows, each a long text: thousands of rows
    /// cost more than reading them.
    pub(crate) async fn forest(&self, tx: &mut Tx) -> Result<Forest> {
        let providers = self.snapshot_providers(tx).await?;
        let text = one_text(
            tx,
            "SELECT string_agg(provider_id || ' ' || class || ' ' || min_unit || ' ' || max_unit || ' ' || step_size
               || ' ' || capacity || ' ' || used, ',') FROM placement_inventory",
        )
        .await?;
        let mut by_id: HashMap<&str, BTreeMap<String, Stock>> = HashMap::with_capacity(providers.len());
        for row in text.split(',').filter(|r| !r.is_empty()) {
            let mut words = row.split(' ');
            let (Some(provider), Some(class)) = (words.next(), words.next()) else {
                return Err(Error::internal(format!("inventory: {row}")));
            };
            let numbers: Vec<i64> = words.filter_map(|w| w.parse().ok()).collect();
            let [min_unit, max_unit, step_size, capacity, used] = numbers[..] else {
                return Err(Error::internal(format!("inventory: {row}")));
            };
            let stock = Stock {
                min_unit,
                max_unit,
                step_size,
                capacity,
                used,
            };
            by_id.entry(provider).or_default().insert(class.to_owned(), stock);
        }
        Ok(Forest::new(providers, by_id))
    }

    /// All providers, in the order in which they were made.
    pub(crate) async fn snapshot_providers(&self, tx: &mut Tx) -> Result<Vec<ResourceProvider>> {
        let sql = "SELECT string_agg(doc, ',' ORDER BY created_at, id) FROM placement_provider";
        let text = one_text(tx, sql).await?;
        serde_json::from_str(&format!("[{text}]")).map_err(|e| Error::internal(format!("providers: {e}")))
    }

    /// Claims `amounts` of a provider for a consumer, on top of what it holds. False, with nothing claimed,
    /// when they do not fit (any more): decide again. The guard is the `capacity` of each row.
    #[allow(clippy::too_many_arguments)]
    pub async fn allocate(
        &self,
        tx: &mut Tx,
        consumer: &str,
        project: &str,
        user: &str,
        provider: &str,
        amounts: &[(&str, i64)],
    ) -> Result<bool> {
        if !self.take(tx, consumer, provider, amounts).await? {
            return Ok(false);
        }
        tx.exec(
            "INSERT INTO placement_consumer(id, project_id, user_id, generation, type) VALUES($1,$2,$3,1,'INSTANCE')
             ON CONFLICT(id) DO UPDATE SET generation = placement_consumer.generation + 1",
            &[consumer.into(), project.into(), user.into()],
        )
        .await?;
        Ok(true)
    }

    /// The claim itself, without the consumer's row.
    pub(crate) async fn take(
        &self,
        tx: &mut Tx,
        consumer: &str,
        provider: &str,
        amounts: &[(&str, i64)],
    ) -> Result<bool> {
        let mut done: Vec<(&str, i64)> = Vec::new();
        for (class, amount) in amounts.iter().filter(|(_, n)| *n > 0) {
            let n = tx
                .exec(
                    "UPDATE placement_inventory SET used = used + $3 WHERE provider_id = $1 AND class = $2
                       AND used + $3 <= capacity AND $3 <= max_unit AND $3 >= min_unit",
                    &[provider.into(), (*class).into(), (*amount).into()],
                )
                .await?;
            if n == 0 {
                for (class, amount) in done {
                    self.add_used(tx, provider, class, -amount).await?;
                }
                return Ok(false);
            }
            done.push((class, *amount));
        }
        for (class, amount) in done {
            tx.exec(
                "INSERT INTO placement_allocation(consumer_id, provider_id, class, amount) VALUES($1,$2,$3,$4)
                 ON CONFLICT(consumer_id, provider_id, class) DO UPDATE SET amount = placement_allocation.amount + excluded.amount",
                &[consumer.into(), provider.into(), class.into(), amount.into()],
            )
            .await?;
        }
        Ok(true)
    }

    /// Gives back all that a consumer holds, and leaves its row: something follows.
    pub(crate) async fn give_back(&self, tx: &mut Tx, consumer: &str) -> Result<()> {
        for (from, class, amount) in self.allocations(tx, consumer).await? {
            self.add_used(tx, &from, &class, -amount).await?;
        }
        tx.exec(
            "DELETE FROM placement_allocation WHERE consumer_id = $1",
            &[consumer.into()],
        )
        .await?;
        Ok(())
    }

    /// A consumer's generation; none when it holds nothing.
    pub(crate) async fn consumer_generation(&self, tx: &mut Tx, consumer: &str) -> Result<Option<i64>> {
        let row = tx
            .row(
                "SELECT generation FROM placement_consumer WHERE id = $1",
                &[consumer.into()],
            )
            .await?;
        row.map(|r| r.i64(0)).transpose()
    }

    /// Writes a consumer's row after its allocations. A type that nobody says stays what it was.
    pub(crate) async fn consumer_set(
        &self,
        tx: &mut Tx,
        consumer: &str,
        project: &str,
        user: &str,
        kind: Option<&str>,
        holds_nothing: bool,
    ) -> Result<()> {
        if holds_nothing {
            tx.exec("DELETE FROM placement_consumer WHERE id = $1", &[consumer.into()])
                .await?;
            return Ok(());
        }
        let keep = if kind.is_some() {
            "excluded.type"
        } else {
            "placement_consumer.type"
        };
        tx.exec(
            &format!(
                "INSERT INTO placement_consumer(id, project_id, user_id, generation, type) VALUES($1,$2,$3,1,$4)
                 ON CONFLICT(id) DO UPDATE SET generation = placement_consumer.generation + 1,
                   project_id = excluded.project_id, user_id = excluded.user_id, type = {keep}"
            ),
            &[
                consumer.into(),
                project.into(),
                user.into(),
                kind.unwrap_or("unknown").into(),
            ],
        )
        .await?;
        Ok(())
    }

    pub(crate) async fn add_used(&self, tx: &mut Tx, provider: &str, class: &str, n: i64) -> Result<()> {
        tx.exec(
            "UPDATE placement_inventory SET used = used + $3 WHERE provider_id = $1 AND class = $2",
            &[provider.into(), class.into(), n.into()],
        )
        .await?;
        Ok(())
    }

    /// Sets what a consumer holds of a provider to exactly `amounts`, taking only more when it fits. Used to
    /// drop one half of a resize. Never refuses to take less.
    pub async fn reduce(&self, tx: &mut Tx, consumer: &str, provider: &str, amounts: &[(&str, i64)]) -> Result<()> {
        for (have_provider, class, have) in self.allocations(tx, consumer).await? {
            if have_provider != provider {
                continue;
            }
            let want = amounts.iter().find(|(c, _)| *c == class).map_or(0, |(_, n)| *n);
            if want > have {
                return Err(Error::internal(format!(
                    "reduce {consumer}: {class} from {have} to {want} is more"
                )));
            }
            self.add_used(tx, provider, &class, want - have).await?;
            if want == 0 {
                tx.exec(
                    "DELETE FROM placement_allocation WHERE consumer_id = $1 AND provider_id = $2 AND class = $3",
                    &[consumer.into(), provider.into(), class.as_str().into()],
                )
                .await?;
            } else {
                tx.exec(
                    "UPDATE placement_allocation SET amount = $4 WHERE consumer_id = $1 AND provider_id = $2 AND class = $3",
                    &[consumer.into(), provider.into(), class.as_str().into(), want.into()],
                )
                .await?;
            }
        }
        Ok(())
    }

    /// Gives back what a consumer holds: of one provider, or all of it.
    pub async fn release(&self, tx: &mut Tx, consumer: &str, provider: Option<&str>) -> Result<()> {
        let held = self.allocations(tx, consumer).await?;
        let mut left = held.len();
        for (from, class, amount) in held {
            if provider.is_some_and(|p| p != from) {
                continue;
            }
            self.add_used(tx, &from, &class, -amount).await?;
            tx.exec(
                "DELETE FROM placement_allocation WHERE consumer_id = $1 AND provider_id = $2 AND class = $3",
                &[consumer.into(), from.into(), class.into()],
            )
            .await?;
            left -= 1;
        }
        if left == 0 {
            tx.exec("DELETE FROM placement_consumer WHERE id = $1", &[consumer.into()])
                .await?;
        }
        Ok(())
    }

    /// What a consumer holds: (provider, class, amount).
    pub async fn allocations(&self, tx: &mut Tx, consumer: &str) -> Result<Vec<(String, String, i64)>> {
        tx.rows(
            "SELECT provider_id, class, amount FROM placement_allocation WHERE consumer_id = $1 ORDER BY provider_id, class",
            &[consumer.into()],
        )
        .await?
        .iter()
        .map(|r| Ok((r.str(0)?, r.str(1)?, r.i64(2)?)))
        .collect()
    }

    /// All consumers that hold something, for audits.
    pub async fn consumers(&self, tx: &mut Tx) -> Result<Vec<String>> {
        tx.rows("SELECT id FROM placement_consumer ORDER BY id", &[])
            .await?
            .iter()
            .map(|r| r.str(0))
            .collect()
    }

    /// Where `used` is not the sum of the allocations: (provider, class, used, sum). Empty when all is well.
    pub async fn wrong_sums(&self, tx: &mut Tx) -> Result<Vec<(String, String, i64, i64)>> {
        tx.rows(
            "SELECT i.provider_id, i.class, i.used, CAST(COALESCE(SUM(a.amount), 0) AS BIGINT) FROM placement_inventory i
             LEFT JOIN placement_allocation a ON a.provider_id = i.provider_id AND a.class = i.class
             GROUP BY i.provider_id, i.class, i.used HAVING i.used <> CAST(COALESCE(SUM(a.amount), 0) AS BIGINT)",
            &[],
        )
        .await?
        .iter()
        .map(|r| Ok((r.str(0)?, r.str(1)?, r.i64(2)?, r.i64(3)?)))
        .collect()
    }
}
