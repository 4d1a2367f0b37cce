//! What passwords must be and who is locked out: the settings `security_compliance` and the options of users that exempt
//! from them (API reference: Identity API v3, "Users").

use crate::Identity;
use crate::model::User;
use crate::store::{drop_secret, old_passwords, retire_password, revoke, set_secret};
use fancy_regex::Regex;
use haneul_core::clock::SECOND;
use haneul_core::config::SecurityCompliance;
use haneul_core::{Error, Kind, Result, clock};
use haneul_store::{Actor, System, Tx};
use std::sync::Arc;

const DAY: i64 = 86_400 * SECOND;

/// Who has set a password.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Its user: by a change of it, or with an account of its own.
    User,
    /// Somebody else, who knows it.
    Other,
    /// The cloud, for its first administrator.
    Cloud,
}

/// See the module.
pub(crate) struct Compliance {
    pub config: SecurityCompliance,
    regex: Option<Regex>,
}

impl Compliance {
    pub(crate) fn new(config: SecurityCompliance) -> Result<Self> {
        let regex = config.password_regex.as_ref().map(|pattern| {
            Regex::new(&format!(r"\A(?:{pattern})")).map_err(|e| {
                let name = "security_compliance.password_regex";
                Error::field(name, format!("{name} = \"{pattern}\": {e}"))
            })
        });
        Ok(Self {
            regex: regex.transpose()?,
            config,
        })
    }

    /// Refuses a new password that does not match `password_regex`.
    pub(crate) fn check(&self, password: &str) -> Result<()> {
        let (Some(regex), Some(pattern)) = (&self.regex, &self.config.password_regex) else {
            return Ok(());
        };
        // An error is a search that was given up: no password that anybody remembers needs one.
        if regex.is_match(password).unwrap_or(false) {
            return Ok(());
        }
        let why = match &self.config.password_regex_description {
            Some(text) => text.trim_end_matches('.').to_owned(),
            None => format!("it must match {pattern}"),
        };
        Err(Error::field(
            "password",
            format!("The password does not match the requirements: {why}."),
        ))
    }

    /// Notes in a user that it has a new password. Its options are the new ones.
    pub(crate) fn note(&self, user: &mut User, by: By) {
        let now = clock::now();
        let days = self.config.password_expires_days;
        let first = self.config.change_password_upon_first_use && by == By::Other;
        user.password_set_at = Some(now);
        user.password_self_service = by == By::User;
        user.password_expires_at = if first && !user.option("ignore_change_password_upon_first_use") {
            Some(now)
        } else if days > 0 && !user.option("ignore_password_expiry") {
            // A whole second, as in Keystone.
            Some((now + days * DAY) / SECOND * SECOND)
        } else {
            None
        };
    }

    /// Puts the hash of a user's new password, or none, in the place of the present one, which is kept while it may not
    /// be chosen again.
    pub(crate) async fn set(&self, tx: &mut Tx, user: &str, hash: Option<&str>) -> Result<()> {
        retire_password(tx, user, (self.config.unique_last_password_count - 1).max(0)).await?;
        match hash {
            Some(hash) => set_secret(tx, user, hash).await,
            None => drop_secret(tx, user).await,
        }
    }

    /// Refuses to let a user change its password itself.
    pub(crate) fn may_change(&self, user: &User) -> Result<()> {
        let refused = |why: String| Err(Error::field("password", why));
        if user.option("lock_password") {
            return refused(
                "You cannot change your password at this time due to password policy disallowing password changes. Please contact your administrator to reset your password.".into(),
            );
        }
        let days = self.config.minimum_password_age;
        let left = user.password_set_at.unwrap_or(0) + days * DAY - clock::now();
        if user.password_self_service && left > 0 {
            return refused(format!(
                "You cannot change your password at this time due to the minimum password age. Once you change your password, it must be used for {days} day(s) before it can be changed. Please try again in {} day(s) or contact your administrator to reset your password.",
                (left + DAY - 1) / DAY
            ));
        }
        Ok(())
    }
}

