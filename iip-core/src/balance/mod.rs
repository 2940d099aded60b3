//! Balancing of calls over several backends. Pure: no socket, task, lock or clock; time and random
//! numbers are passed in.
//!
//! ```text
//!   source ── snapshot ──▶ Balancer ── refresh ──▶ Picker ── pick ──▶ Backend ◀── started,
//!                            ▲    (cold path)   (shared, lock-free)       │        finished
//!                            └────────────────── Notice ──────────────────┘
//! ```
//!
//! - A [`Target`] is the text that names one address, a list, or a source of addresses.
//! - A source describes each backend by a [`BackendInfo`]. It delivers whole snapshots.
//! - A [`Balancer`] owns the state of all backends. It applies snapshots and events, and prepares
//!   a [`Picker`]. Its owner calls it off the path of calls.
//! - A [`Picker`] picks a [`Backend`] for each call, by the [`Policy`]. It is immutable and shared.
//! - A [`Backend`] counts the calls that it gets, and tells by a [`Notice`] when the balancer must
//!   hear of it.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use iip_core::balance::{BalanceOptions, Balancer, Notice, Outcome, PickHint, Target};
//!
//! let now = Instant::now();
//! let target: Target = "10.0.0.1:7000#3,10.0.0.2:7000#1".parse()?;
//! let mut balancer = Balancer::new(BalanceOptions::new(), now, 7)?;
//! let change = balancer.apply(&target.backends().unwrap_or_default(), now, |_, _| ());
//! assert_eq!(change.added.len(), 2);
//! balancer.refresh(now);
//!
//! let picker = balancer.picker().clone();
//! let picked = picker.pick(&PickHint::new(), now, 42)?;
//! picked.backend.started();
//! let notice = picked.backend.finished(now, Duration::from_millis(1), Outcome::Success, false);
//! assert_eq!(notice, Notice::None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backend;
mod balancer;
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
mod zone;

pub use self::backend::{Backend, BackendId, BackendInfo, MAX_WEIGHT, Notice, Outcome};
pub use self::balancer::Balancer;
pub use self::explain::{BackendExplanation, BackendState};
pub use self::hash::{go_hash, go_hash_param, hash_key};
pub use self::load::Load;
pub use self::options::BalanceOptions;
pub use self::picker::{PickError, PickHint, Picked, Picker};
pub use self::policy::{CallKey, Policy};
pub use self::set::{BackendSet, SetChange};
pub(crate) use self::target::{Fault, parse_line};
pub use self::target::{Target, TargetError, ToTarget};
