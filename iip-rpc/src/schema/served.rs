//! The descriptions of a server's services, on reserved paths.

use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;

use iip_core::{Places, ServerHandle};
use iip_schema::Description;
use serde::{Deserialize, Serialize};

use super::announced::Announced;
use crate::context::CallContext;
use crate::method::MethodDescriptor;
use crate::server::Methods;
use crate::status::{Execution, Status};

// In plain JSON, which every version of every peer can read: what describes services must not
// depend on whether both sides describe alike.
pub(crate) const LIST: &MethodDescriptor =
    &MethodDescriptor::new("Schema", "list", "/sys/schema/list", &[])
        .json()
        .idempotent();

pub(crate) const DESCRIBE: &MethodDescriptor =
    &MethodDescriptor::new("Schema", "describe", "/sys/schema/describe", &["service"])
        .json()
        .idempotent();

pub(crate) const FINGERPRINT: &MethodDescriptor = &MethodDescriptor::new(
    "Schema",
    "fingerprint",
    "/sys/schema/fingerprint",
    &["service"],
)
.json()
.idempotent();

/// A service of a server, as its list has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceSummary {
    /// The full name.
    pub service: String,
    /// The first line of its documentation; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub doc: String,
    /// The paths of its methods, in the order of the trait.
    #[serde(default)]
    pub paths: Vec<String>,
}

/// The services of a server, as it describes them. [`Client::describe`](crate::Client::describe)
/// returns it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ServerDescription {
    /// The text by which the build of the server is recognized, see
    /// [`Client::announced_build`](crate::Client::announced_build); `None` if it announces none.
    pub build: Option<String>,
    /// Its services, in the order of its list.
    pub services: Vec<Description>,
}

impl ServerDescription {
    /// Returns the descriptions of a server in the same process, whoever may read them: for handlers
    /// of other protocols ([`ServerBuilder::fallback_protocol`]). `None` if none of its services has
    /// a description, or the server is one of iip-core alone.
    ///
    /// [`ServerBuilder::fallback_protocol`]: crate::ServerBuilder::fallback_protocol
    #[must_use]
    pub fn of_server(server: &ServerHandle) -> Option<Self> {
        let served = server.extension::<Arc<Served>>()?;
        let services = served.services.iter();
        Some(Self {
            build: Some(served.announced().as_str().to_owned()),
            services: services.map(|(service, _)| service.clone()).collect(),
        })
    }
}

/// The callers that may read the descriptions of a server.
#[derive(Clone, Default)]
pub(crate) enum Access {
    #[default]
    Everyone,
    Nobody,
    If(Arc<Check>),
}

type Check = dyn Fn(&CallContext) -> Result<(), Status> + Send + Sync;

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Everyone => "Everyone",
            Self::Nobody => "Nobody",
            Self::If(_) => "If(..)",
        })
    }
}

/// The services of a server.
pub(crate) struct Served {
    services: Vec<(Description, Announced)>,
    access: Access,
}

impl Served {
    /// Describes the services of `methods`. `None` if none of them can be described.
    pub(crate) fn new(methods: &Methods, access: Access) -> Option<Arc<Self>> {
        let mut names: Vec<&str> = Vec::new();
        let mut services = Vec::new();
        for method in methods.descriptors() {
            let Some(describe) = method.description_fn() else {
                continue;
            };
            // Two services of one name are rejected elsewhere.
            if names.contains(&method.service()) {
                continue;
            }
            names.push(method.service());
            let description = describe();
            let announced = Announced::of_service(&description);
            services.push((description, announced));
        }
        (!services.is_empty()).then(|| Arc::new(Self { services, access }))
    }

    /// Returns `true` if no peer may read the descriptions.
    pub(crate) fn is_private(&self) -> bool {
        matches!(self.access, Access::Nobody)
    }

    /// Returns the fingerprint of all services, for the hello.
    pub(crate) fn announced(&self) -> Announced {
        Announced::of_services(self.services.iter().map(|(description, _)| description))
    }

    pub(crate) fn register(self: &Arc<Self>, methods: &mut Methods) {
        // They end at once, and calls of other methods wait for them.
        let places = Places::new("max_running_calls", usize::MAX);
        methods.counted_apart(places, |methods| {
            methods.unary(LIST, self, list);
            methods.unary(DESCRIBE, self, describe);
            methods.unary(FINGERPRINT, self, fingerprint);
        });
    }

    fn allow(&self, ctx: &CallContext) -> Result<(), Status> {
        match &self.access {
            Access::Everyone => Ok(()),
            Access::Nobody => Err(Status::permission_denied("nobody may read descriptions")),
            Access::If(check) => check(ctx),
        }
        .map_err(|status| status.with_execution(Execution::NotExecuted))
    }

    fn find(&self, service: &str) -> Result<&(Description, Announced), Status> {
        let mut services = self.services.iter();
        let found = services.find(|(description, _)| description.service == service);
        found.ok_or_else(|| Status::not_found(format!("no service is called {service:?}")))
    }
}

fn list(
    served: Arc<Served>,
    ctx: &CallContext,
    (): (),
) -> Ready<Result<Vec<ServiceSummary>, Status>> {
    ready(served.allow(ctx).map(|()| {
        let services = served.services.iter();
        let summary = |(description, _): &(Description, Announced)| ServiceSummary {
            service: description.service.clone(),
            doc: description
                .doc
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
            paths: description
                .methods
                .iter()
                .map(|method| method.path.clone())
                .collect(),
        };
        services.map(summary).collect()
    }))
}

fn describe(
    served: Arc<Served>,
    ctx: &CallContext,
    (service,): (String,),
) -> Ready<Result<Description, Status>> {
    ready(served.allow(ctx).and_then(|()| {
        let (description, _) = served.find(&service)?;
        Ok(description.clone())
    }))
}

fn fingerprint(
    served: Arc<Served>,
    _: &CallContext,
    (service,): (String,),
) -> Ready<Result<String, Status>> {
    let found = served.find(&service);
    ready(found.map(|(_, announced)| announced.as_str().to_owned()))
}