/// Refuses a login by a password that has expired. Only who has shown the password is told.
pub(crate) fn not_expired(user: &User) -> Result<()> {
    let expired = user.password_expires_at.is_some_and(|t| t <= clock::now());
    if expired && !user.option("ignore_password_expiry") {
        let id = &user.id;
        return Err(Error::new(
            Kind::Unauthorized,
            format!(
                "The password is expired and needs to be changed for user: {id}. Choose another by POST /v3/users/{id}/password."
            ),
        ));
    }
    Ok(())
}

impl Identity {
    /// Refuses a new password that is among the last ones of a user who has shown the present one.
    pub(crate) async fn is_new(&self, user: &str, present: &str, new: &str) -> Result<()> {
        let count = self.compliance.config.unique_last_password_count;
        if count == 0 {
            return Ok(());
        }
        let mut used = new == present;
        if !used {
            let hashes = old_passwords(&mut self.db.read().await?, user, count - 1).await?;
            for hash in hashes {
                used = used || self.hasher.verify(new, Some(&hash)).await?;
            }
        }
        if used {
            return Err(Error::field(
                "password",
                format!(
                    "The new password cannot be identical to a previous password. The total number which includes the new password must be unique is {count}."
                ),
            ));
        }
        Ok(())
    }

    /// Notes that a user logs in today, when that is counted. Refuses who has not for too long.
    pub(crate) async fn note_login(&self, user: &str) -> Result<()> {
        let days = self.compliance.config.disable_user_account_days_inactive;
        if days == 0 {
            return Ok(());
        }
        let today = clock::now() / DAY;
        let mut tx = self.db.read().await?;
        let sql = "SELECT day FROM identity_last_login WHERE user_id = $1";
        let last = tx.row(sql, &[user.into()]).await?.map(|r| r.i64(0)).transpose()?;
        let user = tx.find::<User>(user).await?.ok_or_else(Error::unauthorized)?.value;
        drop(tx);
        if last == Some(today) {
            return Ok(());
        }
        if last.is_some_and(|day| day <= today - days) && !user.option("ignore_user_inactivity") {
            return Err(Error::unauthorized().with_private(format!("{} has not logged in for {days} days", user.id)));
        }
        self.db
            .write(&Actor::system("login"), async move |tx| {
                tx.exec(
                    "INSERT INTO identity_last_login(user_id, day) VALUES($1, $2)
                     ON CONFLICT(user_id) DO UPDATE SET day = excluded.day",
                    &[user.id.as_str().into(), today.into()],
                )
                .await?;
                Ok(())
            })
            .await
    }

    /// Disables the users who have not logged in for `disable_user_account_days_inactive`, and says how many. To be
    /// called at the start and every hour.
    pub async fn disable_inactive(self: &Arc<Self>) -> Result<usize> {
        let days = self.compliance.config.disable_user_account_days_inactive;
        let today = clock::now() / DAY;
        let this = self.clone();
        self.db
            .write(&Actor::system("inactive-users"), async move |tx| {
                if days == 0 {
                    // Whoever switches it on again begins to count.
                    tx.exec("DELETE FROM identity_last_login", &[]).await?;
                    return Ok(0);
                }
                tx.exec(
                    "INSERT INTO identity_last_login(user_id, day) SELECT id, $1 FROM identity_user
                       WHERE id NOT IN (SELECT user_id FROM identity_last_login)",
                    &[today.into()],
                )
                .await?;
                let sql = "SELECT u.id FROM identity_user u JOIN identity_last_login l ON l.user_id = u.id
                             WHERE u.enabled = 1 AND l.day <= $1";
                let mut disabled = 0;
                for row in tx.rows(sql, &[(today - days).into()]).await? {
                    let Some(user) = tx.find::<User>(&row.str(0)?).await? else {
                        continue;
                    };
                    if user.option("ignore_user_inactivity") {
                        continue;
                    }
                    let mut value = user.value.clone();
                    value.enabled = false;
                    revoke(tx, "user", &value.id, this.config.token_seconds).await?;
                    tx.update(&System::of(user), &value).await?;
                    disabled += 1;
                }
                if disabled > 0 {
                    this.invalidate(tx).await?;
                }
                Ok(disabled)
            })
            .await
    }
}
