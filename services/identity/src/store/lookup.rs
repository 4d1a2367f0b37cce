//! Look-ups by names, for authentication and for other services.

use crate::model::{Domain, Project, Role, User};
use haneul_core::Result;
use haneul_store::{Query, Stored, Tx};

pub(crate) async fn domain_by_name(tx: &mut Tx, name: &str) -> Result<Option<Stored<Domain>>> {
    Ok(tx.list(&Query::new().eq("name", name)).await?.into_iter().next())
}

pub(crate) async fn project_by_name(tx: &mut Tx, domain: &str, name: &str) -> Result<Option<Stored<Project>>> {
    Ok(tx
        .list(&Query::new().eq("domain_id", domain).eq("name", name))
        .await?
        .into_iter()
        .next())
}

pub(crate) async fn user_by_name(tx: &mut Tx, domain: &str, name: &str) -> Result<Option<Stored<User>>> {
    Ok(tx
        .list(&Query::new().eq("domain_id", domain).eq("name", name))
        .await?
        .into_iter()
        .next())
}

/// A role by name; `domain` is "" for the global ones.
pub(crate) async fn role_by_name(tx: &mut Tx, domain: &str, name: &str) -> Result<Option<Stored<Role>>> {
    Ok(tx
        .list(&Query::new().eq("domain_id", domain).eq("name", name))
        .await?
        .into_iter()
        .next())
}

/// The projects above a project, nearest first, without the domain.
pub(crate) async fn parents(tx: &mut Tx, project: &Project) -> Result<Vec<Stored<Project>>> {
    let mut out = Vec::new();
    let mut at = project.parent_id.clone();
    // The depth is limited at creation; the bound is against a damaged table.
    while at != project.domain_id && out.len() < 32 {
        let Some(parent) = tx.find::<Project>(&at).await? else {
            break;
        };
        at.clone_from(&parent.parent_id);
        out.push(parent);
    }
    Ok(out)
}

/// The projects below a project or domain, parents before children.
pub(crate) async fn subtree(tx: &mut Tx, id: &str) -> Result<Vec<Stored<Project>>> {
    let mut out: Vec<Stored<Project>> = Vec::new();
    let mut level = vec![id.to_owned()];
    while !level.is_empty() {
        let mut below = Vec::new();
        for ids in level.chunks(500) {
            below.extend(
                tx.list::<Project>(&Query::new().is_in("parent_id", ids.iter().map(String::as_str)))
                    .await?,
            );
        }
        level = below.iter().map(|p| p.id.clone()).collect();
        out.extend(below);
    }
    Ok(out)
}
