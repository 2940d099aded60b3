//! The ways to pick a backend.

use std::sync::Arc;

use super::choose::{CallView, Choice, Choose};
use super::hash::{go_hash, go_hash_param, hash_key};

/// A way to pick a backend. All policies pick among the usable backends of the lowest
/// [priority](super::BackendInfo::priority), and none picks one with a weight of 0.
///
/// | policy | weight | zone | if the backend is excluded or not usable |
/// |---|---|---|---|
/// | `P2c` | yes | yes | the other of two; then the next from a random place |
/// | `LeastPending` | yes | yes | the next best |
/// | `RoundRobin` | no | yes | the next |
/// | `Random`, `Weighted` | yes | yes | up to eight draws more; then the next |
/// | `RingHash` | yes | no | jumps that depend on the key: always the same other backends |
/// | `GoHashIp`, `GoHashParam` | yes | no | the next entries of the list; Go has no such case |
/// | `Choose` | by the base policy | only for [`Choice::Any`] | what [`Fallback`](super::Fallback) says |
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub enum Policy {
    /// The better of two random backends, by latency x (calls in flight + 1) / weight, with
    /// penalties for failures. One whose mean latency is more than 2.5 times that of the other one
    /// plus 0.5 ms gets only one in 256 of these calls, whatever is in flight.
    #[default]
    P2c,
    /// The backend with the fewest calls in flight by weight; of equal ones, in turns. This is the
    /// default of the Go client.
    LeastPending,
    /// Each backend in turn, from a random start. In slow start, a backend is left out of some
    /// rounds.
    RoundRobin,
    /// A random backend, by weight.
    Random,
    /// Each backend in turn as often as its weight says, spread evenly.
    Weighted,
    /// The backend of the key's hash ([`hash_key`]), as long as it has at most
    /// [1.25](super::BalanceOptions::ring_bound) times the mean of calls in flight. A call without
    /// a key gets a random backend.
    RingHash,
    /// The backend of the hash of the IP address on whose behalf the call is made, as in the Go
    /// client: the same entry for the same list. The address is the key of the call, as text.
    GoHashIp,
    /// The backend of the hash of a query parameter, as in the Go client. An absent parameter is
    /// an empty text.
    GoHashParam {
        /// The name of the parameter.
        name: Arc<str>,
    },
    /// The choice of the application for each call: any backend, one, or those of a group. Among
    /// several, the [base policy](super::BalanceOptions::base_policy) picks one.
    Choose(Arc<dyn Choose>),
}

/// The parts of a call that can be hashed.
#[derive(Clone, Copy, Default, Debug)]
#[non_exhaustive]
pub struct CallKey<'a> {
    /// The key of the call, for [`Policy::RingHash`] and [`Policy::GoHashIp`].
    pub key: Option<&'a [u8]>,
    /// The path with its query, for [`Policy::GoHashParam`].
    pub path: &'a str,
}

impl<'a> CallKey<'a> {
    /// Creates the key of a call of `path`.
    #[must_use]
    pub fn new(path: &'a str) -> Self {
        Self {
            path,
            ..Self::default()
        }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: &'a [u8]) -> Self {
        self.key = Some(key);
        self
    }
}

impl Policy {
    /// Returns the policy of a closure that chooses the backends of each call.
    ///
    /// The names that it returns are constants, parts of the call, or owned; [`Choose`] can lend
    /// others.
    ///
    /// ```
    /// use iip_core::balance::{Choice, Policy};
    ///
    /// let policy = Policy::choose(|call| match call.metadata("tenant") {
    ///     Some(tenant) => Choice::group(tenant),
    ///     None if call.method().starts_with("/reports/") => Choice::group("batch"),
    ///     None => Choice::Any,
    /// });
    /// assert_eq!(policy, policy.clone());
    /// ```
    #[must_use]
    pub fn choose<F>(choose: F) -> Self
    where
        F: for<'a> Fn(&CallView<'a>) -> Choice<'a> + Send + Sync + 'static,
    {
        Self::Choose(Arc::new(choose))
    }

    /// Returns what chooses the backends of each call, if the application does.
    #[inline]
    #[must_use]
    pub fn chooser(&self) -> Option<&dyn Choose> {
        match self {
            Self::Choose(chooser) => Some(&**chooser),
            _ => None,
        }
    }

    /// Returns the hash of a call for [`PickHint::hash`](super::PickHint); `None` if the policy
    /// needs none.
    #[inline]
    #[must_use]
    pub fn hash(&self, call: CallKey<'_>) -> Option<u64> {
        match self {
            Self::RingHash => call.key.map(hash_key),
            Self::GoHashIp => Some(go_hash(call.key.unwrap_or_default()).into()),
            Self::GoHashParam { name } => Some(go_hash_param(call.path, name).into()),
            _ => None,
        }
    }

    pub(super) fn is_ring(&self) -> bool {
        matches!(self, Self::RingHash)
    }

    /// Returns `true` if it can pick from the backends that were chosen.
    pub(super) fn is_base(&self) -> bool {
        self.chooser().is_none() && !self.is_ring() && !self.is_go_hash()
    }

    pub(super) fn is_go_hash(&self) -> bool {
        matches!(self, Self::GoHashIp | Self::GoHashParam { .. })
    }
}
