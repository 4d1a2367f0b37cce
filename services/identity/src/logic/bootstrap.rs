//! The first start: a domain, an administrator, the roles and the catalog, in one transaction. Later starts
//! only make the catalog follow the configuration, where no administrator decided otherwise: what was removed does
//! not come back.

use super::compliance::{By, Compliance};
use crate::Identity;
use crate::model::{
    ActorKind, Assignment, CatalogService, DEFAULT_DOMAIN, Domain, Endpoint, ImpliedRole, Project, Region, Role,
    TargetKind, User,
};
use crate::store::{REVOCATIONS, forget_last_login, user_by_name};
use haneul_core::{Error, Result, id};
use haneul_store::{Actor, Query, Resource, System, Tx};
use serde_json::Map;

/// Type, name and path of what is in the catalog.
const SERVICES: [(&str, &str, &str); 5] = [
    ("identity", "keystone", "/identity/v3"),
    ("image", "glance", "/image"),
    ("network", "neutron", "/network"),
    ("compute", "nova", "/compute/v2.1"),
    ("placement", "placement", "/placement"),
];
const INTERFACES: [&str; 3] = ["public", "internal", "admin"];
/// Each implies the next one.
const LADDER: [&str; 4] = ["admin", "manager", "member", "reader"];

async fn make<T: Resource>(tx: &mut Tx, value: T) -> Result<T> {
    match tx.insert(&System::create(), &value).await? {
        Some(_) => Ok(value),
        None => Err(Error::internal(format!(
            "bootstrap: {} {} is there already",
            T::KIND,
            value.id()
        ))),
    }
}

impl Identity {
    /// Makes what the first start makes (`keystone-manage bootstrap`), and brings the catalog in line with
    /// the configuration. Answers the administrator's password when this call made the administrator: it
    /// is told once and stored nowhere.
    ///
    /// With `password` that one is used: a caller that writes the file before it calls loses no password
    /// when the process dies between the two.
    pub async fn bootstrap(&self, password: Option<String>) -> Result<Option<String>> {
        let first = self.db.read().await?.find::<Domain>(DEFAULT_DOMAIN).await?.is_none();
        let password = password.unwrap_or_else(|| id::secret(24));
        let hash = if first {
            Some(self.hasher.hash(&password).await?)
        } else {
            None
        };
        let (region, url) = (self.region.clone(), self.public_url.clone());
        let (sequence, compliance) = (self.cache.sequence.clone(), self.compliance.clone());
        let made = self
            .db
            .write(&Actor::system("bootstrap"), async move |tx| {
                let mut made = false;
                if let Some(hash) = &hash
                    && tx.find::<Domain>(DEFAULT_DOMAIN).await?.is_none()
                {
                    cloud(tx, &compliance, hash).await?;
                    made = true;
                }
                if follow(tx, &region, &url).await? || made {
                    tx.next_number(REVOCATIONS).await?;
                    let sequence = sequence.clone();
                    tx.after_commit(move || {
                        sequence.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
                    });
                }
                Ok(made)
            })
            .await?;
        Ok(made.then_some(password))
    }

    /// Sets a new random password for user `admin` of the default domain, for operators who lost theirs, and enables it.
    pub async fn reset_admin_password(&self) -> Result<String> {
        let password = id::secret(24);
        let hash = self.hasher.hash(&password).await?;
        let (sequence, compliance) = (self.cache.sequence.clone(), self.compliance.clone());
        let seconds = self.config.token_seconds;
        self.db
            .write(&Actor::system("reset-admin-password"), async move |tx| {
                let user = user_by_name(tx, DEFAULT_DOMAIN, "admin")
                    .await?
                    .ok_or_else(|| Error::not_found("There is no user admin in the domain default."))?;
                let mut value = user.value.clone();
                value.enabled = true;
                forget_last_login(tx, &value.id).await?;
                compliance.note(&mut value, By::Cloud);
                compliance.set(tx, &value.id, Some(&hash)).await?;
                crate::store::revoke(tx, "user", &value.id, seconds).await?;
                tx.update(&System::of(user), &value).await?;
                tx.next_number(REVOCATIONS).await?;
                let sequence = sequence.clone();
                tx.after_commit(move || {
                    sequence.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
                });
                Ok(())
            })
            .await?;
        Ok(password)
    }
}

/// What only the first start makes.
async fn cloud(tx: &mut Tx, compliance: &Compliance, hash: &str) -> Result<()> {
    make(
        tx,
        Domain {
            id: DEFAULT_DOMAIN.into(),
            name: "Default".into(),
            description: Some("The default domain".into()),
            enabled: true,
            tags: vec![],
            options: Map::new(),
            extra: Map::new(),
        },
    )
    .await?;
    let mut ids = Vec::new();
    for name in LADDER.into_iter().chain(["service"]) {
        let role = Role {
            id: id::hex(),
            name: name.into(),
            domain_id: None,
            description: None,
            // As keystone-manage bootstrap does: policy stands on these names.
            options: [("immutable".to_owned(), true.into())].into_iter().collect(),
            extra: Map::new(),
        };
        ids.push(make(tx, role).await?.id);
    }
    for (prior, implied) in ids.iter().zip(ids.iter().skip(1)).take(LADDER.len() - 1) {
        make(tx, ImpliedRole::new(prior, implied)).await?;
    }
    let mut projects = Vec::new();
    for (name, text) in [
        ("admin", "Bootstrap project for initializing the cloud."),
        ("service", "Service project"),
    ] {
        let project = Project {
            id: id::hex(),
            name: name.into(),
            domain_id: DEFAULT_DOMAIN.into(),
            parent_id: DEFAULT_DOMAIN.into(),
            description: Some(text.into()),
            enabled: true,
            tags: vec![],
            options: Map::new(),
            extra: Map::new(),
        };
        projects.push(make(tx, project).await?.id);
    }
    let mut admin = User {
        id: id::hex(),
        name: "admin".into(),
        domain_id: DEFAULT_DOMAIN.into(),
        enabled: true,
        default_project_id: None,
        description: None,
        options: Map::new(),
        password_set_at: None,
        password_expires_at: None,
        password_self_service: false,
        extra: Map::new(),
    };
    compliance.note(&mut admin, By::Cloud);
    let admin = make(tx, admin).await?;
    compliance.set(tx, &admin.id, Some(hash)).await?;
    let (Some(role), Some(project)) = (ids.first(), projects.first()) else {
        return Err(Error::internal("bootstrap made no role or project"));
    };
    let who = (ActorKind::User, admin.id.as_str());
    make(tx, Assignment::new(who, (TargetKind::Project, project), role, false)).await?;
    make(tx, Assignment::new(who, (TargetKind::System, "all"), role, false)).await?;
    Ok(())
}

