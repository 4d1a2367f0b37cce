//! POST /servers/ID/action: one key names the action (Nova API reference, "Servers - run an action").

use super::input::{self, BASE64, BOOL, CERTS, DESCRIPTION, DISK_CONFIG, FQDN, HOSTNAME, IP4, IP6, META};
use super::servers::{look, password, wrapped};
use super::view::ServerView;
use super::{addresses, interfaces};
use crate::Compute;
use crate::logic::actions::check_lock;
use crate::logic::actions::create_image::ImageRequest;
use crate::logic::actions::rebuild::RebuildRequest;
use crate::logic::evacuate::Evacuation;
use crate::logic::moving::LiveMigration;
use crate::logic::quota::metadata_within;
use crate::model::{Server, VmState};
use crate::policy::acts;
use haneul_agent_api::Ask;
use haneul_auth::{Action, Ctx, fetch};
use haneul_core::{Error, Result};
use haneul_http::{Body, FieldKind as K, Reply, Req, Ver, f, fields};
use haneul_store::Stored;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The only key of an action's body, and what is under it.
pub(crate) fn one_key(body: &Value) -> Result<(&str, &Value)> {
    let mut keys = body.as_object().into_iter().flatten();
    match (keys.next(), keys.next()) {
        (Some((k, v)), None) => Ok((k, v)),
        _ => Err(Error::bad_request(
            "Malformed request body: it must be an object with one key, the name of the action.",
        )),
    }
}

/// No such action.
pub(crate) fn unknown(name: &str) -> Error {
    Error::field(name, format!("There is no such action: {name}"))
}

static REBOOT: Body = Body {
    open: false,
    fields: &[f("type", K::OneOf(&["HARD", "Hard", "hard", "SOFT", "Soft", "soft"])).req()],
};
const FLAVOR_REF: K = K::Any(&[K::Str { min: 1, max: 255 }, K::Int { min: 0, max: i64::MAX }]);
static RESIZE: Body = Body {
    open: false,
    fields: &[f("flavorRef", FLAVOR_REF).req(), f("OS-DCF:diskConfig", DISK_CONFIG)],
};
static FILE: Body = Body {
    open: false,
    fields: &[f("path", K::Str { min: 0, max: 4096 }), f("contents", BASE64)],
};
static REBUILD: Body = Body {
    open: false,
    fields: &[
        f("name", K::Name),
        f("imageRef", K::Uuid).req(),
        f("adminPass", K::Str { min: 0, max: 65535 }),
        f("metadata", META),
        f("preserve_ephemeral", BOOL),
        f("OS-DCF:diskConfig", DISK_CONFIG),
        f("accessIPv4", IP4),
        f("accessIPv6", IP6),
        f(
            "personality",
            K::List {
                of: &K::Obj(&FILE),
                max: 1000,
            },
        )
        .until(2, 56),
        f("description", DESCRIPTION).since(2, 19),
        f("key_name", K::Str { min: 1, max: 255 }).null().since(2, 54),
        f("user_data", BASE64).null().since(2, 57),
        f("trusted_image_certificates", CERTS).null().since(2, 63),
        f("hostname", HOSTNAME).since(2, 90).until(2, 93),
        f("hostname", FQDN).since(2, 94),
    ],
};
static CONSOLE: Body = Body {
    open: false,
    fields: &[f("length", K::Int { min: -1, max: i64::MAX }).null()],
};
static RESET: Body = Body {
    open: false,
    fields: &[f("state", K::OneOf(&["active", "error"])).req()],
};
static LOCK: Body = Body {
    open: false,
    fields: &[f("locked_reason", K::Str { min: 1, max: 255 })],
};
static GROUP: Body = Body {
    open: false,
    fields: &[f("name", K::Str { min: 1, max: 255 }).req()],
};
static IMAGE: Body = Body {
    open: false,
    fields: &[f("name", K::Name).req(), f("metadata", META)],
};
const ROTATION: K = K::Int { min: 0, max: i64::MAX };
static BACKUP: Body = Body {
    open: false,
    fields: &[
        f("name", K::Name).req(),
        f("backup_type", K::Str { min: 0, max: 255 }).req(),
        f("rotation", ROTATION).req(),
        f("metadata", META),
    ],
};
static CONSOLE_TYPE: Body = Body {
    open: false,
    fields: &[f("type", K::Str { min: 1, max: 255 }).req()],
};

const HOST: K = K::Str { min: 1, max: 255 };
const AUTO: K = K::Any(&[BOOL, K::OneOf(&["auto"])]);
static LIVE: Body = Body {
    open: false,
    fields: &[
        f("host", HOST).null().req(),
        f("block_migration", BOOL).req().until(2, 24),
        f("block_migration", AUTO).req().since(2, 25),
        f("disk_over_commit", BOOL).req().until(2, 24),
        f("force", BOOL).since(2, 30).until(2, 67),
    ],
};

