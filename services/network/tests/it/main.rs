//! The service as its clients see it: over HTTP on a loopback port, on both databases, with a host that greets
//! and reports over the agents' socket. PostgreSQL is started by the test where it is installed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod bad_input;
mod clients;
mod cloud;
mod compute;
mod hosts;
mod life;
mod lists;
mod spanning;

/// Each case runs on SQLite and on PostgreSQL.
macro_rules! suite {
    ($($module:ident { $($name:ident),* $(,)? })*) => {
        mod on_sqlite {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread")] async fn $name() { crate::$module::$name(&crate::cloud::sqlite().await).await; })*
            })*
        }
        mod on_postgres {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                    if let Some(c) = crate::cloud::postgres().await { crate::$module::$name(&c).await; }
                })*
            })*
        }
    };
}

suite! {
    bad_input { table, other_projects }
    life { networks_and_subnets, ports_and_addresses, routers_and_floating_ips, security_groups, quotas_and_usage, ipv6, concurrent_addresses }
    lists { filters_sorts_pages, tags, discovery }
    compute { servers_ports, choosing_networks }
    hosts { desired_state, members, observed }
    spanning { neighbours, a_server_moves, a_router_fails_over, agents }
}
