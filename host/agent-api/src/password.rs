//! The password that a guest posts to the metadata service, encrypted by it for its owner's key (Nova admin guide
//! "Metadata service"; nova/api/metadata/password.py).

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// Longest password, bytes: Nova keeps four pieces of 255.
pub const MAX_PASSWORD: usize = 4 * 255;

/// A password that a guest has posted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostedPassword {
    pub guest: Uuid,
    /// [`crate::Guest::password_clears`] at that time.
    pub clears: u64,
    pub password: String,
}

// By hand: it goes into no log.
impl fmt::Debug for PostedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostedPassword")
            .field("guest", &self.guest)
            .field("clears", &self.clears)
            .finish_non_exhaustive()
    }
}
