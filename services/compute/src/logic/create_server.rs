//! POST /servers: decide on a snapshot, then one transaction that takes quota, allocation and ports, stores
//! the servers, tells the host and starts the jobs. What is wrong with the request refuses before anything
//! is written; only "no host fits" leaves servers in ERROR with their fault.

use crate::Compute;
use crate::logic::decide::{Change, Choice, Refusal, Request};
use crate::logic::deps::{self, BootImage, NicRequest};
use crate::logic::guest;
use crate::logic::quota::COUNTED;
use crate::logic::scheduling::hinted;
use crate::logic::zones::Zones;
use crate::model::server::ServerImage;
use crate::model::{Fault, Flavor, FlavorShot, Keypair, Server, ServerGroup, Task, VmState, power};
use crate::policy::{self, acts};
use haneul_agent_api::{Object, Power, PublicKey};
use haneul_auth::{Ctx, Target, allow_create, authorize, fetch};
use haneul_core::{Error, Kind, Result, clock, fault_point, id};
use haneul_store::{Stored, Tx};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Decisions until "no host fits" is believed although a guarded update disagrees with the snapshot.
const TRIES: usize = 5;
/// Code of the error that means: decide again.
const AGAIN: &str = "decide-again";

/// The request in its newest form.
#[derive(Clone, Debug, Default)]
pub(crate) struct CreateRequest {
    pub name: String,
    pub hostname: Option<String>,
    pub description: Option<String>,
    pub flavor: String,
    pub image: String,
    pub key_name: Option<String>,
    pub user_data: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub tags: Vec<String>,
    pub config_drive: bool,
    pub zone: Option<String>,
    /// Administrators may name a host.
    pub host: Option<String>,
    /// Named by the fields of 2.74, not as part of the zone.
    pub destination: bool,
    pub nics: Option<Vec<NicRequest>>,
    pub auto: bool,
    pub security_groups: Vec<String>,
    pub min_count: usize,
    pub max_count: usize,
    pub admin_pass: Option<String>,
    pub access_ip_v4: Option<IpAddr>,
    pub access_ip_v6: Option<IpAddr>,
    pub auto_disk_config: bool,
    pub hints: Value,
    pub trusted_image_certificates: Option<Vec<String>>,
}

impl From<BootImage> for ServerImage {
    fn from(i: BootImage) -> Self {
        Self {
            id: i.id,
            name: i.name,
            format: i.format,
            size: i.size,
            virtual_size: i.virtual_size,
            sha512: i.sha512,
            min_disk_gib: i.min_disk_gib,
            min_ram_mib: i.min_ram_mib,
            properties: i.properties,
        }
    }
}

