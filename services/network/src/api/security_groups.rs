//! `/v2.0/security-groups` and `/v2.0/security-group-rules`.

use super::input::{self, In, Shape, kind};
use super::list::{self, Col, Listed, Shown, standard, with};
use crate::Network;
use crate::logic::publish::Touched;
use crate::logic::{groups, rules};
use crate::model::{Group, Rule};
use crate::policy::action::{
    DeleteSecurityGroup, DeleteSecurityGroupRule, GetSecurityGroup, GetSecurityGroupRule, UpdateSecurityGroup,
};
use haneul_auth::{Ctx, fetch};
use haneul_core::{Result, id};
use haneul_http::{Body, FieldKind as K, Reply, Req, f};
use haneul_store::{Query, Stored, Tx};
use serde_json::json;
use std::sync::Arc;

static GROUP: Shape = Shape {
    one: "security_group",
    many: "security_groups",
    create: &Body {
        open: false,
        fields: &[
            f("name", kind::TEXT),
            f("description", kind::TEXT),
            f("tenant_id", kind::PROJECT),
            f("project_id", kind::PROJECT),
            f("stateful", K::Bool),
            f("tags", kind::TAGS),
        ],
    },
    update: &Body {
        open: false,
        fields: &[
            f("name", kind::TEXT),
            f("description", kind::TEXT),
            f("stateful", K::Bool),
        ],
    },
    read_only: &[
        "id",
        "security_group_rules",
        "created_at",
        "updated_at",
        "revision_number",
    ],
};

const NUMBER: K = K::Int {
    min: -65536,
    max: 131_072,
};

static RULE: Shape = Shape {
    one: "security_group_rule",
    many: "security_group_rules",
    create: &Body {
        open: false,
        fields: &[
            f("security_group_id", K::Uuid).req(),
            f("direction", K::OneOf(&["ingress", "egress"])).req(),
            f("ethertype", kind::TEXT),
            f("protocol", K::Any(&[kind::TEXT, K::Int { min: 0, max: 255 }])).null(),
            f("port_range_min", NUMBER).null(),
            f("port_range_max", NUMBER).null(),
            f("remote_ip_prefix", kind::TEXT).null(),
            // What is no id is no group: 404, as Neutron answers.
            f("remote_group_id", K::Str { min: 0, max: 255 }).null(),
            f("description", kind::TEXT).null(),
            f("tenant_id", kind::PROJECT),
            f("project_id", kind::PROJECT),
        ],
    },
    update: &Body {
        open: false,
        fields: &[],
    },
    read_only: &["id", "created_at", "updated_at", "revision_number", "normalized_cidr"],
};

impl Listed for Group {
    const MANY: &'static str = "security_groups";
    const ONE: &'static str = "security_group";
    const GET: &'static str = "get_security_group";
    const COLUMNS_OF: &'static [(&'static str, &'static str, Col)] = &[];
    const ATTRIBUTES: &'static [&'static str] = &[
        "id",
        "name",
        "project_id",
        "description",
        "stateful",
        "security_group_rules",
        "created_at",
        "updated_at",
        "revision_number",
    ];
    fn scope(ctx: &Ctx, query: Query) -> Query {
        if ctx.is_admin() {
            query
        } else {
            query.eq("project_id", ctx.project_id())
        }
    }
    async fn show(_app: &Network, tx: &mut Tx, rows: &[Stored<Self>]) -> Result<Vec<Shown>> {
        let ids: Vec<&str> = rows.iter().map(|g| g.id.as_str()).collect();
        let mut rules = groups::rules_of(tx, &ids).await?;
        Ok(rows
            .iter()
            .map(|g| {
                let rules: Vec<Shown> = rules.remove(&g.id).iter().flatten().map(rule_view).collect();
                with(
                    standard(g),
                    json!({"stateful": g.stateful, "security_group_rules": rules}),
                )
            })
            .collect())
    }
}

impl Listed for Rule {
    const MANY: &'static str = "security_group_rules";
    const ONE: &'static str = "security_group_rule";
    const GET: &'static str = "get_security_group_rule";
    const COLUMNS_OF: &'static [(&'static str, &'static str, Col)] = &[
        ("security_group_id", "security_group_id", Col::Text),
        ("remote_group_id", "remote_group_id", Col::Text),
    ];
    const ATTRIBUTES: &'static [&'static str] = &[
        "id",
        "project_id",
        "description",
        "security_group_id",
        "direction",
        "ethertype",
        "protocol",
        "port_range_min",
        "port_range_max",
        "remote_ip_prefix",
        "normalized_cidr",
        "remote_group_id",
        "created_at",
        "updated_at",
        "revision_number",
    ];
    fn scope(ctx: &Ctx, query: Query) -> Query {
        if ctx.is_admin() {
            return query;
        }
        query.raw(
            "project_id = {} OR security_group_id IN (SELECT id FROM security_group WHERE project_id = {})",
            vec![ctx.project_id().into(), ctx.project_id().into()],
        )
    }
    async fn show(_app: &Network, _tx: &mut Tx, rows: &[Stored<Self>]) -> Result<Vec<Shown>> {
        Ok(rows.iter().map(rule_view).collect())
    }
}

fn rule_view(r: &Stored<Rule>) -> Shown {
    let mut shown = with(
        standard(r),
        json!({
            "security_group_id": r.security_group_id,
            "direction": if r.ingress { "ingress" } else { "egress" },
            "ethertype": if r.v6 { "IPv6" } else { "IPv4" },
            "protocol": r.protocol,
            "port_range_min": r.port_min,
            "port_range_max": r.port_max,
            "remote_ip_prefix": r.remote_prefix.map(|p| p.to_string()),
            "normalized_cidr": r.remote_prefix.map(|p| p.trunc().to_string()),
            "remote_group_id": r.remote_group,
        }),
    );
    // Rules have neither names nor tags.
    shown.remove("name");
    shown.remove("tags");
    shown
}

