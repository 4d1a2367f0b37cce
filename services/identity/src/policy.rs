//! Rules with Keystone's names and meaning (keystone/common/policies): `role:admin` acts on everything, a
//! system reader sees everything, managers and readers of a domain act on and see what is in it, and
//! everybody sees themselves.

use crate::model::{
    AccessRule, AccessToken, AppCred, Assignment, CatalogService, Consumer, Credential, Domain, DomainConfig, Endpoint,
    EndpointFilter, EndpointGroup, Group, ImpliedRole, Limit, Membership, PolicyAssociation, PolicyDoc, Project,
    Region, RegisteredLimit, RequestToken, Role, Trust, User,
};
use haneul_auth::RuleDefault;

const ADMIN: &str = "rule:admin_required";
const ANY: &str = "";
const ADMIN_OR_SYSTEM_READER: &str = "rule:admin_required or (role:reader and system_scope:all)";
/// Lists: the domain of the caller's token, set as the target by the handler.
const DOMAIN_READER_LIST: &str =
    "rule:admin_required or (role:reader and system_scope:all) or (role:reader and domain_id:%(target.domain_id)s)";

const USER_READ: &str = "rule:admin_required or (role:reader and system_scope:all) or (role:reader and token.domain.id:%(target.user.domain_id)s) or user_id:%(target.user.id)s";
const USER_WRITE: &str = "rule:admin_required or (role:manager and token.domain.id:%(target.user.domain_id)s)";
const USER_PROJECTS: &str = "rule:admin_required or (role:reader and system_scope:all) or (role:reader and domain_id:%(target.user.domain_id)s) or user_id:%(target.user.id)s";

const PROJECT_READ: &str = "rule:admin_required or (role:reader and system_scope:all) or (role:reader and domain_id:%(target.project.domain_id)s) or project_id:%(target.project.id)s";
const PROJECT_WRITE: &str = "rule:admin_required or (role:manager and domain_id:%(target.project.domain_id)s)";

const DOMAIN_READ: &str = "rule:admin_required or (role:reader and system_scope:all) or token.domain.id:%(target.domain.id)s or token.project.domain.id:%(target.domain.id)s";

const GROUP_READ: &str = "rule:admin_required or (role:reader and system_scope:all) or (role:reader and domain_id:%(target.group.domain_id)s)";
const GROUP_WRITE: &str = "rule:admin_required or (role:manager and domain_id:%(target.group.domain_id)s)";
const MEMBER_READ: &str = "rule:admin_required or (role:reader and system_scope:all) or (role:reader and domain_id:%(target.group.domain_id)s and domain_id:%(target.user.domain_id)s)";
const MEMBER_WRITE: &str = "rule:admin_required or (role:manager and domain_id:%(target.group.domain_id)s and domain_id:%(target.user.domain_id)s)";

const ROLE_READ: &str =
    "rule:admin_required or (role:reader and system_scope:all) or (role:manager and rule:domain_managed_target_role)";
const ROLE_LIST: &str =
    "rule:admin_required or (role:reader and system_scope:all) or (role:manager and domain_id:%(target.domain_id)s)";

/// Actor and target of a grant are both of the domain of the caller's token.
macro_rules! grant_in_domain {
    ($role:literal, $more:literal) => {
        concat!(
            "(role:",
            $role,
            " and domain_id:%(target.user.domain_id)s and domain_id:%(target.project.domain_id)s",
            $more,
            ") or ",
            "(role:",
            $role,
            " and domain_id:%(target.user.domain_id)s and domain_id:%(target.domain.id)s",
            $more,
            ") or ",
            "(role:",
            $role,
            " and domain_id:%(target.group.domain_id)s and domain_id:%(target.project.domain_id)s",
            $more,
            ") or ",
            "(role:",
            $role,
            " and domain_id:%(target.group.domain_id)s and domain_id:%(target.domain.id)s",
            $more,
            ")"
        )
    };
}
const GRANT_CHECK: &str = concat!(
    "rule:admin_required or (role:reader and system_scope:all) or ",
    grant_in_domain!(
        "reader",
        " and (domain_id:%(target.role.domain_id)s or 'None':%(target.role.domain_id)s)"
    )
);
const GRANT_LIST: &str = concat!(
    "rule:admin_required or (role:reader and system_scope:all) or ",
    grant_in_domain!("reader", "")
);
const GRANT_WRITE: &str = concat!(
    "rule:admin_required or ",
    grant_in_domain!(
        "manager",
        " and rule:domain_managed_target_role and (domain_id:%(target.role.domain_id)s or 'None':%(target.role.domain_id)s)"
    )
);