static MIGRATE: Body = Body {
    open: false,
    fields: &[f("host", HOST).null()],
};
static EVACUATE: Body = Body {
    open: false,
    fields: &[
        f("host", HOST),
        f("onSharedStorage", BOOL).req().until(2, 13),
        f("adminPass", K::Str { min: 0, max: 65535 }),
        f("force", BOOL).since(2, 29).until(2, 67),
    ],
};

/// Actions that are switched off: their rule is `!`. Name, rule, versions in which it exists.
const OFF: &[(&str, &str, Ver, Ver)] = &[
    ("trigger_crash_dump", acts::CrashDump::RULE, Ver(2, 17), Ver(2, 999)),
    ("changePassword", acts::AdminPassword::RULE, Ver(2, 1), Ver(2, 999)),
    ("shelve", acts::Shelve::RULE, Ver(2, 1), Ver(2, 999)),
    ("shelveOffload", acts::ShelveOffload::RULE, Ver(2, 1), Ver(2, 999)),
    ("unshelve", acts::Unshelve::RULE, Ver(2, 1), Ver(2, 999)),
    ("rescue", acts::Rescue::RULE, Ver(2, 1), Ver(2, 999)),
    ("unrescue", acts::Unrescue::RULE, Ver(2, 1), Ver(2, 999)),
];
/// Console types by their old actions.
const CONSOLES: &[&str] = &[
    "os-getVNCConsole",
    "os-getSPICEConsole",
    "os-getRDPConsole",
    "os-getSerialConsole",
];

