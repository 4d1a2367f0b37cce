//! Tables of this crate.

use haneul_core::Result;
use haneul_store::{Migration, Tx};

/// Tables.
pub const MIGRATIONS: &[Migration] = &[Migration {
    owner: "compute",
    number: 1,
    sql: "CREATE TABLE server(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL, generation BIGINT NOT NULL,
              created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL,
              user_id TEXT NOT NULL, host_id TEXT NOT NULL, vm_state TEXT NOT NULL, task_state TEXT NOT NULL,
              image_id TEXT NOT NULL, flavor_id TEXT NOT NULL, key_name TEXT NOT NULL, description TEXT NOT NULL,
              hostname TEXT NOT NULL, power_state BIGINT NOT NULL, launched_at BIGINT NOT NULL, launch_index BIGINT NOT NULL,
              zone TEXT NOT NULL, locked BIGINT NOT NULL, config_drive BIGINT NOT NULL, access_ip_v4 TEXT NOT NULL,
              access_ip_v6 TEXT NOT NULL, server_group TEXT NOT NULL, ec2 BIGINT NOT NULL);
          CREATE INDEX server_by_project ON server(project_id, created_at, id);
          CREATE INDEX server_by_age ON server(created_at, id);
          CREATE INDEX server_by_host ON server(host_id);
          CREATE INDEX server_by_group ON server(server_group);
          CREATE TABLE flavor(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL, generation BIGINT NOT NULL,
              created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL,
              is_public BIGINT NOT NULL, ram BIGINT NOT NULL, disk BIGINT NOT NULL, vcpus BIGINT NOT NULL);
          CREATE UNIQUE INDEX flavor_by_name ON flavor(name);
          CREATE TABLE keypair(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL, generation BIGINT NOT NULL,
              created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL, user_id TEXT NOT NULL);
          CREATE INDEX keypair_by_user ON keypair(user_id, name);
          CREATE TABLE server_group(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL, generation BIGINT NOT NULL,
              created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL);
          CREATE INDEX server_group_by_project ON server_group(project_id);
          CREATE TABLE compute_service(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL, generation BIGINT NOT NULL,
              created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL, host_id TEXT NOT NULL);
          CREATE UNIQUE INDEX compute_service_by_host ON compute_service(host_id)",
}, Migration {
    owner: "compute",
    number: 2,
    sql: "CREATE TABLE flavor_access(project_id TEXT NOT NULL, flavor_id TEXT NOT NULL, PRIMARY KEY (project_id, flavor_id));
          CREATE INDEX flavor_access_by_flavor ON flavor_access(flavor_id)",
}, Migration {
    owner: "compute",
    number: 3,
    sql: "CREATE TABLE console_token(hash TEXT PRIMARY KEY, server_id TEXT NOT NULL, started_at BIGINT NOT NULL,
              expires_at BIGINT NOT NULL);
          CREATE INDEX console_token_by_end ON console_token(expires_at);
          CREATE TABLE host_aggregate(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL, generation BIGINT NOT NULL,
              created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL);
          CREATE UNIQUE INDEX host_aggregate_by_name ON host_aggregate(name)",
}, Migration {
    owner: "compute",
    number: 4,
    sql: "CREATE TABLE migration(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL, generation BIGINT NOT NULL,
              created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL,
              number BIGINT NOT NULL, user_id TEXT NOT NULL, server_id TEXT NOT NULL, host_id TEXT NOT NULL,
              status TEXT NOT NULL);
          CREATE INDEX migration_by_server ON migration(server_id);
          CREATE INDEX migration_by_age ON migration(created_at, number)",
}, Migration {
    owner: "compute",
    number: 5,
    sql: "ALTER TABLE migration ADD COLUMN kind TEXT NOT NULL DEFAULT 'resize'",
}, Migration {
    owner: "compute",
    number: 6,
    sql: "CREATE INDEX server_at_work ON server(host_id) WHERE task_state <> ''",
}];

/// Makes what lists of flavors look up the same as the flavor's own list of projects; none when it is gone.
pub(crate) async fn flavor_access_set(tx: &mut Tx, flavor: &str, projects: &[String]) -> Result<()> {
    tx.exec("DELETE FROM flavor_access WHERE flavor_id = $1", &[flavor.into()])
        .await?;
    for project in projects {
        let row = [project.as_str().into(), flavor.into()];
        tx.exec("INSERT INTO flavor_access(project_id, flavor_id) VALUES ($1, $2)", &row)
            .await?;
    }
    Ok(())
}
