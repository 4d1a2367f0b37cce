//! The service's tables. Statements stand with the logic that needs them; the schema stands here.

use haneul_store::Migration;

/// Columns that every resource has.
macro_rules! table {
    ($name:literal $(, $more:literal)*) => {
        concat!(
            "CREATE TABLE ", $name, "(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL, generation BIGINT NOT NULL,
             created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL", $(", ", $more,)* ");
             CREATE INDEX ", $name, "_by_project ON ", $name, "(project_id);"
        )
    };
}

/// Numbered from 1; only added to.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
    owner: "network",
    number: 1,
    sql: concat!(
        table!("network", "shared BIGINT NOT NULL", "external BIGINT NOT NULL"),
        "CREATE INDEX network_by_external ON network(external, shared);",
        table!(
            "subnet",
            "network_id TEXT NOT NULL",
            "network_project_id TEXT NOT NULL",
            "shared BIGINT NOT NULL",
            "external BIGINT NOT NULL"
        ),
        "CREATE INDEX subnet_by_network ON subnet(network_id);",
        table!(
            "port",
            "network_id TEXT NOT NULL",
            "network_project_id TEXT NOT NULL",
            "device_id TEXT NOT NULL",
            "device_owner TEXT NOT NULL",
            "host_id TEXT NOT NULL",
            "mac TEXT NOT NULL",
            "status TEXT NOT NULL"
        ),
        "CREATE UNIQUE INDEX port_by_mac ON port(network_id, mac);
         CREATE INDEX port_by_network ON port(network_id, host_id);
         CREATE INDEX port_by_network_project ON port(network_project_id);
         CREATE INDEX port_by_device ON port(device_id);
         CREATE INDEX port_by_host ON port(host_id);",
        // An address is taken by whoever inserts its row: the primary key is the guard. `num` is the address as
        // 32 hex digits, so that text order is the order of addresses.
        "CREATE TABLE ip_allocation(subnet_id TEXT NOT NULL, num TEXT NOT NULL, ip TEXT NOT NULL, network_id TEXT NOT NULL,
             port_id TEXT NOT NULL, PRIMARY KEY(subnet_id, num));
         CREATE INDEX ip_allocation_by_port ON ip_allocation(port_id);
         CREATE INDEX ip_allocation_by_ip ON ip_allocation(ip);
         CREATE TABLE ip_cursor(subnet_id TEXT PRIMARY KEY, position BIGINT NOT NULL);",
        table!("router", "host_id TEXT NOT NULL", "gateway_network_id TEXT NOT NULL"),
        table!(
            "floating_ip",
            "floating_network_id TEXT NOT NULL",
            "floating_ip_address TEXT NOT NULL",
            "fixed_ip_address TEXT NOT NULL",
            "port_id TEXT NOT NULL",
            "router_id TEXT NOT NULL",
            "status TEXT NOT NULL"
        ),
        "CREATE UNIQUE INDEX floating_ip_by_address ON floating_ip(floating_network_id, floating_ip_address);
         CREATE INDEX floating_ip_by_port ON floating_ip(port_id);
         CREATE INDEX floating_ip_by_router ON floating_ip(router_id);",
        table!("security_group"),
        table!(
            "security_group_rule",
            "security_group_id TEXT NOT NULL",
            "remote_group_id TEXT NOT NULL",
            "rule_key TEXT NOT NULL"
        ),
        "CREATE UNIQUE INDEX security_group_rule_by_key ON security_group_rule(security_group_id, rule_key);
         CREATE INDEX security_group_rule_by_remote ON security_group_rule(remote_group_id);
         CREATE TABLE default_security_group(project_id TEXT PRIMARY KEY, security_group_id TEXT NOT NULL);
         CREATE TABLE port_security_group(security_group_id TEXT NOT NULL, port_id TEXT NOT NULL,
             PRIMARY KEY(security_group_id, port_id));
         CREATE INDEX port_security_group_by_port ON port_security_group(port_id);",
        // Groups whose members changed since hosts were told (logic/publish.rs).
        "CREATE TABLE members_changed(security_group_id TEXT PRIMARY KEY)"
    ),
},
    Migration {
        owner: "network",
        number: 2,
        // A port that is on its way is on two hosts: where it is, and where it is made ready.
        sql: "ALTER TABLE port ADD COLUMN arriving_host_id TEXT NOT NULL DEFAULT '';
              CREATE INDEX port_by_arriving_host ON port(arriving_host_id, network_id);
              CREATE VIEW port_host(id, network_id, host_id) AS
                  SELECT id, network_id, host_id FROM port WHERE host_id > ''
                  UNION ALL
                  SELECT id, network_id, arriving_host_id FROM port WHERE arriving_host_id > ''",
    },
];
