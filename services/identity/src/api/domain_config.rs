//! /v3/domains/{domain_id}/config (API reference: Identity API v3, "Domain configuration"). It is kept and has no
//! effect, as in a Keystone without `domain_specific_drivers_enabled`: all domains' users are in this cloud's database.
//! What is sensitive is sealed and never shown.

use crate::model::{Domain, DomainConfig, missing};
use crate::policy::{CreateDomainConfig, DeleteDomainConfig, GetDomainConfig, UpdateDomainConfig};
use crate::store::{blob_of, drop_blob, set_blob};
use crate::{DEFAULT_DOMAIN, Identity};
use haneul_auth::{Ctx, Target, allow_create, fetch};
use haneul_core::{Error, Result, clock};
use haneul_http::{Reply, Req};
use haneul_store::Tx;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Options with their defaults (keystone/resource/core.py, `whitelisted_options`; keystone/conf).
const IDENTITY: &[(&str, &str)] = &[("driver", "\"sql\""), ("list_limit", "null")];
const LDAP: &[(&str, &str)] = &[
    ("url", "\"ldap://localhost\""),
    ("user", "null"),
    ("suffix", "\"cn=example,cn=com\""),
    ("query_scope", "\"one\""),
    ("page_size", "0"),
    ("alias_dereferencing", "\"default\""),
    ("debug_level", "null"),
    ("chase_referrals", "null"),
    ("user_tree_dn", "null"),
    ("user_filter", "null"),
    ("user_objectclass", "\"inetOrgPerson\""),
    ("user_id_attribute", "\"cn\""),
    ("user_name_attribute", "\"sn\""),
    ("user_mail_attribute", "\"mail\""),
    ("user_description_attribute", "\"description\""),
    ("user_pass_attribute", "\"userPassword\""),
    ("user_enabled_attribute", "\"enabled\""),
    ("user_enabled_invert", "false"),
    ("user_enabled_mask", "0"),
    ("user_enabled_default", "\"True\""),
    ("user_attribute_ignore", "[\"default_project_id\"]"),
    ("user_default_project_id_attribute", "null"),
    ("user_enabled_emulation", "false"),
    ("user_enabled_emulation_dn", "null"),
    ("user_enabled_emulation_use_group_config", "false"),
    ("user_additional_attribute_mapping", "[]"),
    ("group_tree_dn", "null"),
    ("group_filter", "null"),
    ("group_objectclass", "\"groupOfNames\""),
    ("group_id_attribute", "\"cn\""),
    ("group_name_attribute", "\"ou\""),
    ("group_members_are_ids", "false"),
    ("group_member_attribute", "\"member\""),
    ("group_desc_attribute", "\"description\""),
    ("group_attribute_ignore", "[]"),
    ("group_additional_attribute_mapping", "[]"),
    ("tls_cacertfile", "null"),
    ("tls_cacertdir", "null"),
    ("use_tls", "false"),
    ("tls_req_cert", "\"demand\""),
    ("use_pool", "true"),
    ("pool_size", "10"),
    ("pool_retry_max", "3"),
    ("pool_retry_delay", "0.1"),
    ("pool_connection_timeout", "-1"),
    ("pool_connection_lifetime", "600"),
    ("use_auth_pool", "true"),
    ("auth_pool_size", "100"),
    ("auth_pool_connection_lifetime", "60"),
];
/// The group that is read from the cloud's own settings.
const COMPLIANCE: &str = "security_compliance";
const SENSITIVE: (&str, &str) = ("ldap", "password");

fn invalid(why: impl std::fmt::Display) -> Error {
    Error::forbidden(format!("Invalid domain specific configuration: {why}."))
}

fn options(group: &str) -> Result<&'static [(&'static str, &'static str)]> {
    match group {
        "identity" => Ok(IDENTITY),
        "ldap" => Ok(LDAP),
        _ => Err(invalid(format_args!(
            "Group {group} is not supported for domain specific configurations: write identity or ldap"
        ))),
    }
}

