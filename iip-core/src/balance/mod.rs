//! Balancing of calls over several backends.
//!
//! A client of several servers spreads its calls by what each can take, leaves out those that fail,
//! and tries another one where a call has not run. Its [`Target`] names the servers, or a
//! [source](crate::discover) of them; [`BalanceOptions`] say how a backend is picked and when it is
//! left out.
//!
//! ```no_run
//! use iip_core::Client;
//! use iip_core::balance::{BalanceOptions, Policy};
//!
//! # async fn run() -> Result<(), iip_core::CallError> {
//! let client = Client::builder()
//!     .balance(BalanceOptions::new().policy(Policy::P2c).zone("eu-1"))
//!     .connect("dns://orders.svc.cluster.local.:7000")
//!     .await?;
//! client.request("/orders/list", "{}").await?;
//! println!("{}", client.explain());
//! # Ok(())
//! # }
//! ```
//!
//! # States of a backend
//!
//! | state | calls | until |
//! |---|---|---|
//! | [ready](BackendState::Ready) | its share | |
//! | [slow start](BackendState::SlowStart) | a share that rises from a tenth, while others are warm | 10 s after it has joined or returned |
//! | [ejected](BackendState::Ejected) after 5 failures in a row, or with less than half of at least 20 calls successful within 10 s | only if no other backend can take them | 10 s, then twice as long each time, up to 300 s |
//! | [half open](BackendState::HalfOpen) | a ping, then one idempotent call | that call succeeds |
//! | [down](BackendState::Down): it refuses connections | none | it is connected; attempts follow at growing intervals of up to 10 s, or 2 s while calls wait for a connection |
//! | [not connected](BackendState::GoingAway) yet, or it has sent a drain notice | none | it is connected |
//! | [drained](BackendState::Drained): its weight is 0 | none | its weight changes |
//!
//! At most half of the backends are ejected at the same time, and never the last one. Failures are
//! lost connections, missed deadlines and, for typed calls, UNAVAILABLE, RESOURCE_EXHAUSTED,
//! INTERNAL, UNKNOWN, DATA_LOSS and DEADLINE_EXCEEDED. Errors of a method's own type are successes.
//!
//! After a time in which no backend was usable, calls are let through with a probability that rises
//! with the number of backends that have returned. The others fail with UNAVAILABLE, were not sent,
//! and say when to retry.

// How it works. All of it is pure: no socket, task, lock or clock; time and random numbers are passed
// in. The client owns the `Balancer` and calls it off the path of calls.
//
//   source ── snapshot ──▶ Balancer ── refresh ──▶ Picker ── pick ──▶ Backend ◀── started,
//                            ▲    (cold path)   (shared, lock-free)       │        finished
//                            └────────────────── Notice ──────────────────┘
//
// - A source describes each backend by a `BackendInfo`. It delivers whole snapshots.
// - A `Balancer` owns the state of all backends. It applies snapshots and events, and prepares a
//   `Picker`.
// - A `Picker` picks a `Backend` for each call, by the `Policy`. It is immutable and shared.
// - A `Backend` counts the calls that it gets, and tells by a `Notice` when the balancer must hear
//   of it.

mod backend;
mod balancer;
mod choices;
mod choose;
mod chosen;
mod entry;
mod explain;
mod hash;
mod health;
mod load;
mod options;
mod outcomes;
mod picker;
mod policy;
mod recovery;
mod ring;
mod set;
mod target;
#[cfg(test)]
mod tests;
mod tier;
mod time;
mod zone;

#[doc(hidden)]
pub use self::backend::{Backend, BackendId, Notice, Outcome};
pub use self::backend::{BackendInfo, MAX_WEIGHT};
#[doc(hidden)]
pub use self::balancer::Balancer;
pub use self::choose::{CallMetadata, CallView, Choice, Choose, Fallback};
pub use self::explain::{BackendExplanation, BackendState};
pub use self::hash::{go_hash, go_hash_param, hash_key};
#[doc(hidden)]
pub use self::load::Load;
pub use self::options::BalanceOptions;
#[doc(hidden)]
pub use self::picker::{PickError, PickHint, Picked, Picker};
#[doc(hidden)]
pub use self::policy::CallKey;
pub use self::policy::Policy;
#[doc(hidden)]
pub use self::set::{BackendSet, SetChange};
pub(crate) use self::target::{Fault, parse_line};
pub use self::target::{Target, TargetError, ToTarget};
