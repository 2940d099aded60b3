//! The methods of the backends, from their own descriptions.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use iip_rpc::schema::openapi::{OpenApi, http_path};
use iip_rpc::schema::{Description, Method, ServerDescription, Types};
use iip_rpc::{Client, Status};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::options::{JsonInt64, TypedOptions};
use crate::failure::Failure;
use crate::page::describe;

/// Minimum time between two requests for descriptions.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Timeout of a request for descriptions. Requests of clients wait for it.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum number of builds that are kept. Backends may have several builds during an update.
const MAX_BUILDS: usize = 4;

/// Maximum number of nodes of the OpenAPI document, whose size backends determine.
const MAX_NODES: usize = 20_000;

/// The methods of the backends, by their HTTP paths.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    /// The build that was described last is at the front.
    known: Mutex<VecDeque<Arc<Build>>>,
    /// The last request for descriptions. Other requests that need it wait for the running one.
    asked: tokio::sync::Mutex<Option<Asked>>,
    /// Set if the backend is the server of this process, which does not change.
    is_local: bool,
}

#[derive(Debug)]
struct Asked {
    at: Instant,
    failure: Option<Status>,
}

/// A build of the backends.
#[derive(Debug)]
pub(super) struct Build {
    described: ServerDescription,
    /// The indices of service and method for each HTTP path.
    paths: HashMap<String, (usize, usize)>,
    openapi: OnceLock<Bytes>,
    description: OnceLock<Bytes>,
}

/// A method of a build.
#[derive(Clone, Debug)]
pub(super) struct Found {
    build: Arc<Build>,
    place: (usize, usize),
}

impl Catalog {
    /// Creates the catalog of the server of this process, which never changes.
    pub(crate) fn local(described: ServerDescription) -> Self {
        Self {
            known: Mutex::new(VecDeque::from([Arc::new(Build::new(described))])),
            is_local: true,
            ..Self::default()
        }
    }

    pub(super) fn is_local(&self) -> bool {
        self.is_local
    }

    /// Finds the method at an HTTP path. Asks the backends for descriptions if their build or the
    /// path is not known, at most once per second.
    pub(super) async fn find(&self, client: &Client, path: &str) -> Result<Option<Found>, Failure> {
        self.follow(client).await?;
        if let Some(found) = self.lookup(path) {
            return Ok(Some(found));
        }
        // Backends that announce their build were asked already.
        if !self.is_local && client.announced_build().is_none() {
            self.ask(client).await?;
        }
        Ok(self.lookup(path))
    }

    /// Returns the build that was described last.
    pub(super) async fn latest(&self, client: &Client) -> Result<Arc<Build>, Failure> {
        self.follow(client).await?;
        let latest = self.known().front().cloned();
        latest.ok_or_else(|| Failure::of_status(&Status::unavailable("no build is described")))
    }

    /// Asks the backends for descriptions if there are none, or if an unknown build has appeared.
    async fn follow(&self, client: &Client) -> Result<(), Failure> {
        if self.is_local {
            return Ok(());
        }
        let build = client.announced_build();
        let is_known = {
            let known = self.known();
            match &build {
                None => !known.is_empty(),
                build => known.iter().any(|known| known.described.build == *build),
            }
        };
        match is_known {
            true => Ok(()),
            false => self.ask(client).await,
        }
    }

    /// Asks the backends for descriptions, unless they were asked within the last second.
    ///
    /// # Errors
    ///
    /// The request has failed, and there are no earlier descriptions.
    async fn ask(&self, client: &Client) -> Result<(), Failure> {
        let mut asked = self.asked.lock().await;
        let is_due = asked
            .as_ref()
            .is_none_or(|asked| asked.at.elapsed() >= ASK_AGAIN);
        if is_due {
            let described = timeout(ASK_TIMEOUT, client.describe()).await;
            let described = described.unwrap_or_else(|_| {
                let text = "the backends did not describe their services in time";
                Err(Status::deadline_exceeded(text))
            });
            let at = Instant::now();
            let failure = described.map(|described| self.add(described)).err();
            *asked = Some(Asked { at, failure });
        }
        match asked.as_ref().and_then(|asked| asked.failure.as_ref()) {
            Some(status) if self.known().is_empty() => {
                let mut failure = Failure::of_status(status);
                failure.detail = "the backends do not describe their services".into();
                failure.status = hyper::StatusCode::SERVICE_UNAVAILABLE;
                failure.code = "UNAVAILABLE";
                Err(failure)
            }
            _ => Ok(()),
        }
    }