const CRED_READ: &str =
    "rule:admin_required or (role:reader and system_scope:all) or user_id:%(target.credential.user_id)s";
const CRED_WRITE: &str = "rule:admin_required or user_id:%(target.credential.user_id)s";
const EC2_WRITE: &str = "rule:admin_required or (role:member and user_id:%(target.credential.user_id)s)";

const TRUST_READ: &str = "rule:admin_required or (role:reader and system_scope:all) or user_id:%(target.trust.trustor_user_id)s or user_id:%(target.trust.trustee_user_id)s";

const LIMIT_READ: &str = "rule:admin_required or (role:reader and system_scope:all) or domain_id:%(target.limit.domain.id)s or domain_id:%(target.limit.project.domain_id)s or project_id:%(target.limit.project_id)s";

const APP_CRED_READ: &str = "rule:admin_required or (role:reader and system_scope:all) or rule:owner";

mod actions {
    use super::*;
    haneul_auth::actions! {
        Domain {
            GetDomain = "identity:get_domain" => DOMAIN_READ;
            CreateDomain = "identity:create_domain" => ADMIN;
            UpdateDomain = "identity:update_domain" => ADMIN;
            DeleteDomain = "identity:delete_domain" => ADMIN;
        }
        Project {
            GetProject = "identity:get_project" => PROJECT_READ;
            CreateProject = "identity:create_project" => PROJECT_WRITE;
            UpdateProject = "identity:update_project" => PROJECT_WRITE;
            DeleteProject = "identity:delete_project" => PROJECT_WRITE;
            ListProjectTags = "identity:list_project_tags" => PROJECT_READ;
            GetProjectTag = "identity:get_project_tag" => PROJECT_READ;
            UpdateProjectTags = "identity:update_project_tags" => PROJECT_WRITE;
            CreateProjectTag = "identity:create_project_tag" => PROJECT_WRITE;
            DeleteProjectTags = "identity:delete_project_tags" => PROJECT_WRITE;
            DeleteProjectTag = "identity:delete_project_tag" => PROJECT_WRITE;
        }
        User {
            GetUser = "identity:get_user" => USER_READ;
            CreateUser = "identity:create_user" => USER_WRITE;
            UpdateUser = "identity:update_user" => USER_WRITE;
            DeleteUser = "identity:delete_user" => USER_WRITE;
            ListUserProjects = "identity:list_user_projects" => USER_PROJECTS;
            ListGroupsForUser = "identity:list_groups_for_user" => USER_PROJECTS;
        }
        Group {
            GetGroup = "identity:get_group" => GROUP_READ;
            CreateGroup = "identity:create_group" => GROUP_WRITE;
            UpdateGroup = "identity:update_group" => GROUP_WRITE;
            DeleteGroup = "identity:delete_group" => GROUP_WRITE;
            ListUsersInGroup = "identity:list_users_in_group" => GROUP_READ;
        }
        Membership {
            CheckUserInGroup = "identity:check_user_in_group" => MEMBER_READ;
            AddUserToGroup = "identity:add_user_to_group" => MEMBER_WRITE;
            RemoveUserFromGroup = "identity:remove_user_from_group" => MEMBER_WRITE;
        }
        Role {
            GetRole = "identity:get_role" => ROLE_READ;
            CreateRole = "identity:create_role" => ADMIN;
            UpdateRole = "identity:update_role" => ADMIN;
            DeleteRole = "identity:delete_role" => ADMIN;
            GetDomainRole = "identity:get_domain_role" => ADMIN_OR_SYSTEM_READER;
            CreateDomainRole = "identity:create_domain_role" => ADMIN;
            UpdateDomainRole = "identity:update_domain_role" => ADMIN;
            DeleteDomainRole = "identity:delete_domain_role" => ADMIN;
        }
        ImpliedRole {
            GetImpliedRole = "identity:get_implied_role" => ADMIN_OR_SYSTEM_READER;
            CreateImpliedRole = "identity:create_implied_role" => ADMIN;
            DeleteImpliedRole = "identity:delete_implied_role" => ADMIN;
        }
        Assignment {
            CheckGrant = "identity:check_grant" => GRANT_CHECK;
            CreateGrant = "identity:create_grant" => GRANT_WRITE;
            RevokeGrant = "identity:revoke_grant" => GRANT_WRITE;
            CheckSystemGrantForUser = "identity:check_system_grant_for_user" => ADMIN_OR_SYSTEM_READER;
            CreateSystemGrantForUser = "identity:create_system_grant_for_user" => ADMIN;
            RevokeSystemGrantForUser = "identity:revoke_system_grant_for_user" => ADMIN;
            CheckSystemGrantForGroup = "identity:check_system_grant_for_group" => ADMIN_OR_SYSTEM_READER;
            CreateSystemGrantForGroup = "identity:create_system_grant_for_group" => ADMIN;
            RevokeSystemGrantForGroup = "identity:revoke_system_grant_for_group" => ADMIN;
        }
        AppCred {
            GetAppCred = "identity:get_application_credential" => APP_CRED_READ;
            CreateAppCred = "identity:create_application_credential" => "rule:owner";
            DeleteAppCred = "identity:delete_application_credential" => "rule:admin_required or rule:owner";
        }
        Credential {
            GetCredential = "identity:get_credential" => CRED_READ;
            CreateCredential = "identity:create_credential" => CRED_WRITE;
            UpdateCredential = "identity:update_credential" => CRED_WRITE;
            DeleteCredential = "identity:delete_credential" => CRED_WRITE;
            GetEc2 = "identity:ec2_get_credential" => CRED_READ;
            CreateEc2 = "identity:ec2_create_credential" => EC2_WRITE;
            DeleteEc2 = "identity:ec2_delete_credential" => EC2_WRITE;
        }
        PolicyDoc {
            GetPolicy = "identity:get_policy" => ADMIN_OR_SYSTEM_READER;
            CreatePolicy = "identity:create_policy" => ADMIN;
            UpdatePolicy = "identity:update_policy" => ADMIN;
            DeletePolicy = "identity:delete_policy" => ADMIN;
        }
        Consumer {
            GetConsumer = "identity:get_consumer" => ADMIN_OR_SYSTEM_READER;
            CreateConsumer = "identity:create_consumer" => ADMIN;
            UpdateConsumer = "identity:update_consumer" => ADMIN;
            DeleteConsumer = "identity:delete_consumer" => ADMIN;
        }
        RequestToken {
            AuthorizeRequestToken = "identity:authorize_request_token" => ADMIN;
        }
        AccessToken {
            GetAccessToken = "identity:get_access_token" => ADMIN;
            ListAccessTokenRoles = "identity:list_access_token_roles" => ADMIN;
            GetAccessTokenRole = "identity:get_access_token_role" => ADMIN;
            DeleteAccessToken = "identity:delete_access_token" => "rule:admin_required or (role:member and user_id:%(target.credential.user_id)s)";
        }
        RegisteredLimit {
            GetRegisteredLimit = "identity:get_registered_limit" => ANY;
            CreateRegisteredLimits = "identity:create_registered_limits" => ADMIN;
            UpdateRegisteredLimit = "identity:update_registered_limit" => ADMIN;
            DeleteRegisteredLimit = "identity:delete_registered_limit" => ADMIN;
        }
        Limit {
            GetLimit = "identity:get_limit" => LIMIT_READ;
            CreateLimits = "identity:create_limits" => ADMIN;
            UpdateLimit = "identity:update_limit" => ADMIN;
            DeleteLimit = "identity:delete_limit" => ADMIN;
        }
        PolicyAssociation {
            CreatePolicyForEndpoint = "identity:create_policy_association_for_endpoint" => ADMIN;
            DeletePolicyForEndpoint = "identity:delete_policy_association_for_endpoint" => ADMIN;
            CreatePolicyForService = "identity:create_policy_association_for_service" => ADMIN;
            DeletePolicyForService = "identity:delete_policy_association_for_service" => ADMIN;
            CreatePolicyForRegion = "identity:create_policy_association_for_region_and_service" => ADMIN;
            DeletePolicyForRegion = "identity:delete_policy_association_for_region_and_service" => ADMIN;
        }
        DomainConfig {
            GetDomainConfig = "identity:get_domain_config" => ADMIN_OR_SYSTEM_READER;
            CreateDomainConfig = "identity:create_domain_config" => ADMIN;
            UpdateDomainConfig = "identity:update_domain_config" => ADMIN;
            DeleteDomainConfig = "identity:delete_domain_config" => ADMIN;
        }
        EndpointGroup {
            GetEndpointGroup = "identity:get_endpoint_group" => ADMIN_OR_SYSTEM_READER;
            CreateEndpointGroup = "identity:create_endpoint_group" => ADMIN;
            UpdateEndpointGroup = "identity:update_endpoint_group" => ADMIN;
            DeleteEndpointGroup = "identity:delete_endpoint_group" => ADMIN;
        }
        EndpointFilter {
            AddEndpointFilter = "identity:add_endpoint_to_project" => ADMIN;
            RemoveEndpointFilter = "identity:remove_endpoint_from_project" => ADMIN;
            AddGroupFilter = "identity:add_endpoint_group_to_project" => ADMIN;
            RemoveGroupFilter = "identity:remove_endpoint_group_from_project" => ADMIN;
        }
        AccessRule {
            GetAccessRule = "identity:get_access_rule" => "(role:reader and system_scope:all) or user_id:%(target.user.id)s";
            DeleteAccessRule = "identity:delete_access_rule" => "(role:admin and system_scope:all) or user_id:%(target.user.id)s";
        }
        Trust {
            CreateTrust = "identity:create_trust" => "user_id:%(target.trust.trustor_user_id)s";
            GetTrust = "identity:get_trust" => TRUST_READ;
            DeleteTrust = "identity:delete_trust" => "rule:admin_required or user_id:%(target.trust.trustor_user_id)s";
            ListTrustRoles = "identity:list_roles_for_trust" => TRUST_READ;
            GetTrustRole = "identity:get_role_for_trust" => TRUST_READ;
        }
        Region {
            GetRegion = "identity:get_region" => ANY;
            CreateRegion = "identity:create_region" => ADMIN;
            UpdateRegion = "identity:update_region" => ADMIN;
            DeleteRegion = "identity:delete_region" => ADMIN;
        }
        CatalogService {
            GetService = "identity:get_service" => ADMIN_OR_SYSTEM_READER;
            CreateService = "identity:create_service" => ADMIN;
            UpdateService = "identity:update_service" => ADMIN;
            DeleteService = "identity:delete_service" => ADMIN;
        }
        Endpoint {
            GetEndpoint = "identity:get_endpoint" => ADMIN_OR_SYSTEM_READER;
            CreateEndpoint = "identity:create_endpoint" => ADMIN;
            UpdateEndpoint = "identity:update_endpoint" => ADMIN;
            DeleteEndpoint = "identity:delete_endpoint" => ADMIN;
        }
    }
}
pub(crate) use actions::*;

