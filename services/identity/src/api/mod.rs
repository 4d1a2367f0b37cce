//! The route table: one line per method and path. HEAD is answered wherever GET is.

mod access_rules;
mod accounts;
mod app_creds;
mod assignments;
mod auth;
mod catalog;
mod common;
mod consumers;
mod credentials;
mod domain_config;
mod domains;
mod ec2;
mod endpoint_policy;
mod ep_filter;
mod grants;
mod groups;
mod limits;
mod oauth1;
mod oauth2;
mod policies;
mod projects;
mod refused;
mod registered_limits;
mod revoke;
mod roles;
mod tags;
mod trusts;
mod users;
mod versions;

pub(crate) use accounts::{NewAccount, NewUser};

use crate::Identity;
use haneul_http::{Routes, Service};
use http::Method;
use std::sync::Arc;

#[rustfmt::skip]
pub(crate) fn routes(app: &Arc<Identity>) -> Routes<Identity> {
    Routes::new(Service::Identity, app.clone())
        .public(Method::GET, "", versions::all)
        .public(Method::GET, "/", versions::all)
        .public(Method::GET, "/v3", versions::three)
        .public(Method::GET, "/v3/", versions::three)

        .public(Method::POST, "/v3/auth/tokens", auth::issue)
        .get("/v3/auth/tokens", auth::validate, "identity:validate_token")
        .delete("/v3/auth/tokens", auth::delete, "identity:revoke_token")
        .public(Method::GET, "/v3/auth/tokens/OS-PKI/revoked", refused::no_revocation_list)
        .get("/v3/auth/catalog", auth::catalog, "identity:get_auth_catalog")
        .get("/v3/auth/projects", auth::projects, "identity:get_auth_projects")
        .get("/v3/auth/domains", auth::domains, "identity:get_auth_domains")
        .get("/v3/auth/system", auth::system, "identity:get_auth_system")

        .public(Method::POST, "/v3/accounts", accounts::sign_up)

        .get("/v3/domains", domains::list, "identity:list_domains")
        .post("/v3/domains", domains::create, "identity:create_domain")
        .get("/v3/domains/{domain_id}", domains::show, "identity:get_domain")
        .patch("/v3/domains/{domain_id}", domains::update, "identity:update_domain")
        .delete("/v3/domains/{domain_id}", domains::delete, "identity:delete_domain")

        .get("/v3/domains/config/default", domain_config::default, "identity:get_domain_config_default")
        .get("/v3/domains/config/{group}/default", domain_config::default, "identity:get_domain_config_default")
        .get("/v3/domains/config/{group}/{option}/default", domain_config::default, "identity:get_domain_config_default")
        .get("/v3/domains/{domain_id}/config", domain_config::show, "identity:get_domain_config")
        .put("/v3/domains/{domain_id}/config", domain_config::replace, "identity:create_domain_config")
        .patch("/v3/domains/{domain_id}/config", domain_config::update, "identity:update_domain_config")
        .delete("/v3/domains/{domain_id}/config", domain_config::delete, "identity:delete_domain_config")
        .get("/v3/domains/{domain_id}/config/{group}", domain_config::show, "identity:get_domain_config")
        .patch("/v3/domains/{domain_id}/config/{group}", domain_config::update, "identity:update_domain_config")
        .delete("/v3/domains/{domain_id}/config/{group}", domain_config::delete, "identity:delete_domain_config")
        .get("/v3/domains/{domain_id}/config/{group}/{option}", domain_config::show, "identity:get_domain_config")
        .patch("/v3/domains/{domain_id}/config/{group}/{option}", domain_config::update, "identity:update_domain_config")
        .delete("/v3/domains/{domain_id}/config/{group}/{option}", domain_config::delete, "identity:delete_domain_config")

        .get("/v3/projects", projects::list, "identity:list_projects")
        .post("/v3/projects", projects::create, "identity:create_project")
        .get("/v3/projects/{project_id}", projects::show, "identity:get_project")
        .patch("/v3/projects/{project_id}", projects::update, "identity:update_project")
        .delete("/v3/projects/{project_id}", projects::delete, "identity:delete_project")
        .get("/v3/projects/{project_id}/tags", tags::list, "identity:list_project_tags")
        .put("/v3/projects/{project_id}/tags", tags::replace, "identity:update_project_tags")
        .delete("/v3/projects/{project_id}/tags", tags::clear, "identity:delete_project_tags")
        .get("/v3/projects/{project_id}/tags/{value}", tags::check, "identity:get_project_tag")
        .put("/v3/projects/{project_id}/tags/{value}", tags::add, "identity:create_project_tag")
        .delete("/v3/projects/{project_id}/tags/{value}", tags::remove, "identity:delete_project_tag")

        .get("/v3/users", users::list, "identity:list_users")
        .post("/v3/users", users::create, "identity:create_user")
        .get("/v3/users/{user_id}", users::show, "identity:get_user")
        .patch("/v3/users/{user_id}", users::update, "identity:update_user")
        .delete("/v3/users/{user_id}", users::delete, "identity:delete_user")
        .public(Method::POST, "/v3/users/{user_id}/password", users::change_password)
        .get("/v3/users/{user_id}/projects", projects::list_of_user, "identity:list_user_projects")

        .get("/v3/roles", roles::list, "identity:list_roles")
        .post("/v3/roles", roles::create, "identity:create_role")
        .get("/v3/roles/{role_id}", roles::show, "identity:get_role")
        .patch("/v3/roles/{role_id}", roles::update, "identity:update_role")
        .delete("/v3/roles/{role_id}", roles::delete, "identity:delete_role")
        .get("/v3/roles/{role_id}/implies", roles::implied, "identity:list_implied_roles")
        .get("/v3/roles/{role_id}/implies/{implied_id}", roles::check_implied, "identity:get_implied_role")
        .put("/v3/roles/{role_id}/implies/{implied_id}", roles::imply, "identity:create_implied_role")
        .delete("/v3/roles/{role_id}/implies/{implied_id}", roles::unimply, "identity:delete_implied_role")
        .get("/v3/role_inferences", roles::inferences, "identity:list_role_inference_rules")

        .get("/v3/users/{user_id}/groups", groups::list_of_user, "identity:list_groups_for_user")
        .get("/v3/users/{user_id}/application_credentials", app_creds::list, "identity:list_application_credentials")
        .post("/v3/users/{user_id}/application_credentials", app_creds::create, "identity:create_application_credential")
        .get("/v3/users/{user_id}/application_credentials/{application_credential_id}", app_creds::show, "identity:get_application_credential")
        .delete("/v3/users/{user_id}/application_credentials/{application_credential_id}", app_creds::delete, "identity:delete_application_credential")

        .get("/v3/users/{user_id}/access_rules", access_rules::list, "identity:list_access_rules")
        .get("/v3/users/{user_id}/access_rules/{access_rule_id}", access_rules::show, "identity:get_access_rule")
        .delete("/v3/users/{user_id}/access_rules/{access_rule_id}", access_rules::delete, "identity:delete_access_rule")
        .get("/v3/users/{user_id}/credentials/OS-EC2", credentials::ec2_list, "identity:ec2_list_credentials")
        .post("/v3/users/{user_id}/credentials/OS-EC2", credentials::ec2_create, "identity:ec2_create_credential")
        .get("/v3/users/{user_id}/credentials/OS-EC2/{credential_id}", credentials::ec2_show, "identity:ec2_get_credential")
        .delete("/v3/users/{user_id}/credentials/OS-EC2/{credential_id}", credentials::ec2_delete, "identity:ec2_delete_credential")

        .get("/v3/credentials", credentials::list, "identity:list_credentials")
        .post("/v3/credentials", credentials::create, "identity:create_credential")
        .get("/v3/credentials/{credential_id}", credentials::show, "identity:get_credential")
        .patch("/v3/credentials/{credential_id}", credentials::update, "identity:update_credential")
        .delete("/v3/credentials/{credential_id}", credentials::delete, "identity:delete_credential")

        .get("/v3/OS-TRUST/trusts", trusts::list, "identity:list_trusts")
        .post("/v3/OS-TRUST/trusts", trusts::create, "identity:create_trust")
        .get("/v3/OS-TRUST/trusts/{trust_id}", trusts::show, "identity:get_trust")
        .delete("/v3/OS-TRUST/trusts/{trust_id}", trusts::delete, "identity:delete_trust")
        .get("/v3/OS-TRUST/trusts/{trust_id}/roles", trusts::list_roles, "identity:list_roles_for_trust")
        .get("/v3/OS-TRUST/trusts/{trust_id}/roles/{role_id}", trusts::role, "identity:get_role_for_trust")

        .get("/v3/groups", groups::list, "identity:list_groups")
        .post("/v3/groups", groups::create, "identity:create_group")
        .get("/v3/groups/{group_id}", groups::show, "identity:get_group")
        .patch("/v3/groups/{group_id}", groups::update, "identity:update_group")
        .delete("/v3/groups/{group_id}", groups::delete, "identity:delete_group")
        .get("/v3/groups/{group_id}/users", groups::users, "identity:list_users_in_group")
        .get("/v3/groups/{group_id}/users/{user_id}", groups::check_member, "identity:check_user_in_group")
        .put("/v3/groups/{group_id}/users/{user_id}", groups::add_member, "identity:add_user_to_group")
        .delete("/v3/groups/{group_id}/users/{user_id}", groups::remove_member, "identity:remove_user_from_group")

        .get("/v3/role_assignments", assignments::list, "identity:list_role_assignments")
        .get("/v3/projects/{project_id}/users/{user_id}/roles", grants::list, "identity:list_grants")
        .get("/v3/projects/{project_id}/users/{user_id}/roles/{role_id}", grants::check, "identity:check_grant")
        .put("/v3/projects/{project_id}/users/{user_id}/roles/{role_id}", grants::create, "identity:create_grant")
        .delete("/v3/projects/{project_id}/users/{user_id}/roles/{role_id}", grants::revoke, "identity:revoke_grant")
        .get("/v3/OS-INHERIT/projects/{project_id}/users/{user_id}/roles/inherited_to_projects", grants::list, "identity:list_grants")
        .get("/v3/OS-INHERIT/projects/{project_id}/users/{user_id}/roles/{role_id}/inherited_to_projects", grants::check, "identity:check_grant")
        .put("/v3/OS-INHERIT/projects/{project_id}/users/{user_id}/roles/{role_id}/inherited_to_projects", grants::create, "identity:create_grant")
        .delete("/v3/OS-INHERIT/projects/{project_id}/users/{user_id}/roles/{role_id}/inherited_to_projects", grants::revoke, "identity:revoke_grant")
        .get("/v3/projects/{project_id}/groups/{group_id}/roles", grants::list, "identity:list_grants")
        .get("/v3/projects/{project_id}/groups/{group_id}/roles/{role_id}", grants::check, "identity:check_grant")
        .put("/v3/projects/{project_id}/groups/{group_id}/roles/{role_id}", grants::create, "identity:create_grant")
        .delete("/v3/projects/{project_id}/groups/{group_id}/roles/{role_id}", grants::revoke, "identity:revoke_grant")
        .get("/v3/OS-INHERIT/projects/{project_id}/groups/{group_id}/roles/inherited_to_projects", grants::list, "identity:list_grants")
        .get("/v3/OS-INHERIT/projects/{project_id}/groups/{group_id}/roles/{role_id}/inherited_to_projects", grants::check, "identity:check_grant")
        .put("/v3/OS-INHERIT/projects/{project_id}/groups/{group_id}/roles/{role_id}/inherited_to_projects", grants::create, "identity:create_grant")
        .delete("/v3/OS-INHERIT/projects/{project_id}/groups/{group_id}/roles/{role_id}/inherited_to_projects", grants::revoke, "identity:revoke_grant")
        .get("/v3/domains/{domain_id}/users/{user_id}/roles", grants::list, "identity:list_grants")
        .get("/v3/domains/{domain_id}/users/{user_id}/roles/{role_id}", grants::check, "identity:check_grant")
        .put("/v3/domains/{domain_id}/users/{user_id}/roles/{role_id}", grants::create, "identity:create_grant")
        .delete("/v3/domains/{domain_id}/users/{user_id}/roles/{role_id}", grants::revoke, "identity:revoke_grant")
        .get("/v3/OS-INHERIT/domains/{domain_id}/users/{user_id}/roles/inherited_to_projects", grants::list, "identity:list_grants")
        .get("/v3/OS-INHERIT/domains/{domain_id}/users/{user_id}/roles/{role_id}/inherited_to_projects", grants::check, "identity:check_grant")
        .put("/v3/OS-INHERIT/domains/{domain_id}/users/{user_id}/roles/{role_id}/inherited_to_projects", grants::create, "identity:create_grant")
        .delete("/v3/OS-INHERIT/domains/{domain_id}/users/{user_id}/roles/{role_id}/inherited_to_projects", grants::revoke, "identity:revoke_grant")
        .get("/v3/domains/{domain_id}/groups/{group_id}/roles", grants::list, "identity:list_grants")
        .get("/v3/domains/{domain_id}/groups/{group_id}/roles/{role_id}", grants::check, "identity:check_grant")
        .put("/v3/domains/{domain_id}/groups/{group_id}/roles/{role_id}", grants::create, "identity:create_grant")
        .delete("/v3/domains/{domain_id}/groups/{group_id}/roles/{role_id}", grants::revoke, "identity:revoke_grant")
        .get("/v3/OS-INHERIT/domains/{domain_id}/groups/{group_id}/roles/inherited_to_projects", grants::list, "identity:list_grants")
        .get("/v3/OS-INHERIT/domains/{domain_id}/groups/{group_id}/roles/{role_id}/inherited_to_projects", grants::check, "identity:check_grant")
        .put("/v3/OS-INHERIT/domains/{domain_id}/groups/{group_id}/roles/{role_id}/inherited_to_projects", grants::create, "identity:create_grant")
        .delete("/v3/OS-INHERIT/domains/{domain_id}/groups/{group_id}/roles/{role_id}/inherited_to_projects", grants::revoke, "identity:revoke_grant")
        .get("/v3/system/users/{user_id}/roles", grants::list, "identity:list_system_grants_for_user")
        .get("/v3/system/users/{user_id}/roles/{role_id}", grants::check, "identity:check_system_grant_for_user")
        .put("/v3/system/users/{user_id}/roles/{role_id}", grants::create, "identity:create_system_grant_for_user")
        .delete("/v3/system/users/{user_id}/roles/{role_id}", grants::revoke, "identity:revoke_system_grant_for_user")
        .get("/v3/system/groups/{group_id}/roles", grants::list, "identity:list_system_grants_for_group")
        .get("/v3/system/groups/{group_id}/roles/{role_id}", grants::check, "identity:check_system_grant_for_group")
        .put("/v3/system/groups/{group_id}/roles/{role_id}", grants::create, "identity:create_system_grant_for_group")
        .delete("/v3/system/groups/{group_id}/roles/{role_id}", grants::revoke, "identity:revoke_system_grant_for_group")

        .get("/v3/regions", catalog::regions, "identity:list_regions")
        .post("/v3/regions", catalog::create_region, "identity:create_region")
        .get("/v3/regions/{region_id}", catalog::region, "identity:get_region")
        .put("/v3/regions/{region_id}", catalog::put_region, "identity:create_region")
        .patch("/v3/regions/{region_id}", catalog::update_region, "identity:update_region")
        .delete("/v3/regions/{region_id}", catalog::delete_region, "identity:delete_region")
        .get("/v3/OS-EP-FILTER/endpoint_groups", ep_filter::groups, "identity:list_endpoint_groups")
        .post("/v3/OS-EP-FILTER/endpoint_groups", ep_filter::create_group, "identity:create_endpoint_group")
        .get("/v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}", ep_filter::group, "identity:get_endpoint_group")
        .patch("/v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}", ep_filter::update_group, "identity:update_endpoint_group")
        .delete("/v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}", ep_filter::delete_group, "identity:delete_endpoint_group")
        .get("/v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/endpoints", ep_filter::endpoints_of_group, "identity:list_endpoints_associated_with_endpoint_group")
        .get("/v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/projects", ep_filter::projects_of, "identity:list_projects_associated_with_endpoint_group")
        .get("/v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/projects/{project_id}", ep_filter::check, "identity:get_endpoint_group_in_project")
        .put("/v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/projects/{project_id}", ep_filter::add, "identity:add_endpoint_group_to_project")
        .delete("/v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/projects/{project_id}", ep_filter::unlink, "identity:remove_endpoint_group_from_project")
        .get("/v3/OS-EP-FILTER/endpoints/{endpoint_id}/projects", ep_filter::projects_of, "identity:list_projects_for_endpoint")
        .get("/v3/OS-EP-FILTER/projects/{project_id}/endpoints", ep_filter::of_project, "identity:list_endpoints_for_project")
        .get("/v3/OS-EP-FILTER/projects/{project_id}/endpoint_groups", ep_filter::of_project, "identity:list_endpoint_groups_for_project")
        .get("/v3/OS-EP-FILTER/projects/{project_id}/endpoints/{endpoint_id}", ep_filter::check, "identity:check_endpoint_in_project")
        .put("/v3/OS-EP-FILTER/projects/{project_id}/endpoints/{endpoint_id}", ep_filter::add, "identity:add_endpoint_to_project")
        .delete("/v3/OS-EP-FILTER/projects/{project_id}/endpoints/{endpoint_id}", ep_filter::unlink, "identity:remove_endpoint_from_project")

        .get("/v3/policies", policies::list, "identity:list_policies")
        .post("/v3/policies", policies::create, "identity:create_policy")
        .get("/v3/policies/{policy_id}", policies::show, "identity:get_policy")
        .patch("/v3/policies/{policy_id}", policies::update, "identity:update_policy")
        .delete("/v3/policies/{policy_id}", policies::delete, "identity:delete_policy")
        .get("/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints", endpoint_policy::endpoints, "identity:list_endpoints_for_policy")
        .get("/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints/{endpoint_id}", endpoint_policy::check, "identity:check_policy_association_for_endpoint")
        .put("/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints/{endpoint_id}", endpoint_policy::create, "identity:create_policy_association_for_endpoint")
        .delete("/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints/{endpoint_id}", endpoint_policy::delete, "identity:delete_policy_association_for_endpoint")
        .get("/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}", endpoint_policy::check, "identity:check_policy_association_for_service")
        .put("/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}", endpoint_policy::create, "identity:create_policy_association_for_service")
        .delete("/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}", endpoint_policy::delete, "identity:delete_policy_association_for_service")
        .get("/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}/regions/{region_id}", endpoint_policy::check, "identity:check_policy_association_for_region_and_service")
        .put("/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}/regions/{region_id}", endpoint_policy::create, "identity:create_policy_association_for_region_and_service")
        .delete("/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}/regions/{region_id}", endpoint_policy::delete, "identity:delete_policy_association_for_region_and_service")
        .get("/v3/endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy", endpoint_policy::policy, "identity:get_policy_for_endpoint")
        .get("/v3/OS-OAUTH1/consumers", consumers::list, "identity:list_consumers")
        .post("/v3/OS-OAUTH1/consumers", consumers::create, "identity:create_consumer")
        .get("/v3/OS-OAUTH1/consumers/{consumer_id}", consumers::show, "identity:get_consumer")
        .patch("/v3/OS-OAUTH1/consumers/{consumer_id}", consumers::update, "identity:update_consumer")
        .delete("/v3/OS-OAUTH1/consumers/{consumer_id}", consumers::delete, "identity:delete_consumer")
        .public(Method::GET, "/v3/OS-OAUTH1/request_token", refused::post_only)
        .public(Method::POST, "/v3/OS-OAUTH1/request_token", oauth1::request_token)
        .public(Method::GET, "/v3/OS-OAUTH1/access_token", refused::post_only)
        .public(Method::POST, "/v3/OS-OAUTH1/access_token", oauth1::access_token)
        .put("/v3/OS-OAUTH1/authorize/{request_token_id}", oauth1::authorize, "identity:authorize_request_token")
        .get("/v3/users/{user_id}/OS-OAUTH1/access_tokens", oauth1::list, "identity:list_access_tokens")
        .get("/v3/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}", oauth1::show, "identity:get_access_token")
        .delete("/v3/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}", oauth1::delete, "identity:delete_access_token")
        .get("/v3/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles", oauth1::roles, "identity:list_access_token_roles")
        .get("/v3/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles/{role_id}", oauth1::role, "identity:get_access_token_role")
        .public(Method::POST, "/v3/OS-OAUTH2/token", oauth2::token)
        .public(Method::GET, "/v3/OS-OAUTH2/token", refused::oauth2_post_only)
        .public(Method::PUT, "/v3/OS-OAUTH2/token", refused::oauth2_post_only)
        .public(Method::PATCH, "/v3/OS-OAUTH2/token", refused::oauth2_post_only)
        .public(Method::DELETE, "/v3/OS-OAUTH2/token", refused::oauth2_post_only)
        .get("/v3/OS-REVOKE/events", revoke::events, "identity:list_revoke_events")
        .public(Method::GET, "/v3/OS-SIMPLE-CERT/ca", refused::no_pki)
        .public(Method::GET, "/v3/OS-SIMPLE-CERT/certificates", refused::no_pki)

        .public(Method::GET, "/v3/ec2tokens", refused::post_only)
        .post("/v3/ec2tokens", ec2::ec2_tokens, "identity:ec2tokens_validate")
        .public(Method::GET, "/v3/s3tokens", refused::post_only)
        .post("/v3/s3tokens", ec2::s3_tokens, "identity:s3tokens_validate")

        .get("/v3/registered_limits", registered_limits::list, "identity:list_registered_limits")
        .post("/v3/registered_limits", registered_limits::create, "identity:create_registered_limits")
        .get("/v3/registered_limits/{registered_limit_id}", registered_limits::show, "identity:get_registered_limit")
        .patch("/v3/registered_limits/{registered_limit_id}", registered_limits::update, "identity:update_registered_limit")
        .delete("/v3/registered_limits/{registered_limit_id}", registered_limits::delete, "identity:delete_registered_limit")
        .get("/v3/limits", limits::list, "identity:list_limits")
        .post("/v3/limits", limits::create, "identity:create_limits")
        .get("/v3/limits/model", limits::model, "identity:get_limit_model")
        .get("/v3/limits/{limit_id}", limits::show, "identity:get_limit")
        .patch("/v3/limits/{limit_id}", limits::update, "identity:update_limit")
        .delete("/v3/limits/{limit_id}", limits::delete, "identity:delete_limit")

        .get("/v3/services", catalog::services, "identity:list_services")
        .post("/v3/services", catalog::create_service, "identity:create_service")
        .get("/v3/services/{service_id}", catalog::service, "identity:get_service")
        .patch("/v3/services/{service_id}", catalog::update_service, "identity:update_service")
        .delete("/v3/services/{service_id}", catalog::delete_service, "identity:delete_service")
        .get("/v3/endpoints", catalog::endpoints, "identity:list_endpoints")
        .post("/v3/endpoints", catalog::create_endpoint, "identity:create_endpoint")
        .get("/v3/endpoints/{endpoint_id}", catalog::endpoint, "identity:get_endpoint")
        .patch("/v3/endpoints/{endpoint_id}", catalog::update_endpoint, "identity:update_endpoint")
        .delete("/v3/endpoints/{endpoint_id}", catalog::delete_endpoint, "identity:delete_endpoint")
}