fn check_option(group: &str, option: &str) -> Result<()> {
    if (group, option) != SENSITIVE && !options(group)?.iter().any(|(name, _)| *name == option) {
        return Err(invalid(format_args!(
            "Option {option} in group {group} is not supported for domain specific configurations"
        )));
    }
    Ok(())
}

/// Refuses groups and options that there are not.
fn check(config: &Map<String, Value>) -> Result<()> {
    if config.is_empty() {
        return Err(invalid("No options specified"));
    }
    for (group, inside) in config {
        match inside.as_object() {
            Some(map) if !map.is_empty() => {
                for option in map.keys() {
                    check_option(group, option)?;
                }
            }
            _ => {
                return Err(invalid(format_args!(
                    "The value of group {group} specified in the config should be a dictionary of options"
                )));
            }
        }
    }
    Ok(())
}

async fn body(req: &mut Req) -> Result<Map<String, Value>> {
    match req.json().await?.get_mut("config").map(Value::take) {
        Some(Value::Object(map)) => Ok(map),
        _ => Err(Error::field(
            "config",
            "Invalid input for field 'config': the request body must be an object with the key 'config', an object.",
        )),
    }
}

/// Takes the sensitive option out, if it is there.
fn split(config: &mut Map<String, Value>) -> Option<Value> {
    let group = config.get_mut(SENSITIVE.0)?.as_object_mut()?;
    let value = group.remove(SENSITIVE.1)?;
    if group.is_empty() {
        config.remove(SENSITIVE.0);
    }
    Some(value)
}

fn reply(config: &Map<String, Value>) -> Reply {
    Reply::ok(&json!({ "config": config }))
}

/// Keystone's `DomainConfigNotFound`.
fn none(what: &str, domain: &str) -> Error {
    Error::not_found(format!(
        "Could not find {what} in domain configuration for domain {domain}."
    ))
}

/// The group or option that a path names, and neither when it names none.
fn named(req: &Req) -> Result<(Option<String>, Option<String>)> {
    let text = |name: &str| Some(req.param(name).to_owned()).filter(|s| !s.is_empty());
    let (group, option) = (text("group"), text("option"));
    if let Some(group) = &group {
        options(group)?;
        if let Some(option) = &option {
            check_option(group, option)?;
        }
    }
    Ok((group, option))
}

async fn check_domain(tx: &mut Tx, domain: &str) -> Result<()> {
    match tx.find::<Domain>(domain).await? {
        Some(_) => Ok(()),
        None => Err(missing("domain", domain)),
    }
}

/// The part of a configuration that a path names.
fn part(config: &Map<String, Value>, group: Option<&str>, option: Option<&str>, domain: &str) -> Result<Value> {
    let Some(group) = group else {
        return Ok(json!(config));
    };
    let inside = config
        .get(group)
        .ok_or_else(|| none(&format!("group {group}"), domain))?;
    let Some(option) = option else {
        return Ok(json!({ group: inside }));
    };
    match inside.get(option) {
        Some(value) => Ok(json!({ option: value })),
        None => Err(none(&format!("option {option} in group {group}"), domain)),
    }
}

/// GET /v3/domains/{domain_id}/config, .../{group}, .../{group}/{option}
pub(crate) async fn show(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, domain) = (req.ctx()?.clone(), req.param("domain_id").to_owned());
    if req.param("group") == COMPLIANCE {
        return compliance(&app, &ctx, &domain, req.param("option"));
    }
    ctx.enforce("identity:get_domain_config", &Target::default())?;
    let (group, option) = named(&req)?;
    drop(req);
    let mut tx = app.db.read().await?;
    check_domain(&mut tx, &domain).await?;
    if tx.find::<DomainConfig>(&domain).await?.is_none() {
        return Err(none(group.as_deref().unwrap_or("any options"), &domain));
    }
    let found = fetch(&mut tx, &ctx, GetDomainConfig, &domain).await?;
    let config = part(&found.config, group.as_deref(), option.as_deref(), &domain)?;
    Ok(Reply::ok(&json!({ "config": config })))
}

