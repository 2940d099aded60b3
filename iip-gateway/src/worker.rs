//! The workers of a gateway: each serves in one runtime, with the current configuration and clients
//! of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;

use crate::builder::{BuildError, Config};
use crate::drain::Drain;
use crate::group::Backends;
use crate::places::Places;
use crate::request_body::Buffered;

/// The current configuration and clients of a worker.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) config: Arc<Config>,
    backends: HashMap<Arc<str>, Arc<Backends>>,
}

impl Live {
    /// Creates the clients for a worker, reusing those of `before` whose settings are unchanged.
    pub(crate) fn new(config: &Arc<Config>, before: Option<&Self>) -> Result<Self, BuildError> {
        let mut backends = HashMap::new();
        for (name, group) in &config.groups {
            let before = before.and_then(|before| before.backends.get(name));
            let made = Backends::new(group, before.map(Arc::as_ref));
            let made = made.map_err(|reason| BuildError::Group {
                group: name.to_string(),
                reason,
            })?;
            backends.insert(Arc::clone(name), Arc::new(made));
        }
        Ok(Self {
            config: Arc::clone(config),
            backends,
        })
    }

    pub(crate) fn backends(&self, group: &str) -> Option<&Arc<Backends>> {
        self.backends.get(group)
    }
}

/// The part of the gateway that serves in one runtime: it has its own clients, so that calls stay
/// on one core.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) live: ArcSwap<Live>,
    pub(crate) places: Arc<Places>,
    pub(crate) buffered: Arc<Buffered>,
    pub(crate) drain: Drain,
}

impl Worker {
    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }
}

/// The workers of a gateway that still serve. Locked while a configuration is replaced or a worker
/// added.
#[derive(Debug, Default)]
pub(crate) struct Workers(Mutex<Vec<Weak<Worker>>>);

impl Workers {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<Weak<Worker>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the clients of a group, one per worker.
    pub(crate) fn clients(&self, group: &str) -> Vec<iip_core::Client> {
        let workers = self.lock();
        let workers = workers.iter().filter_map(Weak::upgrade);
        let clients =
            workers.filter_map(|worker| Some(worker.live().backends(group)?.client().clone()));
        clients.collect()
    }
}
