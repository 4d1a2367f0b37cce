//! OS-ENDPOINT-POLICY (API reference: Identity API v3 extensions, "OS-ENDPOINT-POLICY"): which policy holds for which
//! endpoint.

use super::catalog::endpoint_view;
use super::common::{self, Listing};
use crate::Identity;
use crate::model::{CatalogService, Endpoint, PolicyAssociation, PolicyDoc, Region, missing};
use crate::policy::{
    CreatePolicyForEndpoint, CreatePolicyForRegion, CreatePolicyForService, DeletePolicyForEndpoint,
    DeletePolicyForRegion, DeletePolicyForService,
};
use haneul_auth::{Action, Target, allow_create, fetch};
use haneul_core::{Error, Result};
use haneul_http::{Reply, Req};
use haneul_store::{Query, Tx};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What an association is for, as its path says.
#[derive(Clone)]
enum For {
    Endpoint(String),
    Service(String),
    Region(String, String),
}

impl For {
    fn of(req: &Req) -> Self {
        let part = |name: &str| req.param(name).to_owned();
        match (req.param("endpoint_id"), req.param("region_id")) {
            ("", "") => For::Service(part("service_id")),
            ("", _) => For::Region(part("service_id"), part("region_id")),
            _ => For::Endpoint(part("endpoint_id")),
        }
    }
    fn association(&self, policy: &str) -> PolicyAssociation {
        let (id, endpoint_id, service_id, region_id) = match self {
            For::Endpoint(e) => (format!("endpoint/{e}"), Some(e), None, None),
            For::Service(s) => (format!("service/{s}"), None, Some(s), None),
            For::Region(s, r) => (format!("service/{s}/region/{r}"), None, Some(s), Some(r)),
        };
        PolicyAssociation {
            id,
            policy_id: policy.to_owned(),
            endpoint_id: endpoint_id.cloned(),
            service_id: service_id.cloned(),
            region_id: region_id.cloned(),
        }
    }
    async fn exists(&self, tx: &mut Tx) -> Result<()> {
        match self {
            For::Endpoint(e) if tx.find::<Endpoint>(e).await?.is_none() => Err(missing("endpoint", e)),
            For::Service(s) | For::Region(s, _) if tx.find::<CatalogService>(s).await?.is_none() => {
                Err(missing("service", s))
            }
            For::Region(_, r) if tx.find::<Region>(r).await?.is_none() => Err(missing("region", r)),
            _ => Ok(()),
        }
    }
}

async fn policy_exists(tx: &mut Tx, id: &str) -> Result<()> {
    match tx.find::<PolicyDoc>(id).await? {
        Some(_) => Ok(()),
        None => Err(missing("policy", id)),
    }
}

fn none() -> Error {
    Error::not_found("Could not find policy association.")
}

/// GET and HEAD /v3/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints/{endpoint_id}, services/{service_id} and
/// services/{service_id}/regions/{region_id}
pub(crate) async fn check(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (wanted, policy) = (For::of(&req), req.param("policy_id").to_owned());
    let rule = match wanted {
        For::Endpoint(_) => "identity:check_policy_association_for_endpoint",
        For::Service(_) => "identity:check_policy_association_for_service",
        For::Region(..) => "identity:check_policy_association_for_region_and_service",
    };
    req.ctx()?.enforce(rule, &Target::default())?;
    drop(req);
    let mut tx = app.db.read().await?;
    policy_exists(&mut tx, &policy).await?;
    wanted.exists(&mut tx).await?;
    match tx.find::<PolicyAssociation>(&wanted.association(&policy).id).await? {
        Some(a) if a.policy_id == policy => Ok(Reply::no_content()),
        _ => Err(none()),
    }
}

/// PUT of the same paths. What it is for has one policy: this one takes another one's place.
pub(crate) async fn create(app: Arc<Identity>, req: Req) -> Result<Reply> {
    match For::of(&req) {
        w @ For::Endpoint(_) => change(app, req, w, CreatePolicyForEndpoint, true).await,
        w @ For::Service(_) => change(app, req, w, CreatePolicyForService, true).await,
        w @ For::Region(..) => change(app, req, w, CreatePolicyForRegion, true).await,
    }
}

/// DELETE of the same paths.
pub(crate) async fn delete(app: Arc<Identity>, req: Req) -> Result<Reply> {
    match For::of(&req) {
        w @ For::Endpoint(_) => change(app, req, w, DeletePolicyForEndpoint, false).await,
        w @ For::Service(_) => change(app, req, w, DeletePolicyForService, false).await,
        w @ For::Region(..) => change(app, req, w, DeletePolicyForRegion, false).await,
    }
}

