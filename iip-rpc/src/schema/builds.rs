//! The builds of the servers of a client, with the findings about their services.
//!
//! A server announces a fingerprint of its services when it is connected to. If it is new to the
//! client, the first call of a service asks the server, compares, and keeps the finding for all
//! connections to servers of that build. While both sides agree, a call reads one word of its
//! connection more than it would without.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use iip_schema::Description;
use tokio::sync::OnceCell;

use super::announced::Announced;
use super::finding::Finding;

/// The function that describes a service. It also identifies the service.
pub(crate) type Describe = fn() -> Description;

/// The number of builds that a client remembers.
const MAX_BUILDS: usize = 16;

/// The builds of the servers of a client, with the findings about their services.
#[derive(Debug, Default)]
pub(crate) struct Builds {
    /// The one that was met last is at the front.
    known: Mutex<VecDeque<Arc<Build>>>,
    /// Calls that were made in another codec than the configured one.
    pub(crate) fallbacks: AtomicU64,
}

impl Builds {
    fn get(&self, announced: Announced) -> Arc<Build> {
        let mut known = lock(&self.known);
        let place = known.iter().position(|build| build.announced == announced);
        let build = place
            .and_then(|place| known.remove(place))
            .unwrap_or_else(|| Arc::new(Build::new(announced)));
        known.push_front(Arc::clone(&build));
        known.truncate(MAX_BUILDS);
        build
    }
}

/// A build of a server.
struct Build {
    announced: Announced,
    /// The findings for the services that the client has used.
    services: Mutex<Vec<(usize, Arc<OnceCell<Finding>>)>>,
}

impl Build {
    fn new(announced: Announced) -> Self {
        Self {
            announced,
            services: Mutex::default(),
        }
    }

    fn service(&self, describe: Describe) -> Arc<OnceCell<Finding>> {
        let mut services = lock(&self.services);
        let key = describe as usize;
        if let Some((_, finding)) = services.iter().find(|(service, _)| *service == key) {
            return Arc::clone(finding);
        }
        let finding = Arc::default();
        services.push((key, Arc::clone(&finding)));
        finding
    }
}

impl fmt::Debug for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Build")
            .field(&self.announced.as_str())
            .finish()
    }
}

/// The build of the server of a connection, which has announced a fingerprint.
#[derive(Debug)]
pub(crate) struct PeerBuild {
    pub(crate) announced: Announced,
    /// Services that need no further look: both sides agree, or nothing can be found out.
    settled: [AtomicUsize; 4],
    build: OnceLock<Arc<Build>>,
}

impl PeerBuild {
    pub(crate) fn new(announced: Announced) -> Self {
        Self {
            announced,
            settled: Default::default(),
            build: OnceLock::new(),
        }
    }

    #[inline]
    pub(crate) fn is_settled(&self, describe: Describe) -> bool {
        let key = describe as usize;
        let mut settled = self.settled.iter();
        settled.any(|service| service.load(Ordering::Relaxed) == key)
    }

    /// Notes that a service needs no further look. If there are more of them than places, some are
    /// looked up for each call.
    pub(crate) fn settle(&self, describe: Describe) {
        let key = describe as usize;
        for service in &self.settled {
            let settled = service.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed);
            if settled.is_ok() || settled == Err(key) {
                return;
            }
        }
    }

    fn build(&self, builds: &Builds) -> &Arc<Build> {
        self.build.get_or_init(|| builds.get(self.announced))
    }

    /// Returns the finding for a service; the cell is empty until it is known.
    pub(crate) fn finding(&self, describe: Describe, builds: &Builds) -> Arc<OnceCell<Finding>> {
        self.build(builds).service(describe)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
