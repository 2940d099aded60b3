//! Rules in JSON that choose the backends of calls, as in the Go client; with the feature `rules`.
//!
//! `docs/rules.md` of the repository specifies the language.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use iip_rules::{Context, Environment, Group, LocalTime, NotRegistered, Object, RequestUri, Value};

use crate::balance::{CallView, Choice, Choose};
use crate::clock;

pub use iip_rules::{Problem, RulesError};

/// The group that is evaluated.
const GROUP: &str = "LB_TARGET";
const SERVER: &str = "$LB_TARGET_SERVER";
const SERVERS: &str = "$LB_TARGET_GROUP";
const URI: &str = "$REQUEST_URI";
const METHOD: &str = "$method";
const METADATA: &str = "$metadata";

/// Rules that choose the backends of each call, for
/// [`Policy::Choose`](crate::balance::Policy::Choose). They can be replaced while calls are made.
///
/// The group `LB_TARGET` of the document is evaluated for each attempt of a call. Rules read and
/// assign:
///
/// | name | |
/// |---|---|
/// | `$LB_TARGET_SERVER` | assigned: the [id](crate::balance::BackendInfo::id) of the backend; of a list, a random member |
/// | `$LB_TARGET_GROUP` | assigned, without a server: the name of the [group](Choice::Group) |
/// | `$REQUEST_URI.__PATH__` | the decoded path |
/// | `$REQUEST_URI.name` | the first value of a query parameter, empty if it is missing |
/// | `$method` | the decoded path, which is the method of a typed call |
/// | `$metadata.name` | the first value in the metadata of a typed call, empty if it is missing or not UTF-8 |
///
/// The id of a backend takes the place of the alias in the Go client. `$LB_TARGET_GROUP`, `$method`
/// and `$metadata` do not exist there. Names in the metadata that contain a `.` cannot be read.
/// Variables of time have the time zone of the system.
///
/// As in Go, a call fails with the reason if its path is not a URI or an assignment fails,
/// and if nothing was assigned or the backend is not known, unless the
/// [fallback](crate::balance::BalanceOptions::fallback) is another one.
///
/// ```
/// use std::sync::Arc;
/// use iip_core::balance::{BalanceOptions, CallView, Choice, Choose, Policy};
/// use iip_core::rules::Rules;
///
/// let rules = Rules::parse(r#"{"LB_TARGET": [
///     [["$LB_TARGET_GROUP", "=", "stable"]],
///     [["$REQUEST_URI.__PATH__", "~*", "/users/"],
///         ["$LB_TARGET_SERVER", "=", "users-{{$REQUEST_URI.shard}}"]]
/// ]}"#)?;
/// let rules = Arc::new(rules);
/// let options = BalanceOptions::new().policy(Policy::Choose(rules.clone()));
///
/// let call = CallView::new("/users/list?shard=2");
/// assert_eq!(rules.choose(&call), Choice::backend("users-2"));
/// rules.replace(r#"{"LB_TARGET": [[["$LB_TARGET_SERVER", "=", "users-1"]]]}"#)?;
/// assert_eq!(rules.choose(&call), Choice::backend("users-1"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Rules {
    environment: Environment,
    loaded: ArcSwap<Loaded>,
}

struct Loaded {
    group: Group,
    warnings: Vec<Problem>,
}

impl Rules {
    /// Loads a document.
    ///
    /// # Errors
    ///
    /// Fails if the text is not one JSON object, or its group `LB_TARGET` is missing or malformed.
    /// The error names the place as a JSON pointer, such as `/LB_TARGET/2/0/1`.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        let environment = Environment::new()
            .variable(SERVER)
            .variable(SERVERS)
            .variable(METHOD)
            .object(URI)
            .object(METADATA);
        let loaded = Loaded::new(&environment, text)?;
        Ok(Self {
            environment,
            loaded: ArcSwap::from_pointee(loaded),
        })
    }

    /// Replaces the rules by those of another document. Calls that begin afterwards use them.
    ///
    /// # Errors
    ///
    /// See [`parse`](Self::parse). The rules stay as they are.
    pub fn replace(&self, text: &str) -> Result<(), RulesError> {
        let loaded = Loaded::new(&self.environment, text)?;
        self.loaded.store(Arc::new(loaded));
        Ok(())
    }

    /// Returns what was accepted although it has no effect, never holds or ends the evaluation,
    /// such as unknown operators and variables. They are logged when rules are loaded.
    #[must_use]
    pub fn warnings(&self) -> Vec<Problem> {
        self.loaded.load().warnings.clone()
    }

    fn choose_at<'a>(&self, call: &CallView<'a>, now: LocalTime) -> Choice<'a> {
        let mut uri = match RequestUri::parse(call.path()) {
            Ok(uri) => uri,
            Err(error) => return Choice::reject(error.to_string()),
        };
        let mut metadata = Metadata(*call);
        let mut context = Context::new(&self.environment, now, call.random());
        let filled = fill(&mut context, call, &mut uri, &mut metadata);
        if let Err(error) = filled {
            return Choice::reject(error.to_string());
        }
        if let Err(error) = self.loaded.load().group.evaluate(&mut context) {
            return Choice::reject(format!("rules: {error}"));
        }
        for (name, choice) in [
            (SERVER, Choice::Backend as fn(_) -> _),
            (SERVERS, Choice::Group),
        ] {
            if context.get(name).is_some() {
                return match context.text(name) {
                    Some(text) => choice(Cow::Owned(text.as_ref().to_owned())),
                    None => Choice::not_found(format!(
                        "the rules assigned a value that is not a text to {name}"
                    )),
                };
            }
        }
        Choice::not_found("no rule assigned $LB_TARGET_SERVER")
    }
}

