//! Routes by the JSON rules of Go's HTTP gateway.

use std::sync::Arc;

use iip_core::__rpc::{local_time, random_id};
use iip_rules::{Context, Environment, Group, Query, RulesError};

use super::request::{RouteRequest, Target};

const GROUP: &str = "route";
const HOST: &str = "$host";
const URI: &str = "$uri";
const QUERY: &str = "$query";
const BACKEND: &str = "$iip_backend";

/// Rules that name the group of a request.
#[derive(Debug)]
pub(crate) struct RouteRules {
    environment: Environment,
    group: Group,
}

impl RouteRules {
    pub(crate) fn parse(text: &str) -> Result<Self, RulesError> {
        let environment = Environment::new()
            .variable(HOST)
            .variable(URI)
            .variable(BACKEND)
            .object(QUERY);
        let rules = environment.parse(text)?;
        let group = rules.group(GROUP)?.clone();
        if let Some(first) = rules.warnings().first() {
            let count = rules.warnings().len();
            tracing::warn!(count, %first, "rules of routes have parts without effect");
        }
        Ok(Self { environment, group })
    }

    /// Returns the target; `None` if the evaluation fails or yields an empty text.
    pub(crate) fn choose(&self, request: &RouteRequest<'_>) -> Option<Target> {
        let mut query = Query::parse(request.query().unwrap_or_default());
        let mut context = Context::new(&self.environment, local_time(), random_id());
        context.set(HOST, request.host()).ok()?;
        context.set(URI, request.target()).ok()?;
        context.set_object(QUERY, &mut query).ok()?;
        if let Err(error) = self.group.evaluate(&mut context) {
            tracing::debug!(%error, "the rules of routes failed for a request");
            return None;
        }
        context.get(BACKEND)?;
        let name: Arc<str> = context.text(BACKEND)?;
        (!name.is_empty()).then_some(Target::Proxy(name))
    }
}
