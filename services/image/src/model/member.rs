//! A project that a shared image is shared with (Glance API reference, "Sharing").

use haneul_auth::{Ctx, Secured, Target};
use haneul_core::Error;
use haneul_store::{Resource, V};
use serde::{Deserialize, Serialize};

/// Whether the project took the offer: only then is the image in its default list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberStatus {
    Pending,
    Accepted,
    Rejected,
}

impl MemberStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Accepted, Self::Rejected]
            .into_iter()
            .find(|s| s.as_str() == text)
    }
}

fn version() -> u32 {
    1
}

/// One membership. Its id is made of the image's and the project's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    #[serde(default = "version")]
    pub v: u32,
    pub id: String,
    pub image_id: String,
    pub member_id: String,
    /// The image's owner, so that its changes are in the owner's part of the log.
    pub owner: Option<String>,
    pub status: MemberStatus,
}

impl Member {
    pub fn key(image_id: &str, member_id: &str) -> String {
        format!("{image_id}/{member_id}")
    }

    pub fn new(image_id: &str, member_id: &str, owner: Option<String>) -> Self {
        Self {
            v: version(),
            id: Self::key(image_id, member_id),
            image_id: image_id.to_owned(),
            member_id: member_id.to_owned(),
            owner,
            status: MemberStatus::Pending,
        }
    }
}

impl Resource for Member {
    const KIND: &'static str = "image_member";
    const TABLE: &'static str = "image_member";
    const COLUMNS: &'static [&'static str] = &["image_id", "member_id", "status"];

    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> Option<&str> {
        self.owner.as_deref()
    }
    fn name(&self) -> &str {
        &self.member_id
    }
    fn columns(&self) -> Vec<V> {
        vec![
            self.image_id.as_str().into(),
            self.member_id.as_str().into(),
            self.status.as_str().into(),
        ]
    }
}

impl Secured for Member {
    fn target(&self) -> Target {
        Target {
            project_id: self.owner.clone(),
            ..Target::default()
        }
        .with("member_id", &self.member_id)
    }

    /// A project that an image is shared with does not learn of the others.
    fn visible(&self, ctx: &Ctx) -> bool {
        ctx.is_admin() || self.owner.as_deref() == Some(ctx.project_id()) || self.member_id == ctx.project_id()
    }

    fn not_found(id: &str) -> Error {
        let (image, member) = id.split_once('/').unwrap_or((id, ""));
        Error::not_found(format!("{member} not found in the member list of the image {image}."))
    }
}
