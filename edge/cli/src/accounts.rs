//! `haneul account ...`: accounts that the operator makes.

use crate::admin::{ask, get, list, rows, text};
use crate::args::{AccountCommand, NewAccount};
use crate::{Result, failed, ui};
use haneul_core::config::Config;
use serde_json::{Map, Value, json};

/// `haneul account create|list`
pub fn account(config: &Config, command: &AccountCommand) -> Result<()> {
    match command {
        AccountCommand::Create(new) => create(config, new),
        AccountCommand::List { json: as_json } => {
            let answer = get(config, "/admin/v1/accounts")?;
            if *as_json {
                ui::json(&answer);
                return Ok(());
            }
            let keys = ["name", "kind", "origin", "project_id", "domain_id", "id"];
            ui::table(
                &["NAME", "KIND", "MADE BY", "PROJECT", "DOMAIN", "ID"],
                &rows(list(&answer, "accounts"), &keys),
            );
            Ok(())
        }
    }
}

fn create(config: &Config, new: &NewAccount) -> Result<()> {
    let names = match (new.organization, new.users.as_slice()) {
        (true, []) => {
            return Err(failed(
                "an organisation has at least one user, who manages it: add --user NAME",
            ));
        }
        (true, users) => users.to_vec(),
        (false, _) => vec![new.name.clone()],
    };
    let password = match new.password_stdin {
        true => Some(first_line()?),
        false => None,
    };
    let mut users: Vec<Map<String, Value>> = names
        .iter()
        .map(|n| [("name".to_owned(), json!(n))].into_iter().collect())
        .collect();
    if let Some(owner) = users.first_mut() {
        for (key, value) in [("email", &new.email), ("password", &password)] {
            if let Some(value) = value {
                owner.insert(key.into(), value.as_str().into());
            }
        }
    }
    let kind = if new.organization { "organization" } else { "person" };
    let body = json!({"account": {"kind": kind, "name": new.name, "users": users}});
    let made = ask(config)?.post("/admin/v1/accounts", &body)?;
    if new.json {
        ui::json(&made);
        return Ok(());
    }
    let account = made.get("account").cloned().unwrap_or_default();
    let domain = if new.organization { new.name.as_str() } else { "Default" };
    ui::line(format_args!("Account {} ({kind}) is made.", new.name));
    for (name, value) in [
        ("auth URL", format!("{}/identity/v3", config.public_url())),
        ("domain", domain.to_owned()),
        ("project", format!("{} ({})", new.name, text(&account, "project_id"))),
    ] {
        ui::line(format_args!("  {name}: {value}"));
    }
    for told in list(&made, "passwords") {
        ui::line(format_args!(
            "  user {}, password {}",
            text(told, "name"),
            text(told, "password")
        ));
    }
    if !list(&made, "passwords").is_empty() {
        ui::line("Passwords are shown this once and kept nowhere.");
    }
    Ok(())
}

fn first_line() -> Result<String> {
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|e| failed(format!("cannot read the password from the standard input: {e}")))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
