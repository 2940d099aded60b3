//! A small rule language in JSON, with which applications choose backends and routes from the
//! outside: the language of the Go implementation of IIP.
//!
//! A *group* is a list of rules. A *rule* is a list of conditions, and an action as its last member.
//! Rules are evaluated from top to bottom, and every rule whose conditions all hold performs its
//! action, which assigns to variables. The application reads one of them afterwards.
//!
//! ```json
//! {
//!   "LB_TARGET": [
//!     [["$LB_TARGET_SERVER", "=", "default"]],
//!     [["$REQUEST_URI.__PATH__", "~*", "/users/"], ["$hour", "between", "08,17"],
//!         [["$LB_TARGET_SERVER", "=", "users-{{$REQUEST_URI.shard}}"], ["$break", "=", 1]]],
//!     [["$rand", "<=", 5], ["$LB_TARGET_SERVER", "=", ["canary-1", "canary-2"]]]
//!   ]
//! }
//! ```
//!
//! This crate parses and evaluates rules. It has no sockets, tasks, threads or clocks: the time and
//! the seed of random choices are passed to a [`Context`]. `docs/rules.md` in the repository is the
//! specification of the language.
//!
//! # Example
//!
//! ```
//! use iip_rules::{Context, Environment, LocalTime, RequestUri};
//!
//! let environment = Environment::new()
//!     .variable("$LB_TARGET_SERVER")
//!     .object("$REQUEST_URI");
//! let text = r#"{"LB_TARGET": [
//!     [["$LB_TARGET_SERVER", "=", "default"]],
//!     [["$REQUEST_URI.__PATH__", "~*", "/users/"],
//!         ["$LB_TARGET_SERVER", "=", "users-{{$REQUEST_URI.shard}}"]]
//! ]}"#;
//! let rules = environment.parse(text)?;
//! for warning in rules.warnings() {
//!     eprintln!("{warning}");
//! }
//! let group = rules.group("LB_TARGET")?.clone();
//!
//! // For each request:
//! let mut uri = RequestUri::parse("/users/list?shard=2")?;
//! let mut context = Context::new(&environment, LocalTime::from_unix(1_772_276_400, 0), 42);
//! context.set_object("$REQUEST_URI", &mut uri)?;
//! group.evaluate(&mut context)?;
//! assert_eq!(context.text("$LB_TARGET_SERVER").as_deref(), Some("users-2"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Operators
//!
//! A condition is `["$variable", "operator", operand]`. The left side is a variable or a property
//! of an object, optionally with a pipeline, as in `"$host|lower"`.
//!
//! | operator | holds if |
//! |---|---|
//! | `=` `!=` `<>` `<` `<=` `>` `>=` | the comparison holds in the type of the left side |
//! | `between` / `^between` | left is in the range of two bounds, as in `"5,10"` / is not |
//! | `in` / `not in` | left is a member of the list on the right, as in `"a,b,c"` / is not |
//! | `has` | all members of the right list are in the left list |
//! | `any` / `none` | the two lists have a common member / have none |
//! | `~` / `^~` | left contains right / does not |
//! | `~*` / `^~*` | left starts with right / does not |
//! | `*~` / `^*~` | left ends with right / does not |
//! | `cv` / `^cv` | left contains a member of the right list / contains none |
//!
//! An assignment is `["$variable", "operator", operand]` too; an action is one assignment, or a list
//! of them.
//!
//! | operator | effect |
//! |---|---|
//! | `=` | assigns the operand, with its type |
//! | `+=` | appends a text, or adds a number |
//! | `-=` | subtracts a number |
//! | `*=` | multiplies, or repeats a text |
//! | `/=` | divides floats |
//! | `%=` | computes the remainder of integers |
//!
//! # Values
//!
//! A number that is written in the rules is a float. Each operator converts its operands:
//!
//! | from | to text | to integer | to float |
//! |---|---|---|---|
//! | null | empty | 0 | 0 |
//! | text | itself | an integer literal (`010` is 8), or a float that is cut | a float |
//! | integer | decimal | itself | the nearest |
//! | float | six decimals: `5` is `5.000000` | cut toward zero, saturating | itself |
//! | list | a random member is converted | a random member is converted | a random member is converted |
//! | boolean, object | fails | fails | fails |
//!
//! A condition whose operand cannot be converted does not hold, negated or not.

mod compare;
mod compile;
mod context;
mod environment;
mod error;
mod evaluate;
mod function;
mod number;
mod request;
mod rules;
mod time;
mod tree;
mod value;

pub use context::{Context, Object};
pub use environment::Environment;
pub use error::{
    EvaluationError, EvaluationErrorKind, NotRegistered, Problem, ProblemKind, RulesError,
};
pub use request::{InvalidUri, Query, RequestUri};
pub use rules::{Group, Rules};
pub use time::LocalTime;
pub use value::Value;

/// The greatest length of a text that an operator, a macro or a pipeline makes: 1 MiB.
pub const MAX_RESULT_BYTES: usize = 1 << 20;

/// The greatest number of bytes that the operators of one evaluation read and write: 64 MiB.
///
/// The limit ends evaluations whose rules copy or search long texts very often.
pub const MAX_WORK_BYTES: usize = 64 << 20;