/// A flavor that the caller may use; 400 otherwise, as this is a field of a request.
pub(crate) async fn find_flavor(tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<Flavor> {
    let missing = || Error::field("flavorRef", format!("Flavor {id} could not be found."));
    match fetch(tx, ctx, acts::FlavorShow, id).await {
        Ok(f) if !f.disabled => Ok(f.value.clone()),
        Ok(_) => Err(missing()),
        Err(e) if e.kind() == Kind::NotFound => Err(missing()),
        Err(e) => Err(e),
    }
}

/// An image that a server can be made from; 400 when there is none.
pub(crate) async fn boot_image(app: &Compute, tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<BootImage> {
    deps::for_boot(&app.image, tx, ctx, id)
        .await
        .map_err(|e| match e.kind() {
            Kind::NotFound => Error::field("imageRef", format!("Image {id} could not be found.")),
            _ => e,
        })
}

/// 400 when the flavor is too small for the image; 403 when it has no disk of its own, so that the image alone would
/// say how much of the host's is taken.
pub(crate) fn check_image_fits(ctx: &Ctx, flavor: &FlavorShot, image: &BootImage) -> Result<()> {
    if flavor.disk == 0 && !ctx.may(policy::ZERO_DISK_FLAVOR, &Target::own(ctx)) {
        return Err(Error::forbidden(format!(
            "Only volume-backed servers are allowed for flavors with zero disk, and {} has none. Choose a flavor with a disk.",
            flavor.name
        ))
        .with_field("flavorRef"));
    }
    if flavor.ram < image.min_ram_mib {
        return Err(Error::field(
            "flavorRef",
            format!(
                "Flavor's memory is too small for requested image. The image needs {} MiB and the flavor {} has {}.",
                image.min_ram_mib, flavor.name, flavor.ram
            ),
        ));
    }
    let needed = (image.virtual_size.div_ceil(1 << 30) as i64).max(image.min_disk_gib);
    if flavor.disk > 0 && flavor.disk < needed {
        return Err(Error::field(
            "flavorRef",
            format!(
                "Flavor's disk is too small for requested image. Flavor disk is {} bytes, image is {} bytes. A flavor with a disk of at least {needed} GiB fits.",
                flavor.disk << 30,
                (image.min_disk_gib.max(0) as u64 * (1 << 30)).max(image.virtual_size)
            ),
        ));
    }
    Ok(())
}

/// The public keys of a key pair of the caller, as the guest gets them.
pub(crate) async fn keys_of(tx: &mut Tx, ctx: &Ctx, name: Option<&str>) -> Result<Vec<PublicKey>> {
    let Some(name) = name else { return Ok(vec![]) };
    let found = tx.find::<Keypair>(&Keypair::key(&ctx.user_id, name)).await?;
    let k = found.ok_or_else(|| {
        Error::field(
            "key_name",
            format!("Invalid key_name provided. There is no key pair '{name}' of yours."),
        )
    })?;
    Ok(vec![PublicKey {
        name: k.name.clone(),
        kind: k.kind.clone(),
        key: k.public_key.trim().to_owned(),
    }])
}

/// A host name made from a server's name (letters, digits, dashes).
pub(crate) fn hostname_of(name: &str, id: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        match c {
            'a'..='z' | '0'..='9' | '-' => out.push(c),
            'A'..='Z' => out.push(c.to_ascii_lowercase()),
            ' ' | '_' | '.' => out.push('-'),
            _ => {}
        }
    }
    out.truncate(63);
    let trimmed = out.trim_matches('-');
    if trimmed.is_empty() {
        format!("server-{id}")
    } else {
        trimmed.to_owned()
    }
}

/// All that was looked up before the transaction.
#[derive(Clone)]
struct Prepared {
    flavor: FlavorShot,
    image: BootImage,
    keys: Vec<PublicKey>,
    group: Option<Stored<ServerGroup>>,
    /// Servers that hints name.
    avoid: Vec<String>,
    only: Option<Vec<String>>,
}

impl Compute {
    /// Creates one or more servers; answers them as stored, and the password that the first has.
    pub(crate) async fn create_servers(self: &Arc<Self>, ctx: &Ctx, r: CreateRequest) -> Result<Vec<Stored<Server>>> {
        if r.host.is_some() {
            let rule = if r.destination {
                policy::REQUESTED_DESTINATION
            } else {
                policy::FORCED_HOST
            };
            ctx.enforce(rule, &Target::own(ctx))?;
        }
        if r.trusted_image_certificates.is_some() {
            ctx.enforce(policy::TRUSTED_CERTS, &Target::own(ctx))?;
        }
        // The scope must be a project: servers belong to one.
        allow_create(ctx, acts::Create, &Target::own(ctx))?;
        if ctx.project_id().is_empty() {
            return Err(Error::forbidden(
                "A token that is scoped to a project is needed to create servers.",
            ));
        }
        if let Some(z) = &r.zone {
            self.known_zone(z).await?;
        }
        let prepared = self.prepare(ctx, &r).await?;
        let mut count = self.count_within_quota(ctx, &r, &prepared).await?;
        let mut tries = 0;
        let _one_by_one = match &prepared.group {
            Some(_) => Some(self.groups.lock().await),
            None => None,
        };
        loop {
            tries += 1;
            let request = self.request(ctx, &r, &prepared, count).await?;
            let plan = match self.decide(&request).await? {
                Ok(plan) => plan.why,
                Err(refusal) => match refusal.change {
                    Change::Fewer(n) if n >= r.min_count => {
                        count = n;
                        continue;
                    }
                    _ => return self.create_refused(ctx, &r, &prepared, &request, &refusal).await,
                },
            };
            fault_point!("compute.create.decided");
            match self.create_placed(ctx, &r, &prepared, plan).await {
                Err(e) if e.code() == AGAIN && tries < TRIES => self.snapshot.drop_it(),
                Err(e) if e.code() == AGAIN => {
                    return Err(Error::unavailable(
                        "The hosts change faster than a place can be chosen. Repeat the request.",
                    ));
                }
                other => {
                    fault_point!("compute.create.committed");
                    return other;
                }
            }
        }
    }

    /// Looks up what the request names; refuses with 400 what is not there.
    async fn prepare(&self, ctx: &Ctx, r: &CreateRequest) -> Result<Prepared> {
        let mut tx = self.db.read().await?;
        let flavor = FlavorShot::from(&find_flavor(&mut tx, ctx, &r.flavor).await?);
        let image = boot_image(self, &mut tx, ctx, &r.image).await?;
        check_image_fits(ctx, &flavor, &image)?;
        let keys = keys_of(&mut tx, ctx, r.key_name.as_deref()).await?;
        let group = match hinted(&r.hints, "group").into_iter().next() {
            None => None,
            Some(id) => {
                let missing = || {
                    Error::field(
                        "os:scheduler_hints.group",
                        format!("Instance group {id} could not be found."),
                    )
                };
                let stored = tx.find::<ServerGroup>(&id).await?.ok_or_else(missing)?;
                let found = authorize(ctx, acts::GroupShow, stored, &id).map_err(|_| missing())?;
                Some(Stored::clone(&found))
            }
        };
        let (avoid, only) = self.hinted_hosts(&mut tx, &r.hints).await?;
        Ok(Prepared {
            flavor,
            image,
            keys,
            group,
            avoid,
            only,
        })
    }

    /// How many servers the project's quota lets through, between minimum and maximum.
    async fn count_within_quota(&self, ctx: &Ctx, r: &CreateRequest, p: &Prepared) -> Result<usize> {
        if r.min_count == r.max_count {
            return Ok(r.max_count);
        }
        let mut tx = self.db.read().await?;
        let mut most = r.max_count as i64;
        let owner = (ctx.project_id(), ctx.user_id.as_str());
        for (name, each) in COUNTED.into_iter().zip([1, p.flavor.vcpus, p.flavor.ram]) {
            if let Some(room) = self.room(&mut tx, owner, name).await?.filter(|_| each > 0) {
                most = most.min(room / each);
            }
        }
        Ok((most.max(0) as usize).clamp(r.min_count, r.max_count))
    }

    async fn request(&self, ctx: &Ctx, r: &CreateRequest, p: &Prepared, count: usize) -> Result<Request> {
        let group = match &p.group {
            None => None,
            Some(g) => {
                let mut tx = self.db.read().await?;
                let wish = self.group_wish(&mut tx, g, None).await?;
                self.check_group_room(&mut tx, g, &wish, count).await?;
                Some(wish)
            }
        };
        Ok(Request {
            count,
            host: r.host.clone(),
            group,
            avoid: p.avoid.clone(),
            only: p.only.clone(),
            ..Request::of(&self.template(ctx, r, p))
        })
    }

    fn template(&self, ctx: &Ctx, r: &CreateRequest, p: &Prepared) -> Server {
        let mut s = Server {
            id: String::new(),
            project_id: ctx.project_id().to_owned(),
            user_id: ctx.user_id.clone(),
            booted_by: ctx.into(),
            name: r.name.clone(),
            description: r.description.clone(),
            hostname: String::new(),
            host_id: None,
            old_host_id: None,
            shared_disks: None,
            flavor: p.flavor.clone(),
            old_flavor: None,
            grown_gib: 0,
            image: p.image.clone().into(),
            key_name: r.key_name.clone(),
            keys: p.keys.clone(),
            user_data: r.user_data.clone(),
            metadata: r.metadata.clone(),
            tags: r.tags.clone(),
            config_drive: r.config_drive,
            availability_zone: self.config.availability_zone.clone(),
            pinned_availability_zone: r.zone.clone(),
            scheduler_hints: r.hints.clone(),
            server_group: p.group.as_ref().map(|g| g.id.clone()),
            access_ip_v4: r.access_ip_v4,
            access_ip_v6: r.access_ip_v6,
            auto_disk_config: r.auto_disk_config,
            vm_state: VmState::Building,
            task_state: Some(Task::Spawning),
            power_state: power::NOSTATE,
            wanted: Power::Running,
            progress: 0,
            snapshot: None,
            fault: None,
            launched_at: None,
            locked: false,
            locked_by: None,
            locked_reason: None,
            ec2_number: 0,
            reservation_id: format!("r-{}", id::hex().get(..8).unwrap_or_default()),
            launch_index: 0,
            security_groups: r.security_groups.clone(),
            soft_reboots: 0,
            hard_reboots: 0,
            rebuilds: 0,
            password: None,
            password_clears: 0,
            desired_generation: 0,
            action: String::new(),
            action_request: String::new(),
            trusted_image_certificates: r.trusted_image_certificates.clone(),
        };
        s.note("create", &ctx.request_id);
        s
    }

    /// One server of several gets a number after its name.
    fn numbered(s: &mut Server, r: &CreateRequest, i: usize, count: usize) {
        s.id = id::uuid();
        s.launch_index = i as u64;
        if count > 1 {
            s.name = format!("{}-{}", r.name, i + 1);
        }
        s.hostname = match &r.hostname {
            Some(h) if count > 1 => format!("{h}-{}", i + 1),
            Some(h) => h.clone(),
            None => hostname_of(&s.name, &s.id),
        };
    }

    /// The transaction.
    async fn create_placed(
        self: &Arc<Self>,
        ctx: &Ctx,
        r: &CreateRequest,
        p: &Prepared,
        plan: Vec<Choice>,
    ) -> Result<Vec<Stored<Server>>> {
        let template = self.template(ctx, r, p);
        let (app, c, r, image, group) = (self.clone(), ctx.clone(), r.clone(), r.image.clone(), p.group.clone());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let grant = allow_create(&c, acts::Create, &Target::own(&c))?;
                // It may have been deleted since it was looked at.
                boot_image(&app, tx, &c, &image).await?;
                let n = plan.len() as i64;
                let flavor = &template.flavor;
                let owner = (c.project_id(), c.user_id.as_str());
                app.quota_change(tx, owner, n, n * flavor.vcpus, n * flavor.ram).await?;
                app.check_metadata(tx, c.project_id(), &r.metadata).await?;
                let nics = app.network.resolve_nics(tx, &c, r.nics.as_deref(), r.auto).await?;
                if let Some(g) = &group {
                    let wish = app.group_wish(tx, g, None).await?;
                    app.check_group_room(tx, g, &wish, plan.len()).await?;
                }
                let zones = Zones::read(tx).await?;
                let mut out = Vec::with_capacity(plan.len());
                for (i, choice) in plan.iter().enumerate() {
                    let host = &choice.host;
                    let mut s = template.clone();
                    Self::numbered(&mut s, &r, i, plan.len());
                    let still = app.group_allows(tx, &s, host).await?;
                    if !still
                        || !app
                            .placement
                            .allocate(tx, &s.id, &s.project_id, &s.user_id, host, &s.amounts())
                            .await?
                    {
                        return Err(Error::conflict("The place was taken by another request.").with_code(AGAIN));
                    }
                    s.host_id = Some(host.clone());
                    s.shared_disks = app.shared_disks(tx, host).await?;
                    zones
                        .of(host, &app.config.availability_zone)
                        .clone_into(&mut s.availability_zone);
                    s.ec2_number = tx.next_number("compute.ec2").await?;
                    let ports = app
                        .network
                        .create_server_ports(
                            tx,
                            &c,
                            &s.id,
                            &s.hostname,
                            &s.project_id,
                            host,
                            &s.availability_zone,
                            &nics,
                            &s.security_groups,
                        )
                        .await?;
                    let mut desired = guest::desired(&s, &ports, &c.request_id)?;
                    desired.metadata.admin_pass.clone_from(&r.admin_pass);
                    s.desired_generation = app.fleet.put(tx, host, &Object::Guest(Box::new(desired))).await?;
                    let stored = tx
                        .insert(&grant, &s)
                        .await?
                        .ok_or_else(|| Error::internal("a new id is taken"))?;
                    let state = json!({"v": 1, "scheduled": choice.message()});
                    app.jobs.start(tx, "server.create", ("server", &s.id), state).await?;
                    out.push(stored);
                }
                Ok(out)
            })
            .await
    }

    /// No host fits: the servers exist, in ERROR, and say why.
    async fn create_refused(
        self: &Arc<Self>,
        ctx: &Ctx,
        r: &CreateRequest,
        p: &Prepared,
        request: &Request,
        refusal: &Refusal,
    ) -> Result<Vec<Stored<Server>>> {
        let mut template = self.template(ctx, r, p);
        template.fail(Fault {
            code: 500,
            message: refusal.message(request),
            details: refusal.details(),
            created: clock::now(),
        });
        let (app, c, r, count) = (self.clone(), ctx.clone(), r.clone(), request.count);
        self.db
            .write(&ctx.actor(), async move |tx| {
                let grant = allow_create(&c, acts::Create, &Target::own(&c))?;
                // Everything else that is wrong with the request still refuses it as a whole.
                app.network.resolve_nics(tx, &c, r.nics.as_deref(), r.auto).await?;
                let n = count as i64;
                let flavor = &template.flavor;
                let owner = (c.project_id(), c.user_id.as_str());
                app.quota_change(tx, owner, n, n * flavor.vcpus, n * flavor.ram).await?;
                app.check_metadata(tx, c.project_id(), &r.metadata).await?;
                let mut out = Vec::with_capacity(count);
                for i in 0..count {
                    let mut s = template.clone();
                    Self::numbered(&mut s, &r, i, count);
                    s.ec2_number = tx.next_number("compute.ec2").await?;
                    out.extend(tx.insert(&grant, &s).await?);
                }
                Ok(out)
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostnames() {
        for (name, host) in [
            ("web", "web"),
            ("Web 1", "web-1"),
            ("a_b.c", "a-b-c"),
            ("-x-", "x"),
            ("한글", "server-7"),
        ] {
            assert_eq!(hostname_of(name, "7"), host);
        }
        assert_eq!(hostname_of(&"a".repeat(80), "7").len(), 63);
    }
}
