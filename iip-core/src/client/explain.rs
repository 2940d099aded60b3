//! The state of a client and its backends, for people and tools.

use std::fmt;
use std::sync::Arc;

use super::balanced::Balanced;
use super::subchannel::Subchannel;
use crate::balance::{BackendExplanation, BackendState};
use crate::discover::DiscoverError;
use crate::printable::Printable;

/// The state of a client and its backends, see [`Client::explain`](crate::Client::explain).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The address of the client, or the source of its backends.
    pub target: String,
    /// The revision of the last snapshot in words of the source; `None` before the first.
    pub revision: Option<String>,
    /// The error of the source, if it has failed since the last snapshot.
    pub error: Option<DiscoverError>,
    /// The backends, in the order of the source. A client with a single address has none.
    pub backends: Vec<BackendExplanation>,
    /// `true` if a connection is up.
    pub connected: bool,
}

impl Explanation {
    pub(super) fn single(subchannel: &Arc<Subchannel>) -> Self {
        Self {
            target: subchannel.connector.describe(),
            revision: None,
            error: None,
            backends: Vec::new(),
            connected: subchannel.pool.is_connected(),
        }
    }

    pub(super) fn balanced(balanced: &Balanced) -> Self {
        let (backends, discovery) = balanced.explain();
        let usable = |backend: &BackendExplanation| {
            matches!(backend.state, BackendState::Ready | BackendState::SlowStart)
        };
        Self {
            target: balanced.source.describe(),
            revision: discovery.revision,
            error: discovery.error,
            connected: backends.iter().any(usable),
            backends,
        }
    }
}

/// Displays the source and, in a line each, the backends with their states.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.target)?;
        match &self.revision {
            Some(revision) if !revision.is_empty() => {
                write!(f, ", revision {}", Printable(revision))?;
            }
            _ => {}
        }
        if let Some(error) = &self.error {
            write!(f, ", discovery failed: {}", Printable(&error.to_string()))?;
        }
        for backend in &self.backends {
            write!(f, "\n  {backend}")?;
        }
        Ok(())
    }
}