/// `POST /servers/{id}/action`
pub(crate) async fn action(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = req.param("id").to_owned();
    let v = req.version;
    let body = req.json().await?;
    let (name, arg) = one_key(&body)?;
    let accepted = Ok(Reply::empty(StatusCode::ACCEPTED));
    let check = |table: &Body| fields::check(table, arg, v, name);
    match name {
        "os-start" => app.start_server(&ctx, &id).await?,
        "os-stop" => app.stop_server(&ctx, &id).await?,
        "pause" => app.pause_server(&ctx, &id).await?,
        "unpause" => app.unpause_server(&ctx, &id).await?,
        "suspend" => app.suspend_server(&ctx, &id).await?,
        "resume" => app.resume_server(&ctx, &id).await?,
        "reboot" => {
            check(&REBOOT)?;
            let hard = arg
                .get("type")
                .and_then(Value::as_str)
                .is_some_and(|t| t.eq_ignore_ascii_case("hard"));
            app.reboot_server(&ctx, &id, hard).await?;
        }
        "resize" => {
            check(&RESIZE)?;
            let flavor = input::loose_id(arg, "flavorRef").unwrap_or_default();
            app.resize_server(&ctx, &id, &flavor, auto_disk_config(arg)).await?;
        }
        "confirmResize" => {
            app.confirm_resize(&ctx, &id).await?;
            return Ok(Reply::no_content());
        }
        "revertResize" => app.revert_resize(&ctx, &id).await?,
        "rebuild" => {
            check(&REBUILD)?;
            return rebuild(&app, &req, &ctx, &id, arg).await;
        }
        "os-getConsoleOutput" => {
            check(&CONSOLE)?;
            return console_output(&app, &ctx, &id, arg).await;
        }
        "os-resetState" => {
            check(&RESET)?;
            let active = arg.get("state").and_then(Value::as_str) == Some("active");
            app.reset_server_state(&ctx, &id, active).await?;
        }
        "os-migrateLive" => {
            check(&LIVE)?;
            let r = LiveMigration {
                host: input::text(arg, "host"),
                block_migration: input::boolean(arg, "block_migration"),
            };
            app.live_migrate(&ctx, &id, r).await?;
        }
        "migrate" => {
            let named = v >= Ver(2, 56) && !arg.is_null();
            if named {
                check(&MIGRATE)?;
            }
            let host = if named { input::text(arg, "host") } else { None };
            app.migrate_server(&ctx, &id, host).await?;
        }
        "evacuate" => {
            check(&EVACUATE)?;
            let r = Evacuation {
                host: input::text(arg, "host"),
                shared: input::boolean(arg, "onSharedStorage"),
                stop: v >= Ver(2, 95),
            };
            app.evacuate_server(&ctx, &id, r).await?;
            // Nothing sets a password in a guest; those who ask for one by its old name get one.
            let answer = json!({"adminPass": input::text(arg, "adminPass").unwrap_or_else(password)});
            return Ok(match v {
                v if v < Ver(2, 14) => Reply::ok(&answer),
                _ => Reply::empty(StatusCode::OK),
            });
        }
        "injectNetworkInfo" => app.inject_network_info(&ctx, &id).await?,
        "lock" => {
            if v >= Ver(2, 73) && !arg.is_null() {
                check(&LOCK)?;
            }
            let reason = if v >= Ver(2, 73) {
                input::text(arg, "locked_reason")
            } else {
                None
            };
            app.lock_server(&ctx, &id, reason).await?;
        }
        "unlock" => app.unlock_server(&ctx, &id).await?,
        // Nothing is deleted softly here, so there is nothing to restore; forceDelete is a delete.
        "forceDelete" => {
            app.delete_server(&ctx, acts::ForceDelete, &id).await?;
        }
        "restore" => {
            let s = find(&app, &ctx, acts::Restore, &id).await?;
            return Err(Error::conflict(format!(
                "Cannot 'restore' instance {id} while it is in vm_state {}",
                s.vm_state.as_str()
            )));
        }
        "addFixedIp" if v <= Ver(2, 43) => interfaces::add_fixed_ip(&app, &ctx, &id, arg, v).await?,
        "removeFixedIp" if v <= Ver(2, 43) => interfaces::remove_fixed_ip(&app, &ctx, &id, arg, v).await?,
        "addFloatingIp" if v <= Ver(2, 43) => addresses::add(&app, &ctx, &id, arg, v).await?,
        "removeFloatingIp" if v <= Ver(2, 43) => addresses::remove(&app, &ctx, &id, arg, v).await?,
        "addSecurityGroup" => {
            check(&GROUP)?;
            security_group(&app, &ctx, acts::AddSecurityGroup, &id, arg, true).await?;
        }
        "removeSecurityGroup" => {
            check(&GROUP)?;
            security_group(&app, &ctx, acts::RemoveSecurityGroup, &id, arg, false).await?;
        }
        "createImage" => {
            check(&IMAGE)?;
            return create_image(&app, &req, acts::CreateImage, arg, None).await;
        }
        "createBackup" => {
            check(&BACKUP)?;
            let kind = input::text(arg, "backup_type").unwrap_or_default();
            let rotation = input::int(arg, "rotation").and_then(|n| usize::try_from(n).ok());
            return create_image(&app, &req, acts::Backup, arg, Some((kind, rotation.unwrap_or(0)))).await;
        }
        // The actions of 2.1 to 2.5; later /remote-consoles.
        n if CONSOLES.contains(&n) && v < Ver(2, 6) => {
            check(&CONSOLE_TYPE)?;
            let kind = input::text(arg, "type").unwrap_or_default();
            if n != "os-getVNCConsole" || kind != "novnc" || !app.config.vnc {
                find(&app, &ctx, acts::RemoteConsoles, &id).await?;
                return Err(no_console(&kind));
            }
            let url = app.console_url(&ctx, &id).await?;
            return Ok(Reply::ok(&json!({"console": {"type": kind, "url": url}})));
        }
        other => match OFF
            .iter()
            .find(|(n, _, since, until)| *n == other && v >= *since && v <= *until)
        {
            Some((_, rule, _, _)) => {
                // Seen first, so that others' servers stay hidden; then refused by policy.
                let mut tx = app.db.read().await?;
                let s = fetch(&mut tx, &ctx, acts::Show, &id).await?;
                ctx.enforce(rule, &haneul_auth::Secured::target(&s.value))?;
                return Err(Error::new(
                    haneul_core::Kind::NotImplemented,
                    format!("'{other}' is not served by this cloud."),
                ));
            }
            None => return Err(unknown(other)),
        },
    }
    accepted
}

/// The server, when the caller may do this to it.
pub(crate) async fn find<A: Action<On = Server>>(
    app: &Compute,
    ctx: &Ctx,
    action: A,
    id: &str,
) -> Result<Stored<Server>> {
    let mut tx = app.db.read().await?;
    let found = fetch(&mut tx, ctx, action, id).await?;
    Ok((*found).clone())
}

/// A type of console that is not served, or all of them, when `compute.vnc` is off.
pub(crate) fn no_console(kind: &str) -> Error {
    Error::field(
        "type",
        format!(
            "Unavailable console type {kind}. There is novnc, where consoles are switched on, and the console output (os-getConsoleOutput)."
        ),
    )
}

async fn security_group<A>(app: &Arc<Compute>, ctx: &Ctx, action: A, id: &str, arg: &Value, add: bool) -> Result<()>
where
    A: Action<On = Server> + Copy,
{
    let group = input::text(arg, "name").unwrap_or_default();
    let (a, c, id) = (app.clone(), ctx.clone(), id.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let s = fetch(tx, &c, action, &id).await?;
            check_lock(&c, &s, action)?;
            a.network.server_group(tx, &s.project_id, &s.id, &group, add).await
        })
        .await
}

