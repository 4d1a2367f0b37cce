//! Glance's policy rules (glance/policies/image.py documents them): one action per rule, with the
//! defaults of the standard personas. What a project may *see* is not here but in
//! [`crate::model::Image`]'s `visible`; the rules say what it may do with what it sees.

use crate::model::{Image, Member};

/// Readers of the owner, of a project it is shared with, and of everybody where it is public.
const GET: &str = "role:admin or (role:reader and (project_id:%(project_id)s or project_id:%(member_id)s \
                   or 'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s))";
/// The same for members, who may also fetch the bytes.
const DOWNLOAD: &str = "role:admin or (role:member and (project_id:%(project_id)s or project_id:%(member_id)s \
                        or 'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s))";
const OWNER: &str = haneul_auth::persona::PROJECT_MEMBER_OR_ADMIN;
const OWNER_READER: &str = haneul_auth::persona::PROJECT_READER_OR_ADMIN;
const ADMIN: &str = haneul_auth::persona::ADMIN;
/// Reading memberships: the owner's readers, and those of the project that it is shared with.
const SHARED_READER: &str = "role:admin or (role:reader and (project_id:%(project_id)s or project_id:%(member_id)s))";
/// Accepting or rejecting: only the project that it is shared with.
const SHARED_MEMBER: &str = "role:admin or (role:member and project_id:%(member_id)s)";

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
    }
    Member {
        AddMember = "add_member" => OWNER;
        GetMember = "get_member" => SHARED_READER;
        ModifyMember = "modify_member" => SHARED_MEMBER;
        DeleteMember = "delete_member" => OWNER;
    }
}
