//! Choosing the backends of a call by code of the application.

use std::borrow::Cow;
use std::fmt;
use std::ptr;

use crate::path::{Query, label_and_query};

/// Code that chooses the backends of a call, for [`Policy::Choose`](super::Policy::Choose).
///
/// A closure is one by [`Policy::choose`](super::Policy::choose); a type that implements the trait
/// can also return names that it owns without a copy.
///
/// It is called for each attempt of a call, on the task of the call, and so must not block. A call
/// that has to wait for a connection is shown to it once more.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Arc;
/// use iip_core::balance::{BalanceOptions, CallView, Choice, Choose, Policy};
///
/// /// The groups of tenants.
/// struct Tenants(HashMap<String, String>);
///
/// impl Choose for Tenants {
///     fn choose<'a>(&'a self, call: &CallView<'a>) -> Choice<'a> {
///         match call.metadata("tenant").and_then(|tenant| self.0.get(tenant)) {
///             Some(group) => Choice::group(group),
///             None => Choice::reject("the tenant is not known"),
///         }
///     }
/// }
///
/// let tenants = Tenants(HashMap::from([("acme".into(), "large".into())]));
/// let options = BalanceOptions::new().policy(Policy::Choose(Arc::new(tenants)));
/// assert!(options.check().is_ok());
/// ```
pub trait Choose: Send + Sync {
    /// Returns the backends that the call may be sent to.
    fn choose<'a>(&'a self, call: &CallView<'a>) -> Choice<'a>;
}

impl<F> Choose for F
where
    F: for<'a> Fn(&CallView<'a>) -> Choice<'a> + Send + Sync,
{
    fn choose<'a>(&'a self, call: &CallView<'a>) -> Choice<'a> {
        self(call)
    }
}

/// Formats it as `Choose`: it is code.
impl fmt::Debug for dyn Choose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Choose")
    }
}

/// Two are equal if they are the same one.
impl PartialEq for dyn Choose {
    fn eq(&self, other: &Self) -> bool {
        ptr::addr_eq(self, other)
    }
}

impl Eq for dyn Choose {}

/// The metadata of a call, as far as a [`Choose`] asks for it.
pub trait CallMetadata: Sync {
    /// Returns the first value of a name as text; `None` if there is none, or it is not UTF-8.
    fn text(&self, name: &str) -> Option<&str>;
}

/// The parts of a call that a [`Choose`] can read. The arguments are not among them.
#[derive(Clone, Copy)]
pub struct CallView<'a> {
    path: &'a str,
    key: Option<&'a [u8]>,
    metadata: Option<&'a dyn CallMetadata>,
    random: u64,
}

impl<'a> CallView<'a> {
    /// Creates the view of a call of `path`, without a key and metadata.
    #[must_use]
    pub fn new(path: &'a str) -> Self {
        Self {
            path,
            key: None,
            metadata: None,
            random: 0,
        }
    }

    /// Sets the key.
    #[must_use]
    pub fn with_key(mut self, key: Option<&'a [u8]>) -> Self {
        self.key = key;
        self
    }

    /// Sets the metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Option<&'a dyn CallMetadata>) -> Self {
        self.metadata = metadata;
        self
    }

    /// Sets the random number.
    #[must_use]
    pub fn with_random(mut self, random: u64) -> Self {
        self.random = random;
        self
    }

    /// Returns the path with its query, as it is sent.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// Returns the decoded path without the query, under which a handler is registered, such as
    /// `/orders/list`. Bytes that are not UTF-8 become U+FFFD.
    #[must_use]
    pub fn method(&self) -> Cow<'a, str> {
        match label_and_query(self.path.as_bytes()).label {
            Cow::Borrowed(label) => String::from_utf8_lossy(label),
            Cow::Owned(label) => Cow::Owned(String::from_utf8_lossy(&label).into_owned()),
        }
    }

    /// Returns the parameters of the query. Typed calls have none.
    #[must_use]
    pub fn query(&self) -> Query<'a> {
        Query::new(label_and_query(self.path.as_bytes()).query)
    }

    /// Returns the first value of a query parameter.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<Cow<'a, str>> {
        self.query().get(name)
    }

    /// Returns the key of the call, which its options set.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// Returns the first value of a name in the metadata of the call; `None` if there is none, or
    /// it is not UTF-8. Raw calls have no metadata.
    #[must_use]
    pub fn metadata(&self, name: &str) -> Option<&'a str> {
        self.metadata?.text(name)
    }

    /// Returns a random number, which is another one for each call. All bits are random.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.random
    }
}

impl fmt::Debug for CallView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallView")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// The backends that a call may be sent to.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Choice<'a> {
    /// All backends.
    Any,
    /// The backend with this [id](super::BackendInfo::id).
    Backend(Cow<'a, str>),
    /// The backends whose [metadata](super::BackendInfo::metadata) has `group` with this value.
    Group(Cow<'a, str>),
    /// None: the call fits no backend, for this reason. The [`Fallback`] applies, as for a backend
    /// that is not known.
    NotFound(Cow<'a, str>),
    /// None: the call fails with this reason, whatever the [`Fallback`] is.
    Reject(Cow<'a, str>),
}

impl<'a> Choice<'a> {
    /// Chooses a backend by its id.
    pub fn backend(id: impl Into<Cow<'a, str>>) -> Self {
        Self::Backend(id.into())
    }

    /// Chooses the backends of a group.
    pub fn group(name: impl Into<Cow<'a, str>>) -> Self {
        Self::Group(name.into())
    }

    /// Chooses no backend, and leaves the call to the [`Fallback`].
    pub fn not_found(reason: impl Into<Cow<'a, str>>) -> Self {
        Self::NotFound(reason.into())
    }

    /// Rejects the call.
    pub fn reject(reason: impl Into<Cow<'a, str>>) -> Self {
        Self::Reject(reason.into())
    }
}

/// Displays why a call with this choice has no backend.
impl fmt::Display for Choice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("no backend takes calls"),
            Self::Backend(id) => write!(f, "no backend with the id {id:?} takes calls"),
            Self::Group(name) => write!(f, "no backend of the group {name:?} takes calls"),
            Self::NotFound(reason) | Self::Reject(reason) => f.write_str(reason),
        }
    }
}

/// The handling of a call if the backend or the group that was chosen is not known, is drained, or
/// has no usable backend.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub enum Fallback {
    /// The call fails without being sent if the choice is not known or drained, as in the Go
    /// client. Health is not asked: a backend that was ejected gets the call, and one without a
    /// connection is connected to.
    #[default]
    Fail,
    /// The call is sent to any backend. So is a call whose backend is not connected yet, was
    /// ejected, or has failed an attempt of this call.
    Any,
}