/// Makes the policy the one of what is wanted (`there`), or takes it away.
async fn change<A>(app: Arc<Identity>, req: Req, wanted: For, action: A, there: bool) -> Result<Reply>
where
    A: Action<On = PolicyAssociation> + Copy + Send + Sync + 'static,
{
    let (ctx, policy) = (req.ctx()?.clone(), req.param("policy_id").to_owned());
    drop(req);
    let asker = ctx.clone();
    app.db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&asker, action, &Target::default())?;
            policy_exists(tx, &policy).await?;
            wanted.exists(tx).await?;
            let new = wanted.association(&policy);
            match tx.find::<PolicyAssociation>(&new.id).await? {
                None if there => tx.insert(&grant, &new).await.map(|_| ()),
                Some(_) if there => {
                    let old = fetch(tx, &asker, action, &new.id).await?;
                    tx.update(&old, &new).await.map(|_| ())
                }
                Some(a) if a.policy_id == policy => {
                    let found = fetch(tx, &asker, action, &new.id).await?;
                    tx.delete(&found).await
                }
                _ => Err(none()),
            }
        })
        .await?;
    Ok(Reply::no_content())
}

/// A region and those below it.
async fn regions_below(tx: &mut Tx, id: &str) -> Result<BTreeSet<String>> {
    let all = tx.list::<Region>(&Query::new()).await?;
    let mut out = BTreeSet::new();
    let mut todo = vec![id.to_owned()];
    while let Some(at) = todo.pop() {
        todo.extend(
            all.iter()
                .filter(|r| r.parent_region_id.as_ref() == Some(&at))
                .map(|r| r.id.clone())
                .filter(|id| !out.contains(id)),
        );
        out.insert(at);
    }
    Ok(out)
}

/// GET /v3/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints
pub(crate) async fn endpoints(app: Arc<Identity>, req: Req) -> Result<Reply> {
    req.ctx()?
        .enforce("identity:list_endpoints_for_policy", &Target::default())?;
    let policy = req.param("policy_id").to_owned();
    let listing = Listing::of(&req, &[])?;
    drop(req);
    let mut tx = app.db.read().await?;
    policy_exists(&mut tx, &policy).await?;
    let query = Query::new().eq("policy_id", policy);
    let mut spots = Vec::new();
    for a in tx.list::<PolicyAssociation>(&query).await? {
        let below = match &a.region_id {
            Some(r) => Some(regions_below(&mut tx, r).await?),
            None => None,
        };
        spots.push((a.value, below));
    }
    let base = listing.base.clone();
    let keep = |e: &Endpoint| {
        spots.iter().any(|(a, below)| {
            a.endpoint_id.as_ref() == Some(&e.id)
                || (a.service_id.as_ref() == Some(&e.service_id)
                    && below
                        .as_ref()
                        .is_none_or(|b| e.region_id.as_ref().is_some_and(|r| b.contains(r))))
        })
    };
    let rows = listing
        .run::<Endpoint>(&mut tx, Query::new(), Some(&keep), &|e| endpoint_view(&base, e))
        .await?;
    Ok(listing.reply("endpoints", rows))
}

/// GET and HEAD /v3/endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy: that of the endpoint, else that of its service in
/// its region or the next one above, else that of its service.
pub(crate) async fn policy(app: Arc<Identity>, req: Req) -> Result<Reply> {
    req.ctx()?
        .enforce("identity:get_policy_for_endpoint", &Target::default())?;
    let (id, base) = (req.param("endpoint_id").to_owned(), req.base.clone());
    drop(req);
    let mut tx = app.db.read().await?;
    let endpoint = tx
        .find::<Endpoint>(&id)
        .await?
        .ok_or_else(|| missing("endpoint", &id))?;
    let mut spots = vec![For::Endpoint(id.clone())];
    let mut region = endpoint.region_id.clone();
    while let Some(r) = region.take().filter(|_| spots.len() < 64) {
        region = tx.find::<Region>(&r).await?.and_then(|r| r.value.parent_region_id);
        spots.push(For::Region(endpoint.service_id.clone(), r));
    }
    spots.push(For::Service(endpoint.service_id.clone()));
    for spot in spots {
        if let Some(a) = tx.find::<PolicyAssociation>(&spot.association("").id).await?
            && let Some(found) = tx.find::<PolicyDoc>(&a.policy_id).await?
        {
            return Ok(Reply::ok(
                &json!({"policy": common::view(&base, "policies", &found.value)}),
            ));
        }
    }
    Err(Error::not_found(format!("No policy is associated with endpoint {id}.")))
}
