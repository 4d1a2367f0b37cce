//! Glance's policy rules (glance/policies/image.py, metadef.py and tasks.py document them): one action per rule, with the
//! defaults of the standard personas. What a project may *see* is not here but in
//! [`crate::model::Image`]'s `visible`; the rules say what it may do with what it sees.

use crate::model::{Association, Image, Member, Namespace, Object, Property, ResourceType, Tag, Task};

/// Readers of the owner, of a project it is shared with, and of everybody where it is public.
const GET: &str = "role:admin or (role:reader and (project_id:%(project_id)s or project_id:%(member_id)s \
                   or 'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s))";
/// The same for members, who may also fetch the bytes.
const DOWNLOAD: &str = "role:admin or (role:member and (project_id:%(project_id)s or project_id:%(member_id)s \
                        or 'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s))";
const OWNER: &str = haneul_auth::persona::PROJECT_MEMBER_OR_ADMIN;
const OWNER_READER: &str = haneul_auth::persona::PROJECT_READER_OR_ADMIN;
const ADMIN: &str = haneul_auth::persona::ADMIN;
/// Nova and Cinder, who know what a store's addresses mean.
const SERVICE: &str = "role:service";
const SERVICE_OR_MEMBER: &str = "role:service or (role:member and project_id:%(project_id)s)";
const ADMIN_OR_SERVICE: &str = "role:admin or role:service";
/// Reading memberships: the owner's readers, and those of the project that it is shared with.
const SHARED_READER: &str = "role:admin or (role:reader and (project_id:%(project_id)s or project_id:%(member_id)s))";
/// Accepting or rejecting: only the project that it is shared with.
const SHARED_MEMBER: &str = "role:admin or (role:member and project_id:%(member_id)s)";

/// What is in a namespace: readers of its owner, and everybody where it is public.
const NAMESPACE: &str = "role:admin or (role:reader and (project_id:%(project_id)s or 'public':%(visibility)s))";
/// Changing definitions has one switch for all, which an operator may turn at once.
const METADEF: &str = "rule:metadef_admin";

haneul_auth::actions! {
    Image {
        AddImage = "add_image" => OWNER;
        DeleteImage = "delete_image" => OWNER;
        GetImage = "get_image" => GET;
        GetImages = "get_images" => OWNER_READER;
        ModifyImage = "modify_image" => OWNER;
        PublicizeImage = "publicize_image" => ADMIN;
        CommunitizeImage = "communitize_image" => OWNER;
        DownloadImage = "download_image" => DOWNLOAD;
        UploadImage = "upload_image" => OWNER;
        Deactivate = "deactivate" => OWNER;
        Reactivate = "reactivate" => OWNER;
        GetMembers = "get_members" => SHARED_READER;
        CopyImage = "copy_image" => ADMIN;
        DeleteLocation = "delete_image_location" => ADMIN;
        GetLocation = "get_image_location" => OWNER_READER;
        AddLocation = "add_image_location" => SERVICE_OR_MEMBER;
        FetchLocation = "fetch_image_location" => SERVICE;
        StoresDetail = "stores_info_detail" => ADMIN_OR_SERVICE;
        ManageCache = "manage_image_cache" => ADMIN;
        CacheImage = "cache_image" => ADMIN;
        CacheList = "cache_list" => ADMIN;
        CacheDelete = "cache_delete" => ADMIN;
        CacheClean = "cache_clean" => ADMIN;
        CachePrune = "cache_prune" => ADMIN;
        CachedNodes = "list_cached_nodes" => ADMIN;
    }
    Member {
        AddMember = "add_member" => OWNER;
        GetMember = "get_member" => SHARED_READER;
        ModifyMember = "modify_member" => SHARED_MEMBER;
        DeleteMember = "delete_member" => OWNER;
    }
    Namespace {
        MetadefAdmin = "metadef_admin" => ADMIN;
        GetNamespace = "get_metadef_namespace" => NAMESPACE;
        GetNamespaces = "get_metadef_namespaces" => OWNER_READER;
        AddNamespace = "add_metadef_namespace" => METADEF;
        ModifyNamespace = "modify_metadef_namespace" => METADEF;
        DeleteNamespace = "delete_metadef_namespace" => METADEF;
    }
    Object {
        GetObject = "get_metadef_object" => NAMESPACE;
        GetObjects = "get_metadef_objects" => NAMESPACE;
        AddObject = "add_metadef_object" => METADEF;
        ModifyObject = "modify_metadef_object" => METADEF;
        DeleteObject = "delete_metadef_object" => METADEF;
    }
    Property {
        GetProperty = "get_metadef_property" => NAMESPACE;
        GetProperties = "get_metadef_properties" => NAMESPACE;
        AddProperty = "add_metadef_property" => METADEF;
        ModifyProperty = "modify_metadef_property" => METADEF;
        RemoveProperty = "remove_metadef_property" => METADEF;
    }
    Tag {
        GetTag = "get_metadef_tag" => NAMESPACE;
        GetTags = "get_metadef_tags" => NAMESPACE;
        AddTag = "add_metadef_tag" => METADEF;
        AddTags = "add_metadef_tags" => METADEF;
        ModifyTag = "modify_metadef_tag" => METADEF;
        DeleteTag = "delete_metadef_tag" => METADEF;
        DeleteTags = "delete_metadef_tags" => METADEF;
    }
    Association {
        GetResourceType = "get_metadef_resource_type" => NAMESPACE;
        AddAssociation = "add_metadef_resource_type_association" => METADEF;
        RemoveAssociation = "remove_metadef_resource_type_association" => METADEF;
    }
    ResourceType {
        ListResourceTypes = "list_metadef_resource_types" => NAMESPACE;
    }
    Task {
        TasksAccess = "tasks_api_access" => ADMIN;
    }
}

/// No route asks for it; the others name it.
const _: MetadefAdmin = MetadefAdmin;
