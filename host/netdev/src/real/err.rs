//! How an error of the kernel or of a program becomes a [`Failure`].

use haneul_agent_api::{Failure, FailureCode};

/// A failure of the data plane: the public half says what, the detail says why.
pub fn failure(what: impl Into<String>, detail: impl ToString) -> Failure {
    Failure {
        code: FailureCode::NetworkError,
        message: what.into(),
        detail: detail.to_string(),
    }
}

/// Adds what was being done to an error.
pub trait Context<T> {
    /// `what` reads like "the bridge could not be made".
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: std::fmt::Display> Context<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        // The public half stays general: device names and errno are for administrators.
        self.map_err(|e| failure("the host could not set up its network", format!("{}: {e}", what())))
    }
}
