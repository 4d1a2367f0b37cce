//! One error for the whole system. The public half says what was wrong and what would make it right;
//! the private half goes to the log only. base/http renders it in each service's own shape.

use std::fmt;

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of refusal or failure; base/http maps it to a status for each service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 400: the request is wrong.
    BadRequest,
    /// 401: who are you.
    Unauthorized,
    /// 403: you may not.
    Forbidden,
    /// 403 (Nova), 409 (Neutron), 413 (Glance): a quota would be passed.
    OverQuota,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 406: no such version or representation.
    NotAcceptable,
    /// 409: clashes with what is there, or the state does not allow it.
    Conflict,
    /// 410: gone; list again.
    Gone,
    /// 412.
    PreconditionFailed,
    /// 413: larger than the limit.
    TooLarge,
    /// 415.
    UnsupportedMediaType,
    /// 416.
    RangeNotSatisfiable,
    /// 422.
    Unprocessable,
    /// 429.
    TooManyRequests,
    /// 500: our fault.
    Internal,
    /// 501.
    NotImplemented,
    /// 503: try again later.
    Unavailable,
    /// 507: the disk is full.
    InsufficientStorage,
}

impl Kind {
    /// The plain HTTP status; services may render some kinds differently.
    pub fn status(self) -> u16 {
        match self {
            Kind::BadRequest => 400,
            Kind::Unauthorized => 401,
            Kind::Forbidden | Kind::OverQuota => 403,
            Kind::NotFound => 404,
            Kind::MethodNotAllowed => 405,
            Kind::NotAcceptable => 406,
            Kind::Conflict => 409,
            Kind::Gone => 410,
            Kind::PreconditionFailed => 412,
            Kind::TooLarge => 413,
            Kind::UnsupportedMediaType => 415,
            Kind::RangeNotSatisfiable => 416,
            Kind::Unprocessable => 422,
            Kind::TooManyRequests => 429,
            Kind::Internal => 500,
            Kind::NotImplemented => 501,
            Kind::Unavailable => 503,
            Kind::InsufficientStorage => 507,
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: Kind,
    public: String,
    private: String,
    /// The service's own name for it: Neutron's `type`, Placement's `code`.
    code: &'static str,
    /// The field that is wrong, as a path in the request.
    field: Option<String>,
    details: Option<serde_json::Value>,
    /// Whether repeating the whole write may succeed (serialization failures, lost guards).
    retry: bool,
}

impl Error {
    /// A new error with its public half.
    pub fn new(kind: Kind, public: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            public: public.into(),
            private: String::new(),
            code: "",
            field: None,
            details: None,
            retry: false,
        }))
    }
    pub fn bad_request(public: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, public)
    }
    /// A field is wrong: the message should name it and say what would be right.
    pub fn field(field: impl Into<String>, public: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, public).with_field(field)
    }
    pub fn not_found(public: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, public)
    }
    pub fn conflict(public: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, public)
    }
    pub fn forbidden(public: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, public)
    }
    pub fn unauthorized() -> Self {
        Self::new(Kind::Unauthorized, "The request you have made requires authentication.")
    }
    pub fn unavailable(public: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, public)
    }
    /// Our fault: the argument goes to the log, never to the user.
    pub fn internal(private: impl fmt::Display) -> Self {
        Self::new(
            Kind::Internal,
            "An unexpected error prevented the server from fulfilling your request. The log has the cause under the request id.",
        )
        .with_private(private)
    }
    /// The same refusal where another service speaks, which calls it by another status.
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }
    pub fn with_private(mut self, private: impl fmt::Display) -> Self {
        self.0.private = private.to_string();
        self
    }
    pub fn with_code(mut self, code: &'static str) -> Self {
        self.0.code = code;
        self
    }
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }
    /// Machine-readable numbers behind the message (public).
    pub fn with_details(mut self, details: serde_json::Value) -> Self {
        self.0.details = Some(details);
        self
    }
    /// Marks the error as one after which the same write may be repeated.
    pub fn retryable(mut self) -> Self {
        self.0.retry = true;
        self
    }
    pub fn kind(&self) -> Kind {
        self.0.kind
    }
    pub fn public(&self) -> &str {
        &self.0.public
    }
    pub fn private(&self) -> &str {
        &self.0.private
    }
    pub fn code(&self) -> &'static str {
        self.0.code
    }
    pub fn field_name(&self) -> Option<&str> {
        self.0.field.as_deref()
    }
    pub fn details(&self) -> Option<&serde_json::Value> {
        self.0.details.as_ref()
    }
    pub fn is_retryable(&self) -> bool {
        self.0.retry
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.public)?;
        if !self.0.private.is_empty() {
            write!(f, " [{}]", self.0.private)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        if e.kind() == std::io::ErrorKind::StorageFull {
            return Error::new(Kind::InsufficientStorage, "The disk of the cloud is full.").with_private(e);
        }
        Error::internal(e)
    }
}

impl From<serde_json::Error> for Error {
    fn from(e: serde_json::Error) -> Self {
        Error::internal(format!("json: {e}"))
    }
}