/// What a password must be, for everybody who is to choose one. It is the cloud's, and not kept with the domain.
fn compliance(app: &Identity, ctx: &Ctx, domain: &str, option: &str) -> Result<Reply> {
    ctx.enforce("identity:get_security_compliance_domain_config", &Target::default())?;
    if domain != DEFAULT_DOMAIN {
        return Err(invalid(
            "Reading security compliance information for any domain other than the default domain is not allowed or supported",
        ));
    }
    let config = &app.compliance.config;
    let all = json!({
        "password_regex": config.password_regex,
        "password_regex_description": config.password_regex_description,
    });
    let config = match (option, all.get(option)) {
        ("", _) => json!({ COMPLIANCE: all }),
        (_, Some(value)) => json!({ option: value }),
        _ => {
            return Err(invalid(
                "Reading security compliance values other than password_regex and password_regex_description is not allowed",
            ));
        }
    };
    Ok(Reply::ok(&json!({ "config": config })))
}

/// PUT /v3/domains/{domain_id}/config: the whole of it, anew.
pub(crate) async fn replace(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, domain) = (req.ctx()?.clone(), req.param("domain_id").to_owned());
    ctx.enforce("identity:create_domain_config", &Target::default())?;
    let mut config = body(&mut req).await?;
    check(&config)?;
    let secret = split(&mut config);
    let sealed = secret.map(|v| app.seal(&v.to_string())).transpose()?;
    let asker = ctx.clone();
    let (now, new) = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&asker, CreateDomainConfig, &Target::default())?;
            check_domain(tx, &domain).await?;
            match &sealed {
                Some(s) => set_blob(tx, &DomainConfig::blob_key(&domain), s).await?,
                None => drop_blob(tx, &DomainConfig::blob_key(&domain)).await?,
            }
            let value = DomainConfig {
                id: domain.clone(),
                config: config.clone(),
                sealed_at: sealed.as_ref().map(|_| clock::now()),
            };
            match tx.find::<DomainConfig>(&domain).await? {
                Some(_) => {
                    let old = fetch(tx, &asker, UpdateDomainConfig, &domain).await?;
                    Ok((tx.update(&old, &value).await?, false))
                }
                None => {
                    let made = tx.insert(&grant, &value).await?;
                    Ok((
                        made.ok_or_else(|| Error::internal("a configuration came between"))?,
                        true,
                    ))
                }
            }
        })
        .await?;
    Ok(match new {
        true => Reply::created(&json!({"config": now.config})),
        false => reply(&now.config),
    })
}