async fn console_output(app: &Compute, ctx: &Ctx, id: &str, arg: &Value) -> Result<Reply> {
    let s = find(app, ctx, acts::ConsoleOutput, id).await?;
    let lines = match input::int(arg, "length") {
        None | Some(-1) => None,
        Some(n) => Some(u32::try_from(n).unwrap_or(u32::MAX)),
    };
    let Some(host) = s
        .host_id
        .as_deref()
        .filter(|_| s.launched_at.is_some() || s.vm_state == VmState::Building)
    else {
        return Err(Error::conflict(format!("Instance {id} is not ready")));
    };
    let bytes = app
        .fleet
        .ask(
            host,
            Ask::ConsoleLog {
                guest: s.uuid()?,
                lines,
            },
            Duration::from_secs(20),
        )
        .await?;
    let output = String::from_utf8_lossy(&bytes);
    // nova/compute/manager.py, _tail_log: what follows the last line break counts as a line, empty as it is.
    let all: Vec<&str> = output.split('\n').collect();
    let from = lines.map_or(0, |n| all.len().saturating_sub(n as usize));
    let output = all.get(from..).unwrap_or_default().join("\n");
    Ok(Reply::ok(&json!({"output": output})))
}

fn auto_disk_config(arg: &Value) -> Option<bool> {
    arg.get("OS-DCF:diskConfig")
        .and_then(Value::as_str)
        .map(|d| d == "AUTO")
}

async fn create_image<A>(
    app: &Arc<Compute>,
    req: &Req,
    action: A,
    arg: &Value,
    backup: Option<(String, usize)>,
) -> Result<Reply>
where
    A: Action<On = Server> + Copy,
{
    let metadata = input::pairs(arg, "metadata").unwrap_or_default();
    // Until the image proxy's end Nova holds this against its own quota; for backups it always does.
    if req.version <= Ver(2, 38) || backup.is_some() {
        let project = req.ctx()?.project_id();
        let most = app.limit(&mut app.db.read().await?, project, "metadata_items").await?;
        metadata_within(metadata.len(), most).map_err(|e| e.with_field("metadata"))?;
    }
    let none_stays = backup.as_ref().is_some_and(|(_, rotation)| *rotation == 0);
    let r = ImageRequest {
        name: input::text(arg, "name").unwrap_or_default().trim().to_owned(),
        metadata,
        backup,
    };
    let image = app.create_image(req.ctx()?, action, req.param("id"), r).await?;
    if req.version >= Ver(2, 45) {
        return Ok(Reply::accepted(&json!({"image_id": image})));
    }
    let accepted = Reply::empty(StatusCode::ACCEPTED);
    if none_stays {
        return Ok(accepted);
    }
    Ok(accepted.header("location", format!("{}/image/v2/images/{image}", app.public_url)))
}

async fn rebuild(app: &Arc<Compute>, req: &Req, ctx: &Ctx, id: &str, arg: &Value) -> Result<Reply> {
    if arg
        .get("personality")
        .and_then(Value::as_array)
        .is_some_and(|a| !a.is_empty())
    {
        return Err(Error::field(
            "personality",
            "File injection is switched off. Use user_data and a config drive, or metadata, instead.",
        ));
    }
    let certs = arg
        .get("trusted_image_certificates")
        .map(|_| input::strings(arg, "trusted_image_certificates"));
    let r = RebuildRequest {
        image: input::text(arg, "imageRef").unwrap_or_default(),
        name: input::text(arg, "name"),
        hostname: input::text(arg, "hostname"),
        description: input::resettable(arg, "description"),
        metadata: input::pairs(arg, "metadata"),
        key_name: input::resettable(arg, "key_name"),
        user_data: input::resettable(arg, "user_data"),
        access_ip_v4: input::ip(arg, "accessIPv4"),
        access_ip_v6: input::ip(arg, "accessIPv6"),
        auto_disk_config: auto_disk_config(arg),
        trusted_image_certificates: certs,
    };
    let admin_pass = input::text(arg, "adminPass").unwrap_or_else(password);
    let s = app.rebuild_server(ctx, id, r).await?;
    let mut tx = app.db.read().await?;
    let look = look(app, &mut tx, req, std::slice::from_ref(&s), true).await?;
    let view = ServerView {
        s: &s,
        look: &look,
        admin_pass: Some(&admin_pass),
        short: req.version < Ver(2, 75),
    };
    Ok(Reply::accepted(&wrapped(view)).header("location", format!("{}/v2.1/servers/{id}", req.base)))
}
