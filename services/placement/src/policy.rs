//! Rules and actions (Placement, "Policy Reference").

use crate::ResourceProvider;

/// Placement is the cloud's own book: administrators and services read and write it, within a project.
const BOOK: &str = "(role:admin or role:service) and not system_scope:all";

haneul_auth::actions! {
    ResourceProvider {
        ClassesList = "placement:resource_classes:list" => BOOK;
        ClassesCreate = "placement:resource_classes:create" => BOOK;
        ClassesShow = "placement:resource_classes:show" => BOOK;
        ClassesUpdate = "placement:resource_classes:update" => BOOK;
        ClassesDelete = "placement:resource_classes:delete" => BOOK;
        TraitsList = "placement:traits:list" => BOOK;
        TraitsShow = "placement:traits:show" => BOOK;
        TraitsUpdate = "placement:traits:update" => BOOK;
        TraitsDelete = "placement:traits:delete" => BOOK;
        List = "placement:resource_providers:list" => BOOK;
        Create = "placement:resource_providers:create" => BOOK;
        Show = "placement:resource_providers:show" => BOOK;
        Update = "placement:resource_providers:update" => BOOK;
        Delete = "placement:resource_providers:delete" => BOOK;
        InventoriesList = "placement:resource_providers:inventories:list" => BOOK;
        InventoriesShow = "placement:resource_providers:inventories:show" => BOOK;
        InventoriesCreate = "placement:resource_providers:inventories:create" => BOOK;
        InventoriesUpdate = "placement:resource_providers:inventories:update" => BOOK;
        InventoriesDelete = "placement:resource_providers:inventories:delete" => BOOK;
        Usages = "placement:resource_providers:usages" => BOOK;
        ProviderAllocations = "placement:resource_providers:allocations:list" => BOOK;
        AggregatesList = "placement:resource_providers:aggregates:list" => BOOK;
        AggregatesUpdate = "placement:resource_providers:aggregates:update" => BOOK;
        ProviderTraitsList = "placement:resource_providers:traits:list" => BOOK;
        ProviderTraitsUpdate = "placement:resource_providers:traits:update" => BOOK;
        ProviderTraitsDelete = "placement:resource_providers:traits:delete" => BOOK;
        AllocationsList = "placement:allocations:list" => BOOK;
        AllocationsUpdate = "placement:allocations:update" => BOOK;
        AllocationsDelete = "placement:allocations:delete" => BOOK;
        AllocationsManage = "placement:allocations:manage" => BOOK;
        Reshape = "placement:reshaper:reshape" => "role:service and not system_scope:all";
        Candidates = "placement:allocation_candidates:list" => BOOK;
        ProjectUsages = "placement:usages" => "(role:admin or role:service or (role:reader and project_id:%(project_id)s)) and not system_scope:all";
    }
}