/// PATCH /v3/domains/{domain_id}/config, .../{group}, .../{group}/{option}
pub(crate) async fn update(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, domain) = (req.ctx()?.clone(), req.param("domain_id").to_owned());
    ctx.enforce("identity:update_domain_config", &Target::default())?;
    let (group, option) = named(&req)?;
    let mut news = body(&mut req).await?;
    // Within a path that names an option, the option stands alone.
    if let (Some(group), Some(option)) = (&group, &option) {
        if news.len() != 1 || !news.contains_key(option) {
            return Err(invalid(format_args!(
                "Trying to update option {option} in group {group}, so that, and only that, option must be specified in the config"
            )));
        }
        news = [(group.clone(), Value::Object(news))].into_iter().collect();
    } else if let Some(group) = &group
        && (news.len() != 1 || !news.contains_key(group))
    {
        return Err(invalid(format_args!(
            "Trying to update group {group}, so that, and only that, group must be specified in the config"
        )));
    }
    check(&news)?;
    let secret = split(&mut news);
    let sealed = secret.map(|v| app.seal(&v.to_string())).transpose()?;
    let asker = ctx.clone();
    let now = app
        .db
        .write(&ctx.actor(), async move |tx| {
            check_domain(tx, &domain).await?;
            if tx.find::<DomainConfig>(&domain).await?.is_none() {
                return Err(none(group.as_deref().unwrap_or("any options"), &domain));
            }
            let found = fetch(tx, &asker, UpdateDomainConfig, &domain).await?;
            let mut value = found.edit();
            // The sensitive one cannot be seen, and so not be looked for.
            if (group.as_deref(), option.as_deref()) != (Some(SENSITIVE.0), Some(SENSITIVE.1)) {
                part(&value.config, group.as_deref(), option.as_deref(), &domain)?;
            }
            for (group, inside) in &news {
                let own = value.config.entry(group.clone()).or_insert_with(|| json!({}));
                if let (Some(own), Some(inside)) = (own.as_object_mut(), inside.as_object()) {
                    own.extend(inside.clone());
                }
            }
            if let Some(s) = &sealed {
                set_blob(tx, &DomainConfig::blob_key(&domain), s).await?;
                value.sealed_at = Some(clock::now());
            }
            tx.update(&found, &value).await
        })
        .await?;
    Ok(reply(&now.config))
}

/// DELETE /v3/domains/{domain_id}/config, .../{group}, .../{group}/{option}
pub(crate) async fn delete(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, domain) = (req.ctx()?.clone(), req.param("domain_id").to_owned());
    ctx.enforce("identity:delete_domain_config", &Target::default())?;
    let (group, option) = named(&req)?;
    let asker = ctx.clone();
    app.db
        .write(&ctx.actor(), async move |tx| {
            check_domain(tx, &domain).await?;
            if tx.find::<DomainConfig>(&domain).await?.is_none() {
                return Err(none(group.as_deref().unwrap_or("any options"), &domain));
            }
            let found = fetch(tx, &asker, DeleteDomainConfig, &domain).await?;
            let Some(group) = &group else {
                drop_blob(tx, &DomainConfig::blob_key(&domain)).await?;
                return tx.delete(&found).await;
            };
            let mut value = found.edit();
            let secret = group == SENSITIVE.0 && option.as_deref().is_none_or(|o| o == SENSITIVE.1);
            if secret && blob_of(tx, &DomainConfig::blob_key(&domain)).await.is_ok() {
                drop_blob(tx, &DomainConfig::blob_key(&domain)).await?;
                value.sealed_at = None;
            } else {
                part(&value.config, Some(group), option.as_deref(), &domain)?;
            }
            match &option {
                None => {
                    value.config.remove(group);
                }
                Some(option) => {
                    if let Some(inside) = value.config.get_mut(group).and_then(Value::as_object_mut) {
                        inside.remove(option);
                        if inside.is_empty() {
                            value.config.remove(group);
                        }
                    }
                }
            }
            tx.update(&found, &value).await.map(|_| ())
        })
        .await?;
    Ok(Reply::no_content())
}

fn defaults(group: &str) -> Result<Map<String, Value>> {
    options(group)?
        .iter()
        .map(|(name, text)| Ok(((*name).to_owned(), serde_json::from_str(text)?)))
        .collect()
}

/// GET /v3/domains/config/default, /v3/domains/config/{group}/default, /v3/domains/config/{group}/{option}/default
pub(crate) async fn default(_app: Arc<Identity>, req: Req) -> Result<Reply> {
    req.ctx()?
        .enforce("identity:get_domain_config_default", &Target::default())?;
    let (group, option) = named(&req)?;
    let mut all = Map::new();
    for name in ["identity", "ldap"] {
        all.insert(name.to_owned(), Value::Object(defaults(name)?));
    }
    let config = part(&all, group.as_deref(), option.as_deref(), "default")?;
    Ok(Reply::ok(&json!({ "config": config })))
}
