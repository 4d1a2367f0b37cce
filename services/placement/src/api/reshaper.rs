//! Reshaper (Placement API reference, "Reshaper"): moves inventories, and what is held of them, from provider to
//! provider in one step.

use super::allocations::claims;
use super::inventories::{drop_others, inventory_of, many};
use super::providers::bump;
use super::{CONCURRENT, allow, check};
use crate::names::Names;
use crate::{Inventory, Placement, ResourceProvider, policy};
use haneul_core::{Error, Result, id};
use haneul_http::{Body, FieldKind as K, Reply, Req, f, fields};
use std::collections::BTreeMap;
use std::sync::Arc;

static BODY: Body = Body {
    open: false,
    fields: &[f("inventories", K::Free).req(), f("allocations", K::Free).req()],
};

/// A provider's new inventories, and the generation that the client saw.
type New = (i64, BTreeMap<String, Inventory>);

/// POST /reshaper
pub async fn reshape(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    allow(&req, policy::Reshape)?;
    let body = req.json().await?;
    check(&BODY, &body, req.version, "body")?;
    let bad = |why: &str| Error::field("inventories", format!("JSON does not validate: inventories {why}"));
    let map = body["inventories"]
        .as_object()
        .ok_or_else(|| bad("must be an object by resource provider."))?;
    if map.is_empty() {
        return Err(bad(
            "does not have enough properties, should be non-empty: at least one provider is needed.",
        ));
    }
    let mut new: BTreeMap<String, New> = BTreeMap::new();
    for (uuid, v) in map {
        if !id::is_uuid(uuid) {
            return Err(bad(&format!(
                "'{uuid}' is not a 'uuid' and does not match any of the regexes: '^[0-9a-fA-F-]{{36}}$'"
            )));
        }
        let path = format!("inventories.{uuid}");
        let said = fields::int(&v["resource_provider_generation"]).unwrap_or(-1);
        let records = many(v, req.version, &path)?;
        let records = records.iter().map(|(c, v)| Ok((c.clone(), inventory_of(v, c)?)));
        new.insert(uuid.clone(), (said, records.collect::<Result<_>>()?));
    }
    let all = claims(&body["allocations"], req.version, true)?;
    let this = app.clone();
    app.db
        .write(&req.ctx()?.actor(), async move |tx| {
            for (uuid, (said, wanted)) in &new {
                let Some(p) = tx.find::<ResourceProvider>(uuid).await? else {
                    return Err(Error::field(
                        "inventories",
                        format!(
                            "Resource provider {uuid} in inventories not found: No resource provider with uuid {uuid} found"
                        ),
                    )
                    .with_code("placement.resource_provider.not_found"));
                };
                if p.provider_generation != *said {
                    return Err(Error::conflict(format!(
                        "resource provider generation conflict for provider {uuid}: actual: {}, given: {said}",
                        p.provider_generation
                    ))
                    .with_code(CONCURRENT));
                }
                Names::Class
                    .demand(tx, "malformed reshaper data: ", &wanted.keys().cloned().collect())
                    .await?;
            }
            this.start_replace(tx, &all).await?;
            for (uuid, (_, wanted)) in &new {
                for (class, i) in wanted {
                    this.set_inventory(tx, uuid, class, i).await?;
                }
                // Two generations: with what comes, and without what goes.
                bump(tx, uuid).await?;
            }
            this.finish_replace(tx, &all).await?;
            // What goes must be free by now.
            for (uuid, (_, wanted)) in &new {
                drop_others(&this, tx, uuid, wanted, "update conflict: ").await?;
                bump(tx, uuid).await?;
            }
            Ok(())
        })
        .await?;
    Ok(Reply::no_content())
}