/// What the cloud last wrote of one of its own entries.
struct Note {
    id: String,
    url: String,
    region: String,
}

async fn noted(tx: &mut Tx, what: &str) -> Result<Option<Note>> {
    let sql = "SELECT id, url, region FROM identity_followed WHERE what = $1";
    tx.row(sql, &[what.into()])
        .await?
        .map(|r| {
            Ok(Note {
                id: r.str(0)?,
                url: r.str(1)?,
                region: r.str(2)?,
            })
        })
        .transpose()
}

async fn note(tx: &mut Tx, what: &str, id: &str, url: &str, region: &str) -> Result<()> {
    tx.exec(
        "INSERT INTO identity_followed(what, id, url, region) VALUES($1, $2, $3, $4)
         ON CONFLICT(what) DO UPDATE SET id = excluded.id, url = excluded.url, region = excluded.region",
        &[what.into(), id.into(), url.into(), region.into()],
    )
    .await?;
    Ok(())
}

async fn ensure_region(tx: &mut Tx, region: &str) -> Result<()> {
    if tx.find::<Region>(region).await?.is_none() {
        let region = Region {
            id: region.into(),
            description: String::new(),
            parent_region_id: None,
            extra: Map::new(),
        };
        make(tx, region).await?;
    }
    Ok(())
}

/// Services and endpoints as configured, in the configured region; says whether anything had to change.
///
/// The catalog has two masters: the configuration (`api.public_url`, `api.region`), which may change between two
/// starts, and administrators, who change the same entries through the API. So the cloud notes what it wrote. An entry
/// that still says that follows the configuration; one that says something else was changed by an administrator and
/// stays as it is; and one that was deleted stays away. To have it back, make it, or set url and region as they
/// were: it follows again from the next start. Names, descriptions and `enabled` are never touched.
async fn follow(tx: &mut Tx, region: &str, url: &str) -> Result<bool> {
    let mut changed = false;
    let services = tx.list::<CatalogService>(&Query::new()).await?;
    for (kind, name, path) in SERVICES {
        let what = format!("service/{kind}");
        let found = match noted(tx, &what).await? {
            Some(n) => match services.iter().find(|s| s.id == n.id) {
                Some(s) => Some(s),
                None => continue,
            },
            // Of a release that kept no notes.
            None => services.iter().find(|s| s.kind == kind && s.name == name),
        };
        let service = match found {
            Some(s) => s.value.clone(),
            None => {
                changed = true;
                let service = CatalogService {
                    id: id::hex(),
                    name: name.into(),
                    kind: kind.into(),
                    enabled: true,
                    description: None,
                    extra: Map::new(),
                };
                make(tx, service).await?
            }
        };
        note(tx, &what, &service.id, "", "").await?;
        let own = tx
            .list::<Endpoint>(&Query::new().eq("service_id", service.id.as_str()))
            .await?;
        for interface in INTERFACES {
            let what = format!("endpoint/{kind}/{interface}");
            let wanted = format!("{url}{path}");
            let found = match noted(tx, &what).await? {
                Some(n) => match own.iter().find(|e| e.id == n.id) {
                    Some(e) if e.url == n.url && e.region_id.as_deref() == Some(n.region.as_str()) => Some(e),
                    Some(e) if e.url == wanted && e.region_id.as_deref() == Some(region) => Some(e),
                    _ => continue,
                },
                None => own.iter().find(|e| e.interface == interface),
            };
            let endpoint = match found {
                Some(e) if e.url == wanted && e.region_id.as_deref() == Some(region) => e.value.clone(),
                Some(e) => {
                    changed = true;
                    ensure_region(tx, region).await?;
                    let mut value = e.value.clone();
                    value.url.clone_from(&wanted);
                    value.region_id = Some(region.into());
                    tx.update(&System::of(e.clone()), &value).await?.value
                }
                None => {
                    changed = true;
                    ensure_region(tx, region).await?;
                    let endpoint = Endpoint {
                        id: id::hex(),
                        service_id: service.id.clone(),
                        region_id: Some(region.into()),
                        interface: interface.into(),
                        url: wanted.clone(),
                        enabled: true,
                        extra: Map::new(),
                    };
                    make(tx, endpoint).await?
                }
            };
            note(tx, &what, &endpoint.id, &wanted, region).await?;
        }
    }
    Ok(changed)
}
