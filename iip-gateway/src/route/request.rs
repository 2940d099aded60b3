//! The parts of a request that routes can read, and the target that they choose.

use std::sync::Arc;

use hyper::{HeaderMap, Method};

/// The target of a request.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Target {
    /// The backends of the group with this name, see [`Group`](crate::Group).
    Proxy(Arc<str>),
}

impl Target {
    /// Returns the target for a group of backends.
    #[must_use]
    pub fn group(name: impl Into<Arc<str>>) -> Self {
        Self::Proxy(name.into())
    }
}

/// The parts of a request that routes can read.
#[derive(Clone, Copy, Debug)]
pub struct RouteRequest<'a> {
    pub(crate) method: &'a Method,
    pub(crate) host: &'a str,
    pub(crate) target: &'a str,
    pub(crate) headers: &'a HeaderMap,
}

impl<'a> RouteRequest<'a> {
    /// Returns the method, such as `GET`.
    #[must_use]
    pub fn method(&self) -> &'a str {
        self.method.as_str()
    }

    /// Returns the host that the client named, in lower case and without a port. Empty if an
    /// HTTP/1.0 client named none.
    #[must_use]
    pub fn host(&self) -> &'a str {
        self.host
    }

    /// Returns the path and the query. The path is normalized: dot segments and unnecessary escapes
    /// are removed.
    #[must_use]
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// Returns the normalized path.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.target
            .split_once('?')
            .map_or(self.target, |(path, _)| path)
    }

    /// Returns the query, without the `?`.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// Returns the first value of a header; `None` if it is missing or has characters other than
    /// visible ASCII. The case of names is ignored.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name)?.to_str().ok()
    }
}