    fn add(&self, described: ServerDescription) {
        let mut known = self.known();
        let place = known.iter().position(|known| known.described == described);
        let build = place.and_then(|place| known.remove(place));
        known.push_front(build.unwrap_or_else(|| Arc::new(Build::new(described))));
        known.truncate(MAX_BUILDS);
    }

    fn lookup(&self, path: &str) -> Option<Found> {
        self.known().iter().find_map(|build| {
            let place = *build.paths.get(path)?;
            let build = Arc::clone(build);
            Some(Found { build, place })
        })
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<Arc<Build>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Build {
    fn new(described: ServerDescription) -> Self {
        let mut paths = HashMap::new();
        let each = || {
            let services = described.services.iter().enumerate();
            services.flat_map(|(at, service)| {
                let methods = service.methods.iter().enumerate();
                methods.map(move |(place, method)| ((at, place), service, method))
            })
        };
        for (place, service, method) in each() {
            if let Some(path) = http_path(service, method) {
                paths.entry(path).or_insert(place);
            }
        }
        // Custom paths come second: they must not hide the default path of another method.
        for (place, _, method) in each() {
            paths.entry(method.path.clone()).or_insert(place);
        }
        Self {
            described,
            paths,
            openapi: OnceLock::new(),
            description: OnceLock::new(),
        }
    }

    /// Returns the OpenAPI document.
    pub(super) fn openapi(&self, options: &TypedOptions) -> Bytes {
        let made = self.openapi.get_or_init(|| {
            let mut document = OpenApi::new(&options.title, self.version())
                .int64_as_text(options.json_int64 == JsonInt64::String)
                .max_nodes(MAX_NODES);
            if !options.prefix.is_empty() {
                document = document.server(&options.prefix);
            }
            for service in &self.described.services {
                document = document.service(service);
            }
            document.build().to_string().into()
        });
        made.clone()
    }

    /// Returns the descriptions of all services, as JSON.
    pub(super) fn description(&self) -> Bytes {
        let made = self.description.get_or_init(|| {
            let services: Vec<Value> = self.described.services.iter().map(describe).collect();
            let document = json!({"build": self.described.build, "services": services});
            document.to_string().into()
        });
        made.clone()
    }

    fn version(&self) -> &str {
        self.described.build.as_deref().unwrap_or("unknown")
    }
}

impl Found {
    pub(super) fn service(&self) -> &Description {
        // The indices are those of this build.
        &self.build.described.services[self.place.0]
    }

    pub(super) fn method(&self) -> &Method {
        &self.service().methods[self.place.1]
    }

    pub(super) fn types(&self) -> &Types {
        &self.service().types
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(build: &str, methods: &[(&str, &str)]) -> ServerDescription {
        let mut service = Description::new("shop.Orders");
        let methods = methods.iter().map(|(name, path)| Method::new(*name, *path));
        service.methods = methods.collect();
        let mut described = ServerDescription::default();
        described.build = Some(build.to_owned());
        described.services = vec![service];
        described
    }

    fn name(catalog: &Catalog, path: &str) -> Option<String> {
        let found = catalog.lookup(path)?;
        Some(found.method().name.clone())
    }

    #[test]
    fn methods_have_a_regular_path_and_their_own() {
        let catalog = Catalog::default();
        let methods = [("find", "/echo"), ("echo", "/shop.Orders/find")];
        catalog.add(described("a", &methods));
        assert_eq!(name(&catalog, "/shop.Orders/find").as_deref(), Some("find"));
        assert_eq!(name(&catalog, "/echo").as_deref(), Some("find"));
        assert_eq!(name(&catalog, "/shop.Orders/echo").as_deref(), Some("echo"));
        assert_eq!(name(&catalog, "/find"), None);
    }

    #[test]
    fn methods_of_an_earlier_build_stay_known_while_backends_are_updated() {
        let catalog = Catalog::default();
        catalog.add(described("old", &[("find", "/f"), ("gone", "/g")]));
        catalog.add(described("new", &[("find", "/f"), ("added", "/a")]));
        for path in ["/f", "/g", "/a"] {
            assert!(name(&catalog, path).is_some(), "{path}");
        }
        for build in 0..MAX_BUILDS {
            catalog.add(described(&build.to_string(), &[("find", "/f")]));
        }
        assert_eq!(name(&catalog, "/g"), None);
        assert_eq!(catalog.known().len(), MAX_BUILDS);
    }
}
