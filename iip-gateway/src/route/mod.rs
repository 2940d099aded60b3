//! Routes: the choice of a target for each request, as in Go's HTTP adapter.

mod request;
mod rules;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use regex::Regex;

pub use self::request::{RouteRequest, Target};
use self::rules::RouteRules;

type Choose = dyn Fn(&RouteRequest<'_>) -> Option<Target> + Send + Sync;

#[derive(Clone)]
enum Matcher {
    All(Target),
    Pattern(Regex, Target),
    Rules(Arc<RouteRules>),
    Choose(Arc<Choose>),
}

/// A route: a condition on requests, and the target of those that meet it.
///
/// The routes of the host that a request names come before routes without a host. Among them, the
/// order of Go's HTTP adapter applies:
///
/// 1. Rules and functions, in the order in which they were added.
/// 2. Patterns whose leftmost match is the whole target, which is the path with the query.
/// 3. Patterns that match anywhere.
/// 4. Routes without a pattern.
///
/// ```
/// use iip_gateway::{Route, Target};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// Route::pattern("^/users/", "users")?.host("example.org");
/// Route::all("web");
/// Route::choose(|request| {
///     let target = Target::group(if request.method() == "GET" { "readers" } else { "writers" });
///     request.path().starts_with("/orders/").then_some(target)
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Route {
    host: Option<String>,
    matcher: Matcher,
}

/// The error of an invalid route.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The pattern is not a regular expression.
    #[error("the pattern is not a regular expression: {0}")]
    Pattern(String),
    /// The rules are malformed.
    #[error("{0}")]
    Rules(String),
}

impl Route {
    /// Routes every request to a group.
    #[must_use]
    pub fn all(group: impl Into<Arc<str>>) -> Self {
        Self::new(Matcher::All(Target::group(group)))
    }

    /// Routes requests whose target matches a regular expression to a group. The syntax is that of
    /// the crate `regex`, which differs little from that of Go. Matching takes time linear in the
    /// length of the target.
    ///
    /// # Errors
    ///
    /// Fails if the text is not a regular expression, or if the compiled expression needs more than
    /// 10 MiB.
    pub fn pattern(pattern: &str, group: impl Into<Arc<str>>) -> Result<Self, RouteError> {
        let pattern =
            Regex::new(pattern).map_err(|error| RouteError::Pattern(error.to_string()))?;
        Ok(Self::new(Matcher::Pattern(pattern, Target::group(group))))
    }

    /// Routes requests by rules in JSON, which assign the name of the group to `$iip_backend`. The
    /// group of rules is `route`; it reads `$host`, `$uri` and `$query.name`. `docs/rules.md` in
    /// the repository specifies the language.
    ///
    /// # Errors
    ///
    /// Fails if the text is not JSON, or its group `route` is missing or malformed. The error names
    /// the place as a JSON pointer.
    pub fn rules(text: &str) -> Result<Self, RouteError> {
        let rules =
            RouteRules::parse(text).map_err(|error| RouteError::Rules(error.to_string()))?;
        Ok(Self::new(Matcher::Rules(Arc::new(rules))))
    }

    /// Routes requests by a function; `None` leaves a request to other routes.
    ///
    /// The function runs in the task of the connection: it must not block.
    #[must_use]
    pub fn choose(
        choose: impl Fn(&RouteRequest<'_>) -> Option<Target> + Send + Sync + 'static,
    ) -> Self {
        Self::new(Matcher::Choose(Arc::new(choose)))
    }

    fn new(matcher: Matcher) -> Self {
        Self {
            host: None,
            matcher,
        }
    }

    /// Limits the route to requests to this host. Ports and case are ignored.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_ascii_lowercase());
        self
    }

    /// Returns the name of the group, if it is fixed.
    pub(crate) fn names(&self) -> Option<&str> {
        match &self.matcher {
            Matcher::All(Target::Proxy(name)) | Matcher::Pattern(_, Target::Proxy(name)) => {
                Some(name)
            }
            Matcher::Rules(_) | Matcher::Choose(_) => None,
        }
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Route");
        shown.field("host", &self.host);
        match &self.matcher {
            Matcher::All(target) => shown.field("target", target),
            Matcher::Pattern(pattern, target) => shown
                .field("pattern", &pattern.as_str())
                .field("target", target),
            Matcher::Rules(rules) => shown.field("rules", rules),
            Matcher::Choose(_) => &mut shown,
        };
        shown.finish_non_exhaustive()
    }
}

/// The routes of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Router {
    hosts: HashMap<String, Table>,
    any: Table,
}