impl Choose for Rules {
    fn choose<'a>(&'a self, call: &CallView<'a>) -> Choice<'a> {
        self.choose_at(call, clock::local_time())
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("group", &self.loaded.load().group)
            .finish_non_exhaustive()
    }
}

impl Loaded {
    fn new(environment: &Environment, text: &str) -> Result<Self, RulesError> {
        let rules = environment.parse(text)?;
        let group = rules.group(GROUP)?.clone();
        // Other groups have other variables, which are not known here.
        let place = format!("/{GROUP}");
        let ours = rules.warnings().iter().filter(|warning| {
            let rest = warning.place().strip_prefix(&place);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        let warnings: Vec<_> = ours.cloned().collect();
        if let Some(first) = warnings.first() {
            let count = warnings.len();
            tracing::warn!(count, %first, "rules have parts without effect");
        }
        Ok(Self { group, warnings })
    }
}

/// Sets what rules read.
fn fill<'c>(
    context: &mut Context<'c>,
    call: &CallView<'_>,
    uri: &'c mut RequestUri,
    metadata: &'c mut Metadata<'_>,
) -> Result<(), NotRegistered> {
    context.set(METHOD, &*call.method())?;
    context.set_object(URI, uri)?;
    context.set_object(METADATA, metadata)
}

/// The metadata of a call as an object that rules can read.
struct Metadata<'a>(CallView<'a>);

impl Object for Metadata<'_> {
    fn get(&self, property: &str) -> Value {
        Value::from(self.0.metadata(property).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(group: &str) -> Rules {
        Rules::parse(&format!(r#"{{"LB_TARGET": {group}}}"#)).expect("rules")
    }

    #[test]
    fn variables_of_time_have_the_time_of_the_evaluation() {
        let rules = rules(
            r#"[[["$LB_TARGET_SERVER", "=", "day"]],
                [["$stime", ">=", "22:00"], ["$LB_TARGET_SERVER", "=", "night-{{$iday}}"]]]"#,
        );
        let at = |seconds| {
            let now = LocalTime::from_unix(seconds, 0);
            rules.choose_at(&CallView::new("/a"), now)
        };
        assert_eq!(at(21 * 3600), Choice::backend("day"));
        assert_eq!(at(22 * 3600), Choice::backend("night-1"));
    }

    #[test]
    fn the_local_time_is_a_time_of_the_clock() {
        let time = clock::local_time();
        assert!(time.year >= 2024, "{time:?}");
        assert!((1..=12).contains(&time.month) && (1..=31).contains(&time.day));
    }

    #[test]
    fn a_group_is_chosen_unless_a_server_is() {
        let call = CallView::new("/a");
        let group = rules(r#"[[["$LB_TARGET_GROUP", "=", "g"]]]"#);
        assert_eq!(group.choose(&call), Choice::group("g"));
        let both =
            rules(r#"[[[["$LB_TARGET_GROUP", "=", "g"], ["$LB_TARGET_SERVER", "=", "s"]]]]"#);
        assert_eq!(both.choose(&call), Choice::backend("s"));
    }

    #[test]
    fn the_method_and_metadata_are_read() {
        struct Tenant;

        impl crate::balance::CallMetadata for Tenant {
            fn text(&self, name: &str) -> Option<&str> {
                (name == "tenant").then_some("acme")
            }
        }

        let rules = rules(
            r#"[[["$LB_TARGET_SERVER", "=", "{{$method}}-{{$metadata.tenant}}-{{$metadata.x}}"]]]"#,
        );
        let call = CallView::new("/%61?x=1").with_metadata(Some(&Tenant));
        assert_eq!(rules.choose(&call), Choice::backend("/a-acme-"));
        let raw = CallView::new("/a");
        assert_eq!(rules.choose(&raw), Choice::backend("/a--"));
    }

    #[test]
    fn bad_rules_name_the_place_and_replace_nothing() {
        let rules = rules(r#"[[["$LB_TARGET_SERVER", "=", "b1"]]]"#);
        let cases = [
            (
                r#"{"LB_TARGET": [[["$LB_TARGET_SERVER", "="]]]}"#,
                "/LB_TARGET/0/0: ",
            ),
            (r#"{"LB_TARGET": [[], 5]}"#, "/LB_TARGET/1: "),
            (r#"{"lb_target": []}"#, "/LB_TARGET: "),
            (r#"{"LB_TARGET":"#, "the rules are not JSON: "),
        ];
        for (text, place) in cases {
            for error in [Rules::parse(text).err(), rules.replace(text).err()] {
                let error = error.expect(text).to_string();
                assert!(error.starts_with(place), "{error}");
            }
            assert_eq!(rules.choose(&CallView::new("/a")), Choice::backend("b1"));
        }
    }

    #[test]
    fn only_the_own_group_has_warnings() {
        let text = r#"{"route": [[["$host", "=", "a"], ["$x", "=", 1]]],
            "LB_TARGET_2": [[["$x", "=", 1]]],
            "LB_TARGET": [[["$host", "=", "a"], ["$LB_TARGET_SERVER", "=", "b"]]]}"#;
        let warnings = Rules::parse(text).expect("rules").warnings();
        let places: Vec<_> = warnings.iter().map(Problem::place).collect();
        assert_eq!(places, ["/LB_TARGET/0/0/0"]);
    }
}
