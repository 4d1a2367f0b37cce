//! /v3/role_assignments (API reference: Identity API v3, "Role assignments").

use crate::Identity;
use crate::model::{ActorKind, Assignment, Domain, Group, Project, TargetKind, User, missing};
use crate::store::{RoleBook, memberships, parents, subtree};
use haneul_auth::Target;
use haneul_core::{Error, Result};
use haneul_http::{Reply, Req};
use haneul_store::{Query, Tx};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The query.
struct Asked {
    user: Option<String>,
    group: Option<String>,
    role: Option<String>,
    project: Option<String>,
    domain: Option<String>,
    system: bool,
    /// `Some(true)`: only inherited ones.
    inherited: Option<bool>,
    effective: bool,
    names: bool,
    subtree: bool,
}

/// Keystone's flags: there at all, and not `0`.
fn flag(req: &Req, name: &str) -> bool {
    req.q(name).is_some_and(|v| v != "0")
}

impl Asked {
    fn of(req: &Req) -> Result<Self> {
        let text = |name: &str| req.q(name).filter(|v| !v.is_empty()).map(str::to_owned);
        let asked = Self {
            user: text("user.id"),
            group: text("group.id"),
            role: text("role.id"),
            project: text("scope.project.id"),
            domain: text("scope.domain.id"),
            system: text("scope.system").is_some(),
            inherited: text("scope.OS-INHERIT:inherited_to").map(|v| v == "projects"),
            effective: flag(req, "effective"),
            names: flag(req, "include_names"),
            subtree: flag(req, "include_subtree"),
        };
        let both =
            |a: bool, b: bool, field: &str, text: &str| if a && b { Err(Error::field(field, text)) } else { Ok(()) };
        both(
            asked.domain.is_some(),
            asked.project.is_some(),
            "scope.domain.id",
            "Specify a domain or project, not both (scope.domain.id, scope.project.id)",
        )?;
        both(
            asked.domain.is_some(),
            asked.system,
            "scope.system",
            "Specify system or domain, not both (scope.system, scope.domain.id)",
        )?;
        both(
            asked.project.is_some(),
            asked.system,
            "scope.system",
            "Specify system or project, not both (scope.system, scope.project.id)",
        )?;
        both(
            asked.user.is_some(),
            asked.group.is_some(),
            "group.id",
            "Specify a user or group, not both (user.id, group.id)",
        )?;
        both(
            asked.effective,
            asked.group.is_some(),
            "effective",
            "Combining effective and group filter (group.id) will always result in an empty list.",
        )?;
        both(
            asked.effective && asked.inherited == Some(true),
            asked.domain.is_some(),
            "effective",
            "Combining effective, domain and inherited filters will always result in an empty list (scope.domain.id).",
        )?;
        both(
            asked.subtree,
            asked.project.is_none(),
            "scope.project.id",
            "scope.project.id must be specified if include_subtree is also specified",
        )?;
        Ok(asked)
    }
}

/// One row of the answer before names.
struct Line {
    actor: (ActorKind, String),
    target: (TargetKind, String),
    role: String,
    /// Shown as inherited.
    inherited: bool,
    /// The assignment that it comes from.
    source: Assignment,
    /// The role that implies it, if it is implied.
    prior: Option<String>,
}

/// GET /v3/role_assignments
pub(crate) async fn list(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let asked = Asked::of(&req);
    let (base, path) = (req.base.clone(), req.uri_path.clone());
    let tree = flag(&req, "include_subtree");
    let tree_project = req.q("scope.project.id").unwrap_or_default().to_owned();
    drop(req);
    let mut tx = app.db.read().await?;
    let mut target = super::common::list_target(&ctx);
    if tree {
        // A reader of the project's own domain may see its tree.
        let project = tx.find::<Project>(&tree_project).await?;
        target = match &project {
            Some(p) => Target::default().with("target.domain_id", &p.domain_id),
            None => Target::default(),
        };
        ctx.enforce("identity:list_role_assignments_for_tree", &target)?;
        if project.is_none() && !tree_project.is_empty() {
            return Err(missing("project", &tree_project).with_field("scope.project.id"));
        }
    } else {
        ctx.enforce("identity:list_role_assignments", &target)?;
    }
    let asked = asked?;
    let lines = lines(&mut tx, &asked).await?;
    let names = Names::load(&mut tx, &lines, asked.names || ctx.domain_scope().is_some()).await?;
    let rows: Vec<Value> = lines
        .iter()
        .filter(|l| match ctx.domain_scope() {
            // Who speaks for a domain sees what is in it.
            Some(own) => match l.target.0 {
                TargetKind::Domain => l.target.1 == own,
                TargetKind::Project => names.projects.get(&l.target.1).is_some_and(|p| p.domain_id == own),
                TargetKind::System => false,
            },
            None => true,
        })
        .map(|l| row(&base, l, &names, asked.names))
        .collect();
    Ok(Reply::ok(&json!({
        "role_assignments": rows,
        "links": {"next": null, "previous": null, "self": format!("{base}{path}")},
    })))
}