/// The routes of one host.
#[derive(Debug, Default)]
struct Table {
    /// Rules and functions.
    choosers: Vec<Route>,
    patterns: Vec<(Regex, Target)>,
    all: Option<Target>,
}

impl Router {
    pub(crate) fn new(routes: &[Route]) -> Self {
        let mut router = Self::default();
        for route in routes {
            let table = match &route.host {
                Some(host) => router.hosts.entry(host.clone()).or_default(),
                None => &mut router.any,
            };
            match &route.matcher {
                Matcher::All(target) => {
                    table.all.get_or_insert_with(|| target.clone());
                }
                Matcher::Pattern(pattern, target) => {
                    table.patterns.push((pattern.clone(), target.clone()));
                }
                Matcher::Rules(_) | Matcher::Choose(_) => table.choosers.push(route.clone()),
            }
        }
        router
    }

    pub(crate) fn route(&self, request: &RouteRequest<'_>) -> Option<Target> {
        let own = self.hosts.get(request.host);
        let found = own.and_then(|table| table.route(request));
        found.or_else(|| self.any.route(request))
    }
}

impl Table {
    fn route(&self, request: &RouteRequest<'_>) -> Option<Target> {
        let chosen = self.choosers.iter().find_map(|route| match &route.matcher {
            Matcher::Rules(rules) => rules.choose(request),
            Matcher::Choose(choose) => choose(request),
            Matcher::All(_) | Matcher::Pattern(..) => None,
        });
        if chosen.is_some() {
            return chosen;
        }
        let target = request.target;
        let is_whole = |pattern: &Regex| {
            let found = pattern.find(target);
            found.is_some_and(|found| found.range() == (0..target.len()))
        };
        let whole = self.patterns.iter().find(|(pattern, _)| is_whole(pattern));
        let found = whole.or_else(|| {
            let mut patterns = self.patterns.iter();
            patterns.find(|(pattern, _)| pattern.is_match(target))
        });
        found
            .map(|(_, target)| target)
            .or(self.all.as_ref())
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use hyper::{HeaderMap, Method};

    use super::*;

    fn routed(routes: &[Route], host: &str, target: &str) -> Option<String> {
        let headers = HeaderMap::new();
        let request = RouteRequest {
            method: &Method::GET,
            host,
            target,
            headers: &headers,
        };
        let found = Router::new(routes).route(&request);
        found.map(|Target::Proxy(group)| group.to_string())
    }

    #[test]
    fn a_whole_match_comes_before_any_match_as_in_go() {
        let pattern = |pattern, group: &'static str| Route::pattern(pattern, group).unwrap();
        let routes = [
            Route::all("rest"),
            pattern("/a", "first"),
            // The leftmost match is shorter than the target, although another match covers all of
            // it.
            pattern("/a|/a/b", "shorter"),
            pattern("/a/.", "whole"),
            pattern("/x", "own").host("Own.example"),
        ];
        for (host, target, group) in [
            ("h", "/a/b", "whole"),
            ("h", "/a/bc", "first"),
            ("h", "/z/a", "first"),
            ("h", "/z", "rest"),
            ("h", "/x", "rest"),
            ("own.example", "/x", "own"),
            ("own.example", "/a/b", "whole"),
        ] {
            assert_eq!(
                routed(&routes, host, target).as_deref(),
                Some(group),
                "{host}{target}"
            );
        }
        assert_eq!(routed(&routes[1..], "h", "/z"), None);
    }

    #[test]
    fn functions_and_rules_come_first_and_may_leave_a_request_to_others() {
        let routes = [
            Route::pattern("^/", "pattern").unwrap(),
            Route::choose(|request| {
                (request.query() == Some("x=1")).then(|| Target::group("function"))
            }),
            Route::rules(
                r#"{"route": [
                    [["$query.x", "=", "2"], ["$iip_backend", "=", "rules-{{$host}}"]]
                ]}"#,
            )
            .unwrap(),
        ];
        for (target, group) in [
            ("/a?x=1", "function"),
            ("/a?x=2", "rules-h"),
            ("/a?x=3", "pattern"),
        ] {
            assert_eq!(
                routed(&routes, "h", target).as_deref(),
                Some(group),
                "{target}"
            );
        }
    }

    #[test]
    fn faulty_routes_name_their_fault() {
        let error = Route::pattern("(", "g").unwrap_err().to_string();
        assert!(error.contains("unclosed group"), "{error}");
        let error = Route::rules(r#"{"route": [[1]]}"#).unwrap_err().to_string();
        assert!(error.contains("/route/0"), "{error}");
    }
}
