//! Identity over HTTP: each scenario on SQLite, and all of them on PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod app_creds;
mod bad_input;
mod catalog;
mod clients;
mod cloud;
mod compliance;
mod credentials;
mod ec2;
mod extensions;
mod factors;
mod grants;
mod limits;
mod oauth1;
mod policies;
mod resources;
mod signing;
mod sweep;
mod tokens;
mod trusts;
mod walk;

use cloud::Cloud;
use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;

/// The configuration of a scenario: what it names in `compliance`, or the defaults.
macro_rules! change {
    () => {
        |_| {}
    };
    ($change:ident) => {
        crate::compliance::$change
    };
}

macro_rules! scenarios {
    ($($module:ident :: $name:ident $(with $change:ident)?),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let cloud = super::Cloud::with(change!($($change)?)).await;
                super::$module::$name(&cloud).await;
            })*
        }
        /// All of them, each in a database of its own on one server.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn on_postgres() {
            if !haneul_testkit::postgres::installed() {
                println!("skipped: PostgreSQL is not installed (apt-get install postgresql)");
                return;
            }
            let server = haneul_testkit::postgres::Postgres::start().expect("PostgreSQL starts");
            let server = &server;
            let all: Vec<LocalBoxFuture<'_, ()>> = vec![$(Box::pin(async move {
                println!("{}", stringify!($name));
                let url = server.create_database(stringify!($name)).expect("a database");
                let cloud = Cloud::open(&url, change!($($change)?)).await;
                $module::$name(&cloud).await;
            })),*];
            // They wait for the disk most of the time.
            futures_util::stream::iter(all).buffer_unordered(4).collect::<()>().await;
        }
    };
}

scenarios!(
    tokens::scopes,
    tokens::refusals_are_all_the_same,
    tokens::rescoping_never_prolongs,
    tokens::revocation_is_seen_at_once,
    tokens::who_may_validate,
    tokens::forged_ones_are_refused,
    tokens::catalog_and_versions,
    tokens::passwords,
    app_creds::life,
    app_creds::never_more_than_the_user_has,
    app_creds::restricted_and_unrestricted,
    app_creds::access_rules,
    resources::domains,
    resources::projects,
    resources::project_tags,
    resources::users,
    resources::groups,
    resources::roles,
    resources::paging_and_filters,
    catalog::services_and_endpoints,
    catalog::regions,
    catalog::own_entries_follow_the_configuration,
    credentials::sealed_and_owned,
    credentials::ec2,
    ec2::signed_requests,
    ec2::cve_2026_43001_a_credential_stays_within_what_made_it,
    ec2::cve_2026_44394_rescoping_never_prolongs,
    oauth1::dance,
    oauth1::request_tokens,
    oauth1::client_credentials,
    limits::registered_and_own,
    factors::one_time_passwords,
    factors::more_than_one_method,
    factors::no_receipt_for_what_is_lent,
    policies::of_endpoints,
    policies::events_and_old_paths,
    trusts::lent_and_taken_back,
    trusts::worth_what_the_trustor_has_now,
    trusts::counted_uses,
    trusts::lent_on,
    extensions::policies_and_consumers,
    extensions::domain_configuration,
    extensions::filtered_catalogs,
    grants::on_projects_domains_and_system,
    grants::inherited_and_by_groups,
    grants::assignments_are_listed,
    grants::managers_of_a_domain,
    sweep::every_route_asks_who_you_are,
    sweep::a_reader_elsewhere_changes_nothing,
    sweep::no_secret_is_kept_or_told,
    bad_input::table,
    compliance::what_a_password_must_be with strict,
    compliance::old_passwords_and_young_ones with strict,
    compliance::passwords_expire with strict,
    compliance::what_somebody_else_set_is_changed_first with first_use,
    compliance::who_does_not_log_in_is_disabled with inactive,
);
