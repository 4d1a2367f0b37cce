//! Rules by Nova's names, with their defaults. A rule that is `!` by default is a feature that is switched
//! off, as an operator switches it off: the action is known, and refused by policy (403).

use crate::model::{Aggregate, ComputeService, Flavor, Keypair, Server, ServerGroup};
use haneul_auth::RuleDefault;
use haneul_auth::persona::{
    ADMIN, ANY, NOBODY, PROJECT_MANAGER_OR_ADMIN, PROJECT_MEMBER_OR_ADMIN, PROJECT_READER_OR_ADMIN,
};

const OWNER: &str = "role:admin or user_id:%(user_id)s";

/// Actions on resources.
pub mod acts {
    use super::*;
    haneul_auth::actions! {
        Server {
            Show = "os_compute_api:servers:show" => PROJECT_READER_OR_ADMIN;
            List = "os_compute_api:servers:index" => PROJECT_READER_OR_ADMIN;
            Detail = "os_compute_api:servers:detail" => PROJECT_READER_OR_ADMIN;
            Create = "os_compute_api:servers:create" => PROJECT_MEMBER_OR_ADMIN;
            Update = "os_compute_api:servers:update" => PROJECT_MEMBER_OR_ADMIN;
            Delete = "os_compute_api:servers:delete" => PROJECT_MEMBER_OR_ADMIN;
            Start = "os_compute_api:servers:start" => PROJECT_MEMBER_OR_ADMIN;
            Stop = "os_compute_api:servers:stop" => PROJECT_MEMBER_OR_ADMIN;
            Reboot = "os_compute_api:servers:reboot" => PROJECT_MEMBER_OR_ADMIN;
            Rebuild = "os_compute_api:servers:rebuild" => PROJECT_MEMBER_OR_ADMIN;
            Resize = "os_compute_api:servers:resize" => PROJECT_MEMBER_OR_ADMIN;
            ConfirmResize = "os_compute_api:servers:confirm_resize" => PROJECT_MEMBER_OR_ADMIN;
            RevertResize = "os_compute_api:servers:revert_resize" => PROJECT_MEMBER_OR_ADMIN;
            CreateImage = "os_compute_api:servers:create_image" => PROJECT_MEMBER_OR_ADMIN;
            CrashDump = "os_compute_api:servers:trigger_crash_dump" => NOBODY;
            Pause = "os_compute_api:os-pause-server:pause" => PROJECT_MEMBER_OR_ADMIN;
            Unpause = "os_compute_api:os-pause-server:unpause" => PROJECT_MEMBER_OR_ADMIN;
            Lock = "os_compute_api:os-lock-server:lock" => PROJECT_MEMBER_OR_ADMIN;
            Unlock = "os_compute_api:os-lock-server:unlock" => PROJECT_MEMBER_OR_ADMIN;
            UnlockOverride = "os_compute_api:os-lock-server:unlock:unlock_override" => ADMIN;
            ResetState = "os_compute_api:os-admin-actions:reset_state" => ADMIN;
            InjectNetworkInfo = "os_compute_api:os-admin-actions:inject_network_info" => ADMIN;
            ConsoleOutput = "os_compute_api:os-console-output" => PROJECT_MEMBER_OR_ADMIN;
            RemoteConsoles = "os_compute_api:os-remote-consoles" => PROJECT_MEMBER_OR_ADMIN;
            Diagnostics = "os_compute_api:os-server-diagnostics" => ADMIN;
            Topology = "compute:server:topology:index" => PROJECT_READER_OR_ADMIN;
            Password = "os_compute_api:os-server-password:show" => PROJECT_READER_OR_ADMIN;
            PasswordClear = "os_compute_api:os-server-password:clear" => PROJECT_MEMBER_OR_ADMIN;
            AdminPassword = "os_compute_api:os-admin-password" => NOBODY;
            Suspend = "os_compute_api:os-suspend-server:suspend" => PROJECT_MEMBER_OR_ADMIN;
            Resume = "os_compute_api:os-suspend-server:resume" => PROJECT_MEMBER_OR_ADMIN;
            Shelve = "os_compute_api:os-shelve:shelve" => NOBODY;
            ShelveOffload = "os_compute_api:os-shelve:shelve_offload" => NOBODY;
            Unshelve = "os_compute_api:os-shelve:unshelve" => NOBODY;
            Rescue = "os_compute_api:os-rescue" => NOBODY;
            Unrescue = "os_compute_api:os-unrescue" => NOBODY;
            Backup = "os_compute_api:os-create-backup" => PROJECT_MEMBER_OR_ADMIN;
            Migrate = "os_compute_api:os-migrate-server:migrate" => PROJECT_MANAGER_OR_ADMIN;
            LiveMigrate = "os_compute_api:os-migrate-server:migrate_live" => ADMIN;
            Evacuate = "os_compute_api:os-evacuate" => ADMIN;
            Restore = "os_compute_api:os-deferred-delete:restore" => PROJECT_MEMBER_OR_ADMIN;
            ForceDelete = "os_compute_api:os-deferred-delete:force" => PROJECT_MEMBER_OR_ADMIN;
            AddFixedIp = "os_compute_api:os-multinic:add" => PROJECT_MEMBER_OR_ADMIN;
            RemoveFixedIp = "os_compute_api:os-multinic:remove" => PROJECT_MEMBER_OR_ADMIN;
            AddFloatingIp = "os_compute_api:os-floating-ips:add" => PROJECT_MEMBER_OR_ADMIN;
            RemoveFloatingIp = "os_compute_api:os-floating-ips:remove" => PROJECT_MEMBER_OR_ADMIN;
            SecurityGroups = "os_compute_api:os-security-groups:list" => PROJECT_READER_OR_ADMIN;
            AddSecurityGroup = "os_compute_api:os-security-groups:add" => PROJECT_MEMBER_OR_ADMIN;
            RemoveSecurityGroup = "os_compute_api:os-security-groups:remove" => PROJECT_MEMBER_OR_ADMIN;
            Actions = "os_compute_api:os-instance-actions:list" => PROJECT_READER_OR_ADMIN;
            ActionShow = "os_compute_api:os-instance-actions:show" => PROJECT_READER_OR_ADMIN;
            Ips = "os_compute_api:ips:index" => PROJECT_READER_OR_ADMIN;
            IpsShow = "os_compute_api:ips:show" => PROJECT_READER_OR_ADMIN;
            Interfaces = "os_compute_api:os-attach-interfaces:list" => PROJECT_READER_OR_ADMIN;
            InterfaceShow = "os_compute_api:os-attach-interfaces:show" => PROJECT_READER_OR_ADMIN;
            InterfaceCreate = "os_compute_api:os-attach-interfaces:create" => PROJECT_MEMBER_OR_ADMIN;
            InterfaceDelete = "os_compute_api:os-attach-interfaces:delete" => PROJECT_MEMBER_OR_ADMIN;
            Volumes = "os_compute_api:os-volumes-attachments:index" => PROJECT_READER_OR_ADMIN;
            VolumeShow = "os_compute_api:os-volumes-attachments:show" => PROJECT_READER_OR_ADMIN;
            VolumeAttach = "os_compute_api:os-volumes-attachments:create" => NOBODY;
            VolumeUpdate = "os_compute_api:os-volumes-attachments:update" => NOBODY;
            VolumeDetach = "os_compute_api:os-volumes-attachments:delete" => NOBODY;
            MetaList = "os_compute_api:server-metadata:index" => PROJECT_READER_OR_ADMIN;
            MetaShow = "os_compute_api:server-metadata:show" => PROJECT_READER_OR_ADMIN;
            MetaCreate = "os_compute_api:server-metadata:create" => PROJECT_MEMBER_OR_ADMIN;
            MetaUpdate = "os_compute_api:server-metadata:update" => PROJECT_MEMBER_OR_ADMIN;
            MetaUpdateAll = "os_compute_api:server-metadata:update_all" => PROJECT_MEMBER_OR_ADMIN;
            MetaDelete = "os_compute_api:server-metadata:delete" => PROJECT_MEMBER_OR_ADMIN;
            TagList = "os_compute_api:os-server-tags:index" => PROJECT_READER_OR_ADMIN;
            TagShow = "os_compute_api:os-server-tags:show" => PROJECT_READER_OR_ADMIN;
            TagUpdate = "os_compute_api:os-server-tags:update" => PROJECT_MEMBER_OR_ADMIN;
            TagUpdateAll = "os_compute_api:os-server-tags:update_all" => PROJECT_MEMBER_OR_ADMIN;
            TagDelete = "os_compute_api:os-server-tags:delete" => PROJECT_MEMBER_OR_ADMIN;
            TagDeleteAll = "os_compute_api:os-server-tags:delete_all" => PROJECT_MEMBER_OR_ADMIN;
            ServerMigrations = "os_compute_api:servers:migrations:index" => ADMIN;
            ServerMigrationShow = "os_compute_api:servers:migrations:show" => ADMIN;
            ServerMigrationForce = "os_compute_api:servers:migrations:force_complete" => ADMIN;
            ServerMigrationDelete = "os_compute_api:servers:migrations:delete" => ADMIN;
        }
        Flavor {
            FlavorShow = "os_compute_api:flavors" => ANY;
            FlavorCreate = "os_compute_api:os-flavor-manage:create" => ADMIN;
            FlavorUpdate = "os_compute_api:os-flavor-manage:update" => ADMIN;
            FlavorDelete = "os_compute_api:os-flavor-manage:delete" => ADMIN;
            FlavorAccess = "os_compute_api:os-flavor-access" => ADMIN;
            FlavorAccessAdd = "os_compute_api:os-flavor-access:add_tenant_access" => ADMIN;
            FlavorAccessRemove = "os_compute_api:os-flavor-access:remove_tenant_access" => ADMIN;
            SpecsList = "os_compute_api:os-flavor-extra-specs:index" => PROJECT_READER_ANY;
            SpecsShow = "os_compute_api:os-flavor-extra-specs:show" => PROJECT_READER_ANY;
            SpecsCreate = "os_compute_api:os-flavor-extra-specs:create" => ADMIN;
            SpecsUpdate = "os_compute_api:os-flavor-extra-specs:update" => ADMIN;
            SpecsDelete = "os_compute_api:os-flavor-extra-specs:delete" => ADMIN;
        }
        Keypair {
            KeyShow = "os_compute_api:os-keypairs:show" => OWNER;
            KeyList = "os_compute_api:os-keypairs:index" => OWNER;
            KeyCreate = "os_compute_api:os-keypairs:create" => OWNER;
            KeyDelete = "os_compute_api:os-keypairs:delete" => OWNER;
        }
        ServerGroup {
            GroupShow = "os_compute_api:os-server-groups:show" => PROJECT_READER_OR_ADMIN;
            GroupList = "os_compute_api:os-server-groups:index" => PROJECT_READER_OR_ADMIN;
            GroupCreate = "os_compute_api:os-server-groups:create" => PROJECT_MEMBER_OR_ADMIN;
            GroupDelete = "os_compute_api:os-server-groups:delete" => PROJECT_MEMBER_OR_ADMIN;
        }
        Aggregate {
            AggregateShow = "os_compute_api:os-aggregates:show" => ADMIN;
            AggregateCreate = "os_compute_api:os-aggregates:create" => ADMIN;
            AggregateUpdate = "os_compute_api:os-aggregates:update" => ADMIN;
            AggregateDelete = "os_compute_api:os-aggregates:delete" => ADMIN;
            AggregateAddHost = "os_compute_api:os-aggregates:add_host" => ADMIN;
            AggregateRemoveHost = "os_compute_api:os-aggregates:remove_host" => ADMIN;
            AggregateSetMetadata = "os_compute_api:os-aggregates:set_metadata" => ADMIN;
        }
        ComputeService {
            ServiceList = "os_compute_api:os-services:list" => ADMIN;
            ServiceUpdate = "os_compute_api:os-services:update" => ADMIN;
            ServiceDelete = "os_compute_api:os-services:delete" => ADMIN;
        }
    }
    const PROJECT_READER_ANY: &str = "role:admin or role:reader";
}

