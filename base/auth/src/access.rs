//! Look-up and permission in one call.

use crate::Ctx;
use haneul_core::{Error, Result};
use haneul_store::{CreateGrant, Grant, Query, Resource, Stored, Tx};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Deref;

/// What a rule is checked against.
#[derive(Clone, Debug, Default)]
pub struct Target {
    pub project_id: Option<String>,
    pub user_id: Option<String>,
    pub domain_id: Option<String>,
    /// Any other name, e.g. `target.role.name`.
    pub more: BTreeMap<String, String>,
}

impl Target {
    /// Something of a project.
    pub fn project(id: &str) -> Self {
        Self {
            project_id: Some(id.to_owned()),
            ..Self::default()
        }
    }
    /// Something that the caller makes in its own project.
    pub fn own(ctx: &Ctx) -> Self {
        Self {
            project_id: Some(ctx.project_id().to_owned()),
            user_id: Some(ctx.user_id.clone()),
            ..Self::default()
        }
    }
    /// Something of a user.
    pub fn user(id: &str) -> Self {
        Self {
            user_id: Some(id.to_owned()),
            ..Self::default()
        }
    }
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.more.insert(name.to_owned(), value.to_owned());
        self
    }
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        match name {
            "project_id" | "tenant_id" => self.project_id.as_deref(),
            "user_id" => self.user_id.as_deref(),
            "domain_id" => self.domain_id.as_deref(),
            other => self.more.get(other).map(String::as_str),
        }
    }
}

/// A resource that permissions apply to.
pub trait Secured: Resource {
    /// True: who may not see it gets "not found" (compute, image, network, volume). False: "forbidden"
    /// (identity, placement).
    const HIDDEN: bool = true;
    /// What rules are checked against.
    fn target(&self) -> Target {
        Target {
            project_id: self.project_id().map(str::to_owned),
            ..Target::default()
        }
    }
    /// Whether the caller may know that it exists.
    fn visible(&self, ctx: &Ctx) -> bool {
        ctx.is_admin() || self.project_id().is_none_or(|p| p == ctx.project_id())
    }
    /// The service's "not found" for this id. The same text whether it exists or not.
    fn not_found(id: &str) -> Error {
        Error::not_found(format!("{} {id} could not be found.", Self::KIND))
    }
}

/// Something that can be done to an `On`: one unit struct per action.
pub trait Action: Send + Sync + 'static {
    type On: Secured;
    const RULE: &'static str;
}

/// A resource that was looked up and may be acted on by `A`. Only this module makes one.
pub struct Authorized<T, A> {
    stored: Stored<T>,
    action: PhantomData<fn() -> A>,
}

impl<T, A> Deref for Authorized<T, A> {
    type Target = Stored<T>;
    fn deref(&self) -> &Stored<T> {
        &self.stored
    }
}

impl<T: Resource, A> Grant<T> for Authorized<T, A> {
    fn stored(&self) -> &Stored<T> {
        &self.stored
    }
}

impl<T: Clone, A> Authorized<T, A> {
    /// The value, to be changed and given to `tx.update`.
    pub fn edit(&self) -> T {
        self.stored.value.clone()
    }
}

/// Permission to create a `T`.
pub struct Created<T>(PhantomData<fn() -> T>);
impl<T: Resource> CreateGrant<T> for Created<T> {}

pub(crate) fn refused(rule: &str) -> Error {
    Error::forbidden(format!("Policy doesn't allow {rule} to be performed.")).with_code("PolicyNotAuthorized")
}

/// Looks `id` up and checks that the caller may do `A` to it. Call it inside the transaction that acts.
pub async fn fetch<A: Action>(tx: &mut Tx, ctx: &Ctx, action: A, id: &str) -> Result<Authorized<A::On, A>> {
    match tx.find::<A::On>(id).await? {
        Some(stored) => authorize(ctx, action, stored, id),
        None if !A::On::HIDDEN && !ctx.may(A::RULE, &Target::default()) => Err(refused(A::RULE)),
        None => Err(A::On::not_found(id)),
    }
}

/// As [`fetch`], for a resource that was found by another key than its id. `asked` is what the caller named.
pub fn authorize<A: Action>(ctx: &Ctx, _action: A, stored: Stored<A::On>, asked: &str) -> Result<Authorized<A::On, A>> {
    if A::On::HIDDEN && !stored.value.visible(ctx) {
        return Err(A::On::not_found(asked));
    }
    if !ctx.may(A::RULE, &stored.value.target()) {
        return Err(refused(A::RULE));
    }
    Ok(Authorized {
        stored,
        action: PhantomData,
    })
}

/// Checks that the caller may create an `A::On` with this target (the parent project, domain or user).
pub fn allow_create<A: Action>(ctx: &Ctx, _action: A, target: &Target) -> Result<Created<A::On>> {
    ctx.enforce(A::RULE, target)?;
    Ok(Created(PhantomData))
}

/// What a list may show; becomes the WHERE.
pub struct Scope<A> {
    /// `None`: everything.
    pub project_id: Option<String>,
    action: PhantomData<fn() -> A>,
}

impl<A> Scope<A> {
    /// Narrows a query to what may be shown.
    pub fn apply(&self, query: Query) -> Query {
        match &self.project_id {
            Some(p) => query.eq("project_id", p.as_str()),
            None => query,
        }
    }
}

/// The scope of a list: the caller's project, or everything when `all` is asked for and `all_rule` holds.
pub fn scope<A: Action>(ctx: &Ctx, _action: A, all: bool, all_rule: &str) -> Result<Scope<A>> {
    ctx.enforce(A::RULE, &Target::own(ctx))?;
    let project_id = if all {
        ctx.enforce(all_rule, &Target::own(ctx))?;
        None
    } else {
        Some(ctx.project_id().to_owned())
    };
    Ok(Scope {
        project_id,
        action: PhantomData,
    })
}

/// Declares actions: `actions! { Server { Show = "os_compute_api:servers:show" => PERSONA; ... } }` makes a
/// unit struct for each, and `RULES` with the defaults.
#[macro_export]
macro_rules! actions {
    ($($on:ty { $($name:ident = $rule:literal => $default:expr;)* })*) => {
        $($(
            #[doc = concat!("Rule `", $rule, "`.")]
            #[derive(Clone, Copy, Debug)]
            pub struct $name;
            impl $crate::Action for $name {
                type On = $on;
                const RULE: &'static str = $rule;
            }
        )*)*
        /// Rules of these actions with their defaults.
        pub const RULES: &[$crate::RuleDefault] = &[
            $($($crate::RuleDefault { name: $rule, check: $default },)*)*
        ];
    };
}