/// `GET /v2.0/security-groups`
pub async fn index(app: Arc<Network>, req: Req) -> Result<Reply> {
    app.ensure_default_group(req.ctx()?).await?;
    list::list::<Group>(app, req).await
}

/// `GET /v2.0/security-groups/{id}`
pub async fn show(app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let mut tx = app.db.read().await?;
    let group = fetch(&mut tx, &ctx, GetSecurityGroup, super::id(&req)).await?;
    let mut shown = [list::one(&app, &mut tx, &ctx, &group).await?];
    list::pick(&req, &mut shown);
    Ok(Reply::ok(&json!({"security_group": shown[0]})))
}

/// `POST /v2.0/security-groups`, one or a list.
pub async fn create(app: Arc<Network>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let (items, bulk) = input::create(&mut req, &GROUP).await?;
    let actor = ctx.actor();
    let db = app.db.clone();
    let shown = db
        .write(&actor, async move |tx| {
            let mut out = Vec::new();
            for item in &items {
                let body = In(item);
                let group = Group {
                    id: id::uuid(),
                    project_id: input::project(&ctx, body)?,
                    name: body.str("name").unwrap_or_default(),
                    description: body.str("description").unwrap_or_default(),
                    tags: super::tags::clean(body.strings("tags").unwrap_or_default()),
                    stateful: body.bool("stateful").unwrap_or(true),
                };
                let stored = groups::create(tx, &ctx, &group).await?;
                out.push(list::one(&app, tx, &ctx, &stored).await?);
            }
            Ok(out)
        })
        .await?;
    Ok(super::created("security_group", "security_groups", shown, bulk))
}

/// `PUT /v2.0/security-groups/{id}`
pub async fn update(app: Arc<Network>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = super::id(&req).to_owned();
    let revision = input::if_match(&req)?;
    let item = input::update(&mut req, &GROUP).await?;
    let actor = ctx.actor();
    let db = app.db.clone();
    let shown = db
        .write(&actor, async move |tx| {
            let body = In(&item);
            let old = fetch(tx, &ctx, UpdateSecurityGroup, &id).await?;
            input::check_revision(revision, old.generation, &id)?;
            let mut group = old.edit();
            body.set_str("name", &mut group.name);
            body.set_str("description", &mut group.description);
            body.set_bool("stateful", &mut group.stateful);
            let stored = app.group_update(tx, &old, &group).await?;
            list::one(&app, tx, &ctx, &stored).await
        })
        .await?;
    Ok(Reply::ok(&json!({"security_group": shown})))
}

/// `DELETE /v2.0/security-groups/{id}`
pub async fn delete(app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = super::id(&req).to_owned();
    let revision = input::deletion(&req)?;
    let actor = ctx.actor();
    let db = app.db.clone();
    db.write(&actor, async move |tx| {
        let group = fetch(tx, &ctx, DeleteSecurityGroup, &id).await?;
        input::check_revision(revision, group.generation, &id)?;
        app.group_delete(tx, &group, ctx.is_admin()).await
    })
    .await?;
    Ok(Reply::no_content())
}

/// `GET /v2.0/security-group-rules`
pub async fn rule_index(app: Arc<Network>, req: Req) -> Result<Reply> {
    app.ensure_default_group(req.ctx()?).await?;
    list::list::<Rule>(app, req).await
}

/// `GET /v2.0/security-group-rules/{id}`
pub async fn rule_show(app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let mut tx = app.db.read().await?;
    let rule = fetch(&mut tx, &ctx, GetSecurityGroupRule, super::id(&req)).await?;
    let mut shown = [list::one(&app, &mut tx, &ctx, &rule).await?];
    list::pick(&req, &mut shown);
    Ok(Reply::ok(&json!({"security_group_rule": shown[0]})))
}

/// `POST /v2.0/security-group-rules`, one or a list.
pub async fn rule_create(app: Arc<Network>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let (items, bulk) = input::create(&mut req, &RULE).await?;
    let actor = ctx.actor();
    let db = app.db.clone();
    let shown = db
        .write(&actor, async move |tx| {
            let mut out = Vec::new();
            let mut touched = Touched::default();
            for item in &items {
                let body = In(item);
                let project = (body.has("project_id") || body.has("tenant_id"))
                    .then(|| input::project(&ctx, body))
                    .transpose()?;
                let rule = rules::make_rule(tx, &ctx, item, project, &mut touched).await?;
                out.push(list::one(&app, tx, &ctx, &rule).await?);
            }
            app.publish(tx, touched).await?;
            Ok(out)
        })
        .await?;
    Ok(super::created(
        "security_group_rule",
        "security_group_rules",
        shown,
        bulk,
    ))
}

/// `DELETE /v2.0/security-group-rules/{id}`
pub async fn rule_delete(app: Arc<Network>, req: Req) -> Result<Reply> {
    input::no_body(&req)?;
    let ctx = req.ctx()?.clone();
    let id = super::id(&req).to_owned();
    let actor = ctx.actor();
    let db = app.db.clone();
    db.write(&actor, async move |tx| {
        let rule = fetch(tx, &ctx, DeleteSecurityGroupRule, &id).await?;
        app.rule_delete(tx, &rule).await
    })
    .await?;
    Ok(Reply::no_content())
}