async fn lines(tx: &mut Tx, asked: &Asked) -> Result<Vec<Line>> {
    let mut projects: BTreeSet<String> = BTreeSet::new();
    if let Some(p) = &asked.project {
        projects.insert(p.clone());
        if asked.subtree {
            projects.extend(subtree(tx, p).await?.into_iter().map(|p| p.value.id));
        }
    }
    let mut query = Query::new();
    if asked.system {
        query = query.eq("target_kind", "system");
    }
    if let Some(d) = &asked.domain {
        query = query.eq("target_kind", "domain").eq("target_id", d.as_str());
    }
    if !asked.effective {
        if asked.project.is_some() {
            query = query
                .eq("target_kind", "project")
                .is_in("target_id", projects.iter().map(String::as_str));
        }
        for (kind, id) in [("user", &asked.user), ("group", &asked.group)] {
            if let Some(id) = id {
                query = query.eq("actor_kind", kind).eq("actor_id", id.as_str());
            }
        }
        if let Some(r) = &asked.role {
            query = query.eq("role_id", r.as_str());
        }
        if let Some(i) = asked.inherited {
            query = query.eq("inherited", i);
        }
        return Ok(tx
            .list::<Assignment>(&query)
            .await?
            .into_iter()
            .map(|a| Line {
                actor: (a.actor, a.actor_id.clone()),
                target: (a.target, a.target_id.clone()),
                role: a.role_id.clone(),
                inherited: a.inherited,
                source: a.value,
                prior: None,
            })
            .collect());
    }
    effective(tx, asked, query, &projects).await
}

/// Groups by their members, inherited ones by the projects below, roles by all that they imply.
async fn effective(tx: &mut Tx, asked: &Asked, query: Query, projects: &BTreeSet<String>) -> Result<Vec<Line>> {
    let book = RoleBook::load(tx).await?;
    let groups = memberships(tx).await?;
    let mut above: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for id in projects {
        if let Some(p) = tx.find::<Project>(id).await? {
            let mut ids = vec![p.domain_id.clone()];
            ids.extend(parents(tx, &p).await?.into_iter().map(|x| x.value.id));
            above.insert(id.clone(), ids);
        }
    }
    let mut out = Vec::new();
    let mut below: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for a in tx.list::<Assignment>(&query).await? {
        let users: Vec<&str> = match a.actor {
            ActorKind::User => vec![&a.actor_id],
            ActorKind::Group => groups
                .get(&a.actor_id)
                .into_iter()
                .flatten()
                .map(String::as_str)
                .collect(),
        };
        let users: Vec<&str> = users
            .into_iter()
            .filter(|u| asked.user.as_deref().is_none_or(|w| w == *u))
            .collect();
        if users.is_empty() || asked.inherited.is_some_and(|i| i != a.inherited) {
            continue;
        }
        let targets: Vec<(TargetKind, String)> = if !a.inherited {
            vec![(a.target, a.target_id.clone())]
        } else if !projects.is_empty() {
            above
                .iter()
                .filter(|(_, ids)| ids.contains(&a.target_id))
                .map(|(id, _)| (TargetKind::Project, id.clone()))
                .collect()
        } else {
            if !below.contains_key(&a.target_id) {
                let ids = subtree(tx, &a.target_id)
                    .await?
                    .into_iter()
                    .map(|p| p.value.id)
                    .collect();
                below.insert(a.target_id.clone(), ids);
            }
            below
                .get(&a.target_id)
                .into_iter()
                .flatten()
                .map(|id| (TargetKind::Project, id.clone()))
                .collect()
        };
        for target in targets {
            let outside = target.0 != TargetKind::Project || !projects.contains(&target.1);
            if !projects.is_empty() && outside {
                continue;
            }
            for role in book.expand([a.role_id.as_str()]) {
                // A role of a domain only stands for those that it implies.
                let real = book.roles.get(&role).is_some_and(|r| r.domain_id.is_none());
                if !real || asked.role.as_ref().is_some_and(|r| *r != role) {
                    continue;
                }
                for user in &users {
                    out.push(Line {
                        actor: (ActorKind::User, (*user).to_owned()),
                        target: target.clone(),
                        role: role.clone(),
                        inherited: a.inherited,
                        prior: (role != a.role_id).then(|| a.role_id.clone()),
                        source: a.value.clone(),
                    });
                }
            }
        }
    }
    Ok(out)
}

