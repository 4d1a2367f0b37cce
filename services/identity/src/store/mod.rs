//! Tables, and the SQL that is more than a resource by its id.

mod credentials;
mod lookup;
mod roles;
mod secrets;

pub(crate) use credentials::*;
pub(crate) use lookup::*;
pub(crate) use roles::*;
pub(crate) use secrets::*;

use haneul_store::Migration;

/// A resource's table (base/store `Resource`) with further columns and constraints.
macro_rules! table {
    ($name:literal, $more:literal) => {
        concat!(
            "CREATE TABLE ",
            $name,
            "(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL, generation BIGINT NOT NULL,
              created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL",
            $more,
            ");"
        )
    };
}

/// Identity's tables.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        owner: "identity",
        number: 1,
        sql: concat!(
            table!("identity_domain", ", enabled BIGINT NOT NULL, UNIQUE(name)"),
            table!(
                "identity_project",
                ", domain_id TEXT NOT NULL, parent_id TEXT NOT NULL, enabled BIGINT NOT NULL, UNIQUE(domain_id, name)"
            ),
            "CREATE INDEX identity_project_by_parent ON identity_project(parent_id);",
            table!(
                "identity_user",
                ", domain_id TEXT NOT NULL, enabled BIGINT NOT NULL, default_project_id TEXT, UNIQUE(domain_id, name)"
            ),
            "CREATE INDEX identity_user_by_default_project ON identity_user(default_project_id);",
            table!("identity_group", ", domain_id TEXT NOT NULL, UNIQUE(domain_id, name)"),
            table!("identity_membership", ", group_id TEXT NOT NULL, user_id TEXT NOT NULL"),
            "CREATE INDEX identity_membership_by_group ON identity_membership(group_id);",
            "CREATE INDEX identity_membership_by_user ON identity_membership(user_id);",
            // domain_id is '' for global roles: NULLs would not clash.
            table!("identity_role", ", domain_id TEXT NOT NULL, UNIQUE(domain_id, name)"),
            table!("identity_implied_role", ", prior TEXT NOT NULL, implied TEXT NOT NULL"),
            table!(
                "identity_assignment",
                ", actor_kind TEXT NOT NULL, actor_id TEXT NOT NULL, target_kind TEXT NOT NULL,
               target_id TEXT NOT NULL, role_id TEXT NOT NULL, inherited BIGINT NOT NULL"
            ),
            "CREATE INDEX identity_assignment_by_actor ON identity_assignment(actor_id, target_id);",
            "CREATE INDEX identity_assignment_by_target ON identity_assignment(target_id);",
            "CREATE INDEX identity_assignment_by_role ON identity_assignment(role_id);",
            table!("identity_app_cred", ", user_id TEXT NOT NULL, UNIQUE(user_id, name)"),
            "CREATE INDEX identity_app_cred_by_project ON identity_app_cred(project_id);",
            table!("identity_region", ""),
            table!("identity_service", ", kind TEXT NOT NULL"),
            table!(
                "identity_endpoint",
                ", service_id TEXT NOT NULL, region_id TEXT, interface TEXT NOT NULL"
            ),
            // Hashes of passwords and application credentials' secrets, and wrong passwords in a row: not
            // resources, so that neither is ever in a change row.
            "CREATE TABLE identity_secret(owner TEXT PRIMARY KEY, hash TEXT NOT NULL, set_at BIGINT NOT NULL,
            failures BIGINT NOT NULL, failed_at BIGINT NOT NULL);",
            // Tokens issued before a moment that are good no longer; forgotten when they would have expired.
            "CREATE TABLE identity_revocation(sequence {{serial}}, kind TEXT NOT NULL, value TEXT NOT NULL,
            issued_before BIGINT NOT NULL, forget_at BIGINT NOT NULL);",
            "CREATE INDEX identity_revocation_by_value ON identity_revocation(value)",
        ),
    },
    Migration {
        owner: "identity",
        number: 2,
        // See `is_revoked`; 0 is that of a revocation that all who carry a number know of.
        sql: "ALTER TABLE identity_revocation ADD COLUMN number BIGINT NOT NULL DEFAULT 0",
    },
    Migration {
        owner: "identity",
        number: 3,
        // What the cloud put into the catalog itself, as it last wrote it: see logic/bootstrap.rs, `follow`.
        sql: "CREATE TABLE identity_followed(what TEXT PRIMARY KEY, id TEXT NOT NULL, url TEXT NOT NULL,
              region TEXT NOT NULL)",
    },
    Migration {
        owner: "identity",
        number: 4,
        sql: concat!(
            table!("identity_credential", ", user_id TEXT NOT NULL, kind TEXT NOT NULL"),
            "CREATE INDEX identity_credential_by_user ON identity_credential(user_id);",
            "CREATE INDEX identity_credential_by_project ON identity_credential(project_id);",
            "CREATE TABLE identity_credential_blob(id TEXT PRIMARY KEY, sealed TEXT NOT NULL)",
        ),
    },
    Migration {
        owner: "identity",
        number: 5,
        sql: concat!(
            table!(
                "identity_trust",
                ", trustor_user_id TEXT NOT NULL, trustee_user_id TEXT NOT NULL, redelegated_trust_id TEXT"
            ),
            "CREATE INDEX identity_trust_by_trustor ON identity_trust(trustor_user_id);",
            "CREATE INDEX identity_trust_by_trustee ON identity_trust(trustee_user_id);",
            "CREATE INDEX identity_trust_by_parent ON identity_trust(redelegated_trust_id)",
        ),
    },
    Migration {
        owner: "identity",
        number: 6,
        sql: concat!(
            table!("identity_access_rule", ", user_id TEXT NOT NULL"),
            "CREATE INDEX identity_access_rule_by_user ON identity_access_rule(user_id)",
        ),
    },
    Migration {
        owner: "identity",
        number: 7,
        sql: concat!(
            table!("identity_policy", ""),
            table!("identity_consumer", ""),
            table!("identity_domain_config", ""),
            table!("identity_endpoint_group", ""),
            table!("identity_endpoint_filter", ", target_id TEXT NOT NULL"),
            "CREATE INDEX identity_endpoint_filter_by_target ON identity_endpoint_filter(target_id);",
            "CREATE INDEX identity_endpoint_filter_by_project ON identity_endpoint_filter(project_id)",
        ),
    },
    Migration {
        owner: "accounts",
        number: 1,
        sql: concat!(
            table!("identity_account", ", domain_id TEXT NOT NULL, address TEXT"),
            "CREATE INDEX identity_account_by_domain ON identity_account(domain_id);",
            "CREATE INDEX identity_account_by_project ON identity_account(project_id);",
            "CREATE INDEX identity_account_by_address ON identity_account(address, created_at)",
        ),
    },
    Migration {
        owner: "identity",
        number: 8,
        sql: concat!(
            table!("identity_request_token", ", consumer_id TEXT NOT NULL"),
            "CREATE INDEX identity_request_token_by_consumer ON identity_request_token(consumer_id);",
            "CREATE INDEX identity_request_token_by_project ON identity_request_token(project_id);",
            table!(
                "identity_access_token",
                ", consumer_id TEXT NOT NULL, user_id TEXT NOT NULL"
            ),
            "CREATE INDEX identity_access_token_by_consumer ON identity_access_token(consumer_id);",
            "CREATE INDEX identity_access_token_by_user ON identity_access_token(user_id);",
            "CREATE INDEX identity_access_token_by_project ON identity_access_token(project_id);",
            // What was used once and must not be again before it is too old anyway: nonces, one-time passwords.
            "CREATE TABLE identity_used_once(what TEXT PRIMARY KEY, forget_at BIGINT NOT NULL);",
            "CREATE INDEX identity_used_once_by_end ON identity_used_once(forget_at);",
            table!(
                "identity_registered_limit",
                ", service_id TEXT NOT NULL, region_id TEXT NOT NULL, resource_name TEXT NOT NULL,
               UNIQUE(service_id, region_id, resource_name)"
            ),
            table!(
                "identity_limit",
                ", registered_limit_id TEXT NOT NULL, domain_id TEXT, target_id TEXT NOT NULL,
               UNIQUE(registered_limit_id, target_id)"
            ),
            "CREATE INDEX identity_limit_by_target ON identity_limit(target_id);",
            table!(
                "identity_policy_association",
                ", policy_id TEXT NOT NULL, endpoint_id TEXT, service_id TEXT, region_id TEXT"
            ),
            "CREATE INDEX identity_policy_association_by_policy ON identity_policy_association(policy_id)",
        ),
    },
    Migration {
        owner: "identity",
        number: 9,
        // Passwords that may not be chosen again, and the day of a user's last login while it is counted: beside
        // the resources, as the hashes in identity_secret.
        sql: "CREATE TABLE identity_old_password(sequence {{serial}}, user_id TEXT NOT NULL, hash TEXT NOT NULL);
              CREATE INDEX identity_old_password_by_user ON identity_old_password(user_id);
              CREATE TABLE identity_last_login(user_id TEXT PRIMARY KEY, day BIGINT NOT NULL)",
    },
];