macro_rules! rules {
    ($($name:ident = $rule:literal => $default:expr;)*) => {
        $(#[doc = concat!("Rule `", $rule, "`.")] pub const $name: &str = $rule;)*
        /// Rules that are not about one resource.
        const OTHER: &[RuleDefault] = &[$(RuleDefault { name: $rule, check: $default },)*];
    };
}

rules! {
    ALL_INDEX = "os_compute_api:servers:index:get_all_tenants" => ADMIN;
    ALL_DETAIL = "os_compute_api:servers:detail:get_all_tenants" => ADMIN;
    FILTERS_ALL = "os_compute_api:servers:allow_all_filters" => ADMIN;
    FORCED_HOST = "os_compute_api:servers:create:forced_host" => ADMIN;
    REQUESTED_DESTINATION = "compute:servers:create:requested_destination" => ADMIN;
    ZERO_DISK_FLAVOR = "os_compute_api:servers:create:zero_disk_flavor" => ADMIN;
    TRUSTED_CERTS = "os_compute_api:servers:create:trusted_certs" => PROJECT_MEMBER_OR_ADMIN;
    EXTENDED = "os_compute_api:os-extended-server-attributes" => ADMIN;
    HOST_STATUS = "os_compute_api:servers:show:host_status" => ADMIN;
    SHOW_SPECS = "os_compute_api:servers:show:flavor-extra-specs" => PROJECT_READER_OR_ADMIN;
    GROUPS_ALL = "os_compute_api:os-server-groups:index:all_projects" => ADMIN;
    ACTION_EVENTS = "os_compute_api:os-instance-actions:events" => ADMIN;
    ACTION_EVENT_DETAILS = "os_compute_api:os-instance-actions:events:details" => ADMIN;
    LIMITS = "os_compute_api:limits" => ANY;
    LIMITS_OTHER = "os_compute_api:limits:other_project" => ADMIN;
    SECURITY_GROUPS = "os_compute_api:os-security-groups:get" => PROJECT_READER_OR_ADMIN;
    SECURITY_GROUP_SHOW = "os_compute_api:os-security-groups:show" => PROJECT_READER_OR_ADMIN;
    SECURITY_GROUP_CREATE = "os_compute_api:os-security-groups:create" => PROJECT_MEMBER_OR_ADMIN;
    SECURITY_GROUP_UPDATE = "os_compute_api:os-security-groups:update" => PROJECT_MEMBER_OR_ADMIN;
    SECURITY_GROUP_DELETE = "os_compute_api:os-security-groups:delete" => PROJECT_MEMBER_OR_ADMIN;
    SECURITY_GROUP_RULE_CREATE = "os_compute_api:os-security-groups:rule:create" => PROJECT_MEMBER_OR_ADMIN;
    SECURITY_GROUP_RULE_DELETE = "os_compute_api:os-security-groups:rule:delete" => PROJECT_MEMBER_OR_ADMIN;
    NETWORKS = "os_compute_api:os-networks:list" => PROJECT_READER_OR_ADMIN;
    NETWORK_SHOW = "os_compute_api:os-networks:show" => PROJECT_READER_OR_ADMIN;
    TENANT_NETWORKS = "os_compute_api:os-tenant-networks:list" => PROJECT_READER_OR_ADMIN;
    TENANT_NETWORK_SHOW = "os_compute_api:os-tenant-networks:show" => PROJECT_READER_OR_ADMIN;
    FLOATING_IP_POOLS = "os_compute_api:os-floating-ip-pools" => ANY;
    FLOATING_IPS = "os_compute_api:os-floating-ips:list" => PROJECT_READER_OR_ADMIN;
    FLOATING_IP_SHOW = "os_compute_api:os-floating-ips:show" => PROJECT_READER_OR_ADMIN;
    FLOATING_IP_CREATE = "os_compute_api:os-floating-ips:create" => PROJECT_MEMBER_OR_ADMIN;
    FLOATING_IP_DELETE = "os_compute_api:os-floating-ips:delete" => PROJECT_MEMBER_OR_ADMIN;
    QUOTA_SHOW = "os_compute_api:os-quota-sets:show" => PROJECT_READER_OR_ADMIN;
    QUOTA_DETAIL = "os_compute_api:os-quota-sets:detail" => PROJECT_READER_OR_ADMIN;
    QUOTA_DEFAULTS = "os_compute_api:os-quota-sets:defaults" => ANY;
    QUOTA_UPDATE = "os_compute_api:os-quota-sets:update" => ADMIN;
    QUOTA_DELETE = "os_compute_api:os-quota-sets:delete" => ADMIN;
    QUOTA_CLASS_SHOW = "os_compute_api:os-quota-class-sets:show" => ADMIN;
    QUOTA_CLASS_UPDATE = "os_compute_api:os-quota-class-sets:update" => ADMIN;
    HYPERVISORS = "os_compute_api:os-hypervisors:list" => ADMIN;
    HYPERVISORS_DETAIL = "os_compute_api:os-hypervisors:list-detail" => ADMIN;
    HYPERVISOR_SHOW = "os_compute_api:os-hypervisors:show" => ADMIN;
    HYPERVISOR_STATISTICS = "os_compute_api:os-hypervisors:statistics" => ADMIN;
    HYPERVISOR_UPTIME = "os_compute_api:os-hypervisors:uptime" => ADMIN;
    HYPERVISOR_SEARCH = "os_compute_api:os-hypervisors:search" => ADMIN;
    HYPERVISOR_SERVERS = "os_compute_api:os-hypervisors:servers" => ADMIN;
    ZONES = "os_compute_api:os-availability-zone:list" => ANY;
    ZONES_DETAIL = "os_compute_api:os-availability-zone:detail" => ADMIN;
    AGGREGATES = "os_compute_api:os-aggregates:index" => ADMIN;
    HOSTS = "os_compute_api:os-hosts:list" => ADMIN;
    HOST_SHOW = "os_compute_api:os-hosts:show" => ADMIN;
    HOST_UPDATE = "os_compute_api:os-hosts:update" => ADMIN;
    HOST_START = "os_compute_api:os-hosts:start" => ADMIN;
    HOST_SHUTDOWN = "os_compute_api:os-hosts:shutdown" => ADMIN;
    HOST_REBOOT = "os_compute_api:os-hosts:reboot" => ADMIN;
    AUDIT_LOG = "os_compute_api:os-instance-usage-audit-log:list" => ADMIN;
    AUDIT_LOG_SHOW = "os_compute_api:os-instance-usage-audit-log:show" => ADMIN;
    AGGREGATE_IMAGES = "compute:aggregates:images" => NOBODY;
    EXTENSIONS = "os_compute_api:extensions" => ANY;
    USAGE_LIST = "os_compute_api:os-simple-tenant-usage:list" => ADMIN;
    USAGE_SHOW = "os_compute_api:os-simple-tenant-usage:show" => PROJECT_READER_OR_ADMIN;
    MIGRATE_TO_HOST = "os_compute_api:os-migrate-server:migrate:host" => ADMIN;
    MIGRATIONS_LIST = "os_compute_api:os-migrations:index" => PROJECT_MANAGER_OR_ADMIN;
    MIGRATIONS_ALL = "os_compute_api:os-migrations:index:all_projects" => ADMIN;
    MIGRATIONS_HOST = "os_compute_api:os-migrations:index:host" => ADMIN;
    EXTERNAL_EVENTS = "os_compute_api:os-server-external-events:create" => ADMIN;
    CONSOLE_TOKENS = "os_compute_api:os-console-auth-tokens" => ADMIN;
    ASSISTED_SNAPSHOT_CREATE = "os_compute_api:os-assisted-volume-snapshots:create" => NOBODY;
    ASSISTED_SNAPSHOT_DELETE = "os_compute_api:os-assisted-volume-snapshots:delete" => NOBODY;
}

const N: usize = acts::RULES.len() + OTHER.len();
const ALL: [RuleDefault; N] = {
    let mut all = [RuleDefault { name: "", check: "" }; N];
    let mut i = 0;
    while i < N {
        all[i] = if i < acts::RULES.len() {
            acts::RULES[i]
        } else {
            OTHER[i - acts::RULES.len()]
        };
        i += 1;
    }
    all
};

/// All rules of this service.
pub const RULES: &[RuleDefault] = &ALL;