/// What names need.
#[derive(Default)]
struct Names {
    users: BTreeMap<String, User>,
    groups: BTreeMap<String, Group>,
    projects: BTreeMap<String, Project>,
    domains: BTreeMap<String, Domain>,
    roles: BTreeMap<String, crate::Role>,
}

impl Names {
    async fn load(tx: &mut Tx, lines: &[Line], wanted: bool) -> Result<Self> {
        let mut names = Self::default();
        if !wanted {
            return Ok(names);
        }
        names.roles = RoleBook::load(tx).await?.roles;
        for d in tx.list::<Domain>(&Query::new()).await? {
            names.domains.insert(d.id.clone(), d.value);
        }
        for l in lines {
            let id = l.actor.1.as_str();
            match l.actor.0 {
                ActorKind::User if !names.users.contains_key(id) => {
                    if let Some(u) = tx.find::<User>(id).await? {
                        names.users.insert(id.to_owned(), u.value);
                    }
                }
                ActorKind::Group if !names.groups.contains_key(id) => {
                    if let Some(g) = tx.find::<Group>(id).await? {
                        names.groups.insert(id.to_owned(), g.value);
                    }
                }
                _ => {}
            }
            let id = l.target.1.as_str();
            if l.target.0 == TargetKind::Project
                && !names.projects.contains_key(id)
                && let Some(p) = tx.find::<Project>(id).await?
            {
                names.projects.insert(id.to_owned(), p.value);
            }
        }
        Ok(names)
    }

    fn domain(&self, id: &str) -> Value {
        json!({"id": id, "name": self.domains.get(id).map(|d| d.name.as_str())})
    }
}

fn row(base: &str, l: &Line, names: &Names, with_names: bool) -> Value {
    let with = |mut doc: Value, name: Option<&str>, domain: Option<&str>| {
        if with_names {
            if let Some(name) = name {
                super::common::put(&mut doc, "name", name.into());
            }
            if let Some(domain) = domain {
                super::common::put(&mut doc, "domain", names.domain(domain));
            }
        }
        doc
    };
    let id = l.actor.1.as_str();
    let (actor_key, actor) = match l.actor.0 {
        ActorKind::User => {
            let u = names.users.get(id);
            (
                "user",
                with(
                    json!({"id": id}),
                    u.map(|u| u.name.as_str()),
                    u.map(|u| u.domain_id.as_str()),
                ),
            )
        }
        ActorKind::Group => {
            let g = names.groups.get(id);
            (
                "group",
                with(
                    json!({"id": id}),
                    g.map(|g| g.name.as_str()),
                    g.map(|g| g.domain_id.as_str()),
                ),
            )
        }
    };
    let id = l.target.1.as_str();
    let mut scope = match l.target.0 {
        TargetKind::Project => {
            let p = names.projects.get(id);
            json!({"project": with(json!({"id": id}), p.map(|p| p.name.as_str()), p.map(|p| p.domain_id.as_str()))})
        }
        TargetKind::Domain => {
            json!({"domain": with(json!({"id": id}), names.domains.get(id).map(|d| d.name.as_str()), None)})
        }
        TargetKind::System => json!({"system": {"all": true}}),
    };
    if l.inherited {
        super::common::put(&mut scope, "OS-INHERIT:inherited_to", "projects".into());
    }
    let s = &l.source;
    let place = match s.target {
        TargetKind::Project => format!("projects/{}", s.target_id),
        TargetKind::Domain => format!("domains/{}", s.target_id),
        TargetKind::System => "system".to_owned(),
    };
    let path = format!("{place}/{}s/{}/roles/{}", s.actor.as_str(), s.actor_id, s.role_id);
    let mut links = json!({
        "assignment": if s.inherited {
            format!("{base}/v3/OS-INHERIT/{path}/inherited_to_projects")
        } else {
            format!("{base}/v3/{path}")
        },
    });
    if s.actor == ActorKind::Group && l.actor.0 == ActorKind::User {
        let link = format!("{base}/v3/groups/{}/users/{}", s.actor_id, l.actor.1);
        super::common::put(&mut links, "membership", link.into());
    }
    if let Some(prior) = &l.prior {
        super::common::put(
            &mut links,
            "prior_role",
            format!("{base}/v3/prior_role/{prior}/implies/{}", l.role).into(),
        );
    }
    let role = with(
        json!({"id": l.role}),
        names.roles.get(&l.role).map(|r| r.name.as_str()),
        None,
    );
    let mut doc = json!({"role": role, "scope": scope, "links": links});
    super::common::put(&mut doc, actor_key, actor);
    doc
}