const fn rule(name: &'static str, check: &'static str) -> RuleDefault {
    RuleDefault { name, check }
}

/// Rules that other rules name, and those of lists and tokens.
const MORE: &[RuleDefault] = &[
    rule("admin_required", "role:admin"),
    rule("service_role", "role:service"),
    rule("service_or_admin", "rule:admin_required or rule:service_role"),
    rule("owner", "user_id:%(user_id)s"),
    rule("admin_or_owner", "rule:admin_required or rule:owner"),
    rule("token_subject", "user_id:%(target.token.user_id)s"),
    rule("admin_or_token_subject", "rule:admin_required or rule:token_subject"),
    rule(
        "service_admin_or_token_subject",
        "rule:service_or_admin or rule:token_subject",
    ),
    rule(
        "domain_managed_target_role",
        "'manager':%(target.role.name)s or 'member':%(target.role.name)s or 'reader':%(target.role.name)s",
    ),
    rule(
        "identity:check_token",
        "rule:admin_required or (role:reader and system_scope:all) or rule:token_subject",
    ),
    rule(
        "identity:validate_token",
        "rule:admin_required or (role:reader and system_scope:all) or rule:service_role or rule:token_subject",
    ),
    rule("identity:revoke_token", "rule:admin_required or rule:token_subject"),
    rule("identity:get_auth_catalog", ANY),
    rule("identity:get_auth_projects", ANY),
    rule("identity:get_auth_domains", ANY),
    rule("identity:get_auth_system", ANY),
    rule(
        "identity:list_domains",
        "rule:admin_required or (role:reader and system_scope:all) or (role:reader and domain_id:%(target.domain_id)s)",
    ),
    rule("identity:list_projects", DOMAIN_READER_LIST),
    rule("identity:list_users", DOMAIN_READER_LIST),
    rule("identity:list_groups", DOMAIN_READER_LIST),
    rule("identity:list_roles", ROLE_LIST),
    rule("identity:list_domain_roles", ADMIN_OR_SYSTEM_READER),
    rule("identity:list_implied_roles", ADMIN_OR_SYSTEM_READER),
    rule("identity:list_role_inference_rules", ADMIN_OR_SYSTEM_READER),
    rule("identity:list_grants", GRANT_LIST),
    rule("identity:list_system_grants_for_user", ADMIN_OR_SYSTEM_READER),
    rule("identity:list_system_grants_for_group", ADMIN_OR_SYSTEM_READER),
    rule("identity:list_role_assignments", DOMAIN_READER_LIST),
    rule("identity:list_role_assignments_for_tree", DOMAIN_READER_LIST),
    rule("identity:list_application_credentials", APP_CRED_READ),
    rule(
        "identity:list_access_rules",
        "(role:reader and system_scope:all) or user_id:%(target.user.id)s",
    ),
    rule("identity:list_policies", ADMIN_OR_SYSTEM_READER),
    rule("identity:list_consumers", ADMIN_OR_SYSTEM_READER),
    rule("identity:list_access_tokens", ADMIN),
    rule("identity:ec2tokens_validate", "rule:service_or_admin"),
    rule("identity:s3tokens_validate", "rule:service_or_admin"),
    rule("identity:list_revoke_events", "rule:service_or_admin"),
    rule("identity:list_registered_limits", ANY),
    rule("identity:list_limits", ANY),
    rule("identity:get_limit_model", ANY),
    rule("identity:check_policy_association_for_endpoint", ADMIN_OR_SYSTEM_READER),
    rule("identity:check_policy_association_for_service", ADMIN_OR_SYSTEM_READER),
    rule(
        "identity:check_policy_association_for_region_and_service",
        ADMIN_OR_SYSTEM_READER,
    ),
    rule("identity:get_policy_for_endpoint", ADMIN_OR_SYSTEM_READER),
    rule("identity:list_endpoints_for_policy", ADMIN_OR_SYSTEM_READER),
    rule("identity:get_domain_config_default", ADMIN_OR_SYSTEM_READER),
    rule("identity:get_security_compliance_domain_config", ANY),
    rule("identity:list_endpoint_groups", ADMIN_OR_SYSTEM_READER),
    rule("identity:list_endpoint_groups_for_project", ADMIN_OR_SYSTEM_READER),
    rule("identity:list_endpoints_for_project", ADMIN_OR_SYSTEM_READER),
    rule(
        "identity:list_endpoints_associated_with_endpoint_group",
        ADMIN_OR_SYSTEM_READER,
    ),
    rule(
        "identity:list_projects_associated_with_endpoint_group",
        ADMIN_OR_SYSTEM_READER,
    ),
    rule("identity:list_projects_for_endpoint", ADMIN_OR_SYSTEM_READER),
    rule("identity:get_endpoint_group_in_project", ADMIN_OR_SYSTEM_READER),
    rule("identity:check_endpoint_in_project", ADMIN_OR_SYSTEM_READER),
    rule("identity:list_trusts", ADMIN_OR_SYSTEM_READER),
    rule(
        "identity:list_trusts_for_trustor",
        "rule:admin_required or (role:reader and system_scope:all) or user_id:%(target.trust.trustor_user_id)s",
    ),
    rule(
        "identity:list_trusts_for_trustee",
        "rule:admin_required or (role:reader and system_scope:all) or user_id:%(target.trust.trustee_user_id)s",
    ),
    rule("identity:list_credentials", CRED_READ),
    rule("identity:ec2_list_credentials", APP_CRED_READ),
    rule("identity:list_services", ADMIN_OR_SYSTEM_READER),
    rule("identity:list_endpoints", ADMIN_OR_SYSTEM_READER),
    rule("identity:list_regions", ANY),
];

/// All of identity's rules with their defaults.
pub const RULES: &[RuleDefault] = &{
    let mut all = [RuleDefault { name: "", check: "" }; MORE.len() + actions::RULES.len()];
    let mut i = 0;
    while i < MORE.len() {
        all[i] = MORE[i];
        i += 1;
    }
    let mut j = 0;
    while j < actions::RULES.len() {
        all[MORE.len() + j] = actions::RULES[j];
        j += 1;
    }
    all
};
