//! The configuration of a gateway, and its builder.

use std::sync::Arc;

use crate::access_log::AccessLog;
use crate::failure::Statuses;
use crate::group::Group;
use crate::limits::Limits;
use crate::networks::IpNetwork;
use crate::route::{Route, Router};

/// The error of an invalid configuration of a gateway.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A limit is invalid.
    #[error("option {option}: {reason}")]
    Limit {
        /// The option of [`Limits`].
        option: &'static str,
        /// The reason why it is invalid.
        reason: String,
    },
    /// A group is invalid.
    #[error("group `{group}`: {reason}")]
    Group {
        /// The name of the group.
        group: String,
        /// The reason why it is invalid.
        reason: String,
    },
    /// A route names a group that does not exist.
    #[error("a route names the group `{group}`, which does not exist")]
    UnknownGroup {
        /// The name of the group.
        group: String,
    },
}

/// The configuration of a gateway, which has passed the checks.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) router: Router,
    pub(crate) groups: Vec<(Arc<str>, Group)>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) trusted: Vec<IpNetwork>,
    pub(crate) adds_forwarded: bool,
    pub(crate) statuses: Statuses,
    pub(crate) access_log: Option<AccessLog>,
}

/// The configuration of a gateway before it is built.
#[derive(Clone, Debug, Default)]
pub struct GatewayBuilder {
    groups: Vec<(Arc<str>, Group)>,
    routes: Vec<Route>,
    limits: Limits,
    trusted: Vec<IpNetwork>,
    adds_forwarded: bool,
    statuses: Statuses,
    access_log: Option<AccessLog>,
}

impl GatewayBuilder {
    /// Adds a group of backends. Replaces another group of the same name.
    #[must_use]
    pub fn group(mut self, name: impl Into<Arc<str>>, group: Group) -> Self {
        let name = name.into();
        self.groups.retain(|(other, _)| *other != name);
        self.groups.push((name, group));
        self
    }

    /// Adds a route. [`Route`] describes the order.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Trusts `X-Forwarded-*`, `X-Real-IP` and `Forwarded` from clients in this network. Default:
    /// from no client; these headers are then removed.
    #[must_use]
    pub fn trust(mut self, network: IpNetwork) -> Self {
        self.trusted.push(network);
        self
    }

    /// Sends `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host` to backends. Default:
    /// no, as in Go's adapter.
    #[must_use]
    pub fn add_forwarded(mut self, adds: bool) -> Self {
        self.adds_forwarded = adds;
        self
    }

    /// Sets the statuses of replies that do not come from a backend. Default: [`Statuses::Http`].
    #[must_use]
    pub fn statuses(mut self, statuses: Statuses) -> Self {
        self.statuses = statuses;
        self
    }

    /// Writes a line for each request. Default: no log.
    #[must_use]
    pub fn access_log(mut self, log: AccessLog) -> Self {
        self.access_log = Some(log);
        self
    }

    /// Returns the configuration, or the first setting that cannot work.
    pub(crate) fn checked(self) -> Result<Config, BuildError> {
        if let Err((option, reason)) = self.limits.check() {
            return Err(BuildError::Limit { option, reason });
        }
        for (name, group) in &self.groups {
            group.check().map_err(|reason| BuildError::Group {
                group: name.to_string(),
                reason,
            })?;
        }
        let exists = |name: &str| self.groups.iter().any(|(group, _)| **group == *name);
        let mut named = self.routes.iter().filter_map(Route::names);
        if let Some(unknown) = named.find(|name| !exists(name)) {
            return Err(BuildError::UnknownGroup {
                group: unknown.to_owned(),
            });
        }
        Ok(Config {
            router: Router::new(&self.routes),
            groups: self.groups,
            limits: Arc::new(self.limits),
            trusted: self.trusted,
            adds_forwarded: self.adds_forwarded,
            statuses: self.statuses,
            access_log: self.access_log,
        })
    }
}
