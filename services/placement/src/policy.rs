//! Rules and actions (Placement policies; default: admin and the service role).

use crate::ResourceProvider;

/// Placement is the cloud's own book: administrators and services read and write it.
const ADMIN_OR_SERVICE: &str = "role:admin or role:service";

haneul_auth::actions! {
    ResourceProvider {
        List = "placement:resource_providers:list" => ADMIN_OR_SERVICE;
        Create = "placement:resource_providers:create" => ADMIN_OR_SERVICE;
        Show = "placement:resource_providers:show" => ADMIN_OR_SERVICE;
        Update = "placement:resource_providers:update" => ADMIN_OR_SERVICE;
        Delete = "placement:resource_providers:delete" => ADMIN_OR_SERVICE;
        InventoriesShow = "placement:resource_providers:inventories:list" => ADMIN_OR_SERVICE;
        InventoriesUpdate = "placement:resource_providers:inventories:update" => ADMIN_OR_SERVICE;
        Usages = "placement:resource_providers:usages" => ADMIN_OR_SERVICE;
        ProviderAllocations = "placement:resource_providers:allocations:list" => ADMIN_OR_SERVICE;
        AllocationsManage = "placement:allocations:manage" => ADMIN_OR_SERVICE;
        Candidates = "placement:allocation_candidates:list" => ADMIN_OR_SERVICE;
        ProjectUsages = "placement:usages" => "role:admin or role:service or (role:reader and project_id:%(project_id)s)";
    }
}
