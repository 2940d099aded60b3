//! Picking a backend for a call, from what is prepared.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::backend::{Backend, BackendId, Shared};
use super::choices::Choices;
use super::choose::Choice;
use super::hash::{below, mix};
use super::load::LoadSettings;
use super::options::BalanceOptions;
use super::ring::Ring;
use super::set::BackendSet;
use super::tier::{Draw, Tier};
use super::time::Epoch;

/// The age from which on a picker should be refreshed while calls are made, in nanoseconds.
pub(super) const FRESH: u64 = 1_000_000_000;
/// The number of jumps of a key from the backend that it belongs to, before the others are tried
/// in order.
const JUMPS: u64 = 32;
/// The rank of a backend that gets no calls.
pub(super) const DRAINED: u32 = u32::MAX;

/// The properties of a call that its pick depends on.
#[derive(Clone, Copy, Default, Debug)]
#[non_exhaustive]
pub struct PickHint<'a> {
    /// The hash of the call ([`Policy::hash`](super::Policy::hash)). Without one, consistent
    /// hashing picks a random backend.
    pub hash: Option<u64>,
    /// The choice of the application ([`Policy::chooser`](super::Policy::chooser)). Without it,
    /// [`Policy::Choose`](super::Policy::Choose) picks from all backends; other policies ignore it.
    pub choice: Option<&'a Choice<'a>>,
    /// The backends that this call has been sent to already. They are picked again only if no
    /// other usable backend is left.
    pub excluded: &'a [BackendId],
    /// The zone to prefer. Default: that of the client
    /// ([`BalanceOptions::zone`](super::BalanceOptions::zone)).
    pub zone: Option<&'a str>,
    /// The call may be sent twice, so it can test a backend that was ejected.
    pub idempotent: bool,
}

impl<'a> PickHint<'a> {
    /// Creates a hint that asks for nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the hash.
    #[must_use]
    pub fn hash(mut self, hash: Option<u64>) -> Self {
        self.hash = hash;
        self
    }

    /// Sets what the application has chosen.
    #[must_use]
    pub fn choice(mut self, choice: Option<&'a Choice<'a>>) -> Self {
        self.choice = choice;
        self
    }

    /// Sets the backends to avoid.
    #[must_use]
    pub fn excluded(mut self, excluded: &'a [BackendId]) -> Self {
        self.excluded = excluded;
        self
    }

    /// Sets the zone.
    #[must_use]
    pub fn zone(mut self, zone: &'a str) -> Self {
        self.zone = Some(zone);
        self
    }

    /// Sets whether the call may be sent twice.
    #[must_use]
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }
}

/// A backend for a call.
#[derive(Debug)]
pub struct Picked<'a, T = ()> {
    /// The backend.
    pub backend: &'a Arc<Backend<T>>,
    /// Its position within the [set](Picker::set).
    pub index: usize,
    /// The call tests a backend that was ejected; pass it to [`Backend::finished`].
    pub trial: bool,
    /// The picker is more than a second old: [`Balancer::refresh`](super::Balancer::refresh) is
    /// due.
    pub stale: bool,
}

/// The error of a call for which there is no backend. It was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PickError {
    /// No backend is known, or all are drained.
    #[error("no backend is known")]
    NoBackend,
    /// Few backends are back after an outage of all, and the call is one of those that are refused
    /// to spare them.
    #[error("backends recover from an outage, retry in {pushback:?}")]
    Recovering {
        /// The time after which the call should be retried.
        pushback: Duration,
    },
    /// No backend that the application has chosen is known, or all of them are drained; the
    /// [choice](Choice) displays which.
    #[error("the backends that were chosen for the call are not known or drained")]
    NotFound,
    /// The application has [rejected](Choice::Reject) the call.
    #[error("the balancing policy rejected the call")]
    Rejected,
}

/// The positions that hashes lead to.
#[derive(Clone, Debug)]
pub(super) enum Hashing {
    None,
    Ring(Arc<Ring>),
    /// The list of the Go client, where a backend has as many entries as its weight.
    Go(Arc<[u32]>),
    /// Not a hash: the application chooses.
    Chosen,
}

/// The properties of a backend that hashing uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// 0 and up: the order in which groups of backends are used.
    pub(super) rank: u32,
    pub(super) weight: f64,
}

/// The preferred backends of a zone.
#[derive(Debug)]
pub(super) struct ZoneTier<T> {
    pub(super) zone: Arc<str>,
    pub(super) tier: Tier<T>,
    /// The share of the calls of the zone that stay in it.
    pub(super) share: f64,
}

/// The ranks at which the groups of backends end.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Ranks {
    /// The first rank that has backends.
    pub(super) best: u32,
    /// The number of ranks of usable backends.
    pub(super) usable: u32,
}

/// Picks backends for calls, from the state of all backends at one point in time. It is replaced as
/// a whole, and shared without a lock. A pick neither allocates nor waits.
#[derive(Debug)]
pub struct Picker<T = ()> {
    pub(super) set: Arc<BackendSet<T>>,
    pub(super) epoch: Epoch,
    /// The time from which on it should be refreshed while calls are made.
    pub(super) stale_at: Instant,
    pub(super) median: f64,
    /// A copy: a pick reads it from here only.
    pub(super) load: LoadSettings,
    /// Latencies with a sample since then need no decay before the picker is stale.
    pub(super) fresh_since: u64,
    /// The probability with which a call passes.
    pub(super) admit: f64,
    pub(super) pushback: Duration,
    pub(super) zone: Option<Arc<str>>,
    pub(super) zones: Vec<ZoneTier<T>>,
    /// The backends that wait for the call that tests them, with their positions.
    pub(super) trials: Vec<(usize, Arc<Backend<T>>)>,
    /// Usable backends by priority; last resorts; unreachable ones.
    pub(super) levels: [Vec<Tier<T>>; 3],
    pub(super) hashing: Hashing,
    pub(super) slots: Vec<Slot>,
    /// The backends and groups that the application can choose from.
    pub(super) choices: Option<Box<Choices<T>>>,
    pub(super) ranks: Ranks,
    /// The sum of the weights of the best rank.
    pub(super) weight: f64,
    pub(super) bound: f64,
    pub(super) total: Option<Arc<AtomicU64>>,
    pub(super) turn: Arc<AtomicU64>,
}

impl<T> Picker<T> {
    /// Creates a picker that picks nothing.
    pub(super) fn empty(
        options: &BalanceOptions,
        shared: &Shared,
        set: &Arc<BackendSet<T>>,
        turn: &Arc<AtomicU64>,
    ) -> Self {
        Self {
            set: Arc::clone(set),
            epoch: shared.epoch,
            stale_at: shared.epoch.instant(FRESH),
            median: 0.0,
            load: shared.load,
            fresh_since: u64::MAX,
            admit: 1.0,
            pushback: options.recovery_time / 10,
            zone: options.zone.clone(),
            zones: Vec::new(),
            trials: Vec::new(),
            levels: Default::default(),
            hashing: Hashing::None,
            slots: Vec::new(),
            choices: None,
            ranks: Ranks::default(),
            weight: 0.0,
            bound: options.ring_bound,
            total: shared.total.clone(),
            turn: Arc::clone(turn),
        }
    }

    /// Returns the backends.
    #[must_use]
    pub fn set(&self) -> &Arc<BackendSet<T>> {
        &self.set
    }

    /// Picks a backend for a call at `now`. `random` is a number of a seeded generator; all random
    /// choices of the pick are derived from it.
    ///
    /// # Errors
    ///
    /// Fails if no backend is known, the call is refused after an outage, or what the application
    /// has chosen is not known.
    #[inline]
    pub fn pick(
        &self,
        hint: &PickHint<'_>,
        now: Instant,
        random: u64,
    ) -> Result<Picked<'_, T>, PickError> {
        let stale = now > self.stale_at;
        let mut draw = Draw {
            rng: fastrand::Rng::with_seed(random),
            at: now,
            epoch: self.epoch,
            median: self.median,
            load: &self.load,
            fresh_since: if stale { u64::MAX } else { self.fresh_since },
            excluded: hint.excluded,
            turn: &self.turn,
            taken: None,
        };
        if self.admit < 1.0 {
            self.admit(&mut draw)?;
        }
        if hint.idempotent
            && !self.trials.is_empty()
            && let Some((index, backend)) = self.trial(hint, &draw)
        {
            return Ok(Picked {
                backend,
                index,
                trial: true,
                stale,
            });
        }
        let found = match self.hashing {
            Hashing::None => self.pick_tier(hint, &mut draw),
            Hashing::Chosen => Some(self.pick_chosen(hint, &mut draw)?),
            _ => self.pick_hashed(hint, &mut draw),
        };
        let (index, backend) = found.ok_or(PickError::NoBackend)?;
        Ok(Picked {
            backend,
            index,
            trial: false,
            stale,
        })
    }

    #[cold]
    fn admit(&self, draw: &mut Draw<'_>) -> Result<(), PickError> {
        if draw.rng.f64() < self.admit {
            return Ok(());
        }
        // The callers that are refused together do not return together.
        let pushback = self.pushback.mul_f64(0.5 + draw.rng.f64());
        Err(PickError::Recovering { pushback })
    }

    #[cold]
    fn trial(&self, hint: &PickHint<'_>, draw: &Draw<'_>) -> Option<(usize, &Arc<Backend<T>>)> {
        let mut trials = self.trials.iter();
        let taken = trials.find(|(index, backend)| {
            draw.accepts(backend) && self.is_chosen(*index, hint) && backend.take_trial()
        });
        taken.map(|(index, backend)| (*index, backend))
    }

    #[inline]
    pub(super) fn pick_tier<'h>(
        &self,
        hint: &PickHint<'h>,
        draw: &mut Draw<'h>,
    ) -> Option<(usize, &Arc<Backend<T>>)> {
        if !self.zones.is_empty()
            && let Some(tier) = self.zone_tier(hint, draw)
            && let Some(member) = tier.pick(draw)
        {
            return Some((member.index, &member.backend));
        }
        pick_levels(&self.levels, hint, draw)
    }

    fn zone_tier(&self, hint: &PickHint<'_>, draw: &mut Draw<'_>) -> Option<&Tier<T>> {
        let zone = hint.zone.or(self.zone.as_deref())?;
        let found = self.zones.binary_search_by(|tier| (*tier.zone).cmp(zone));
        let tier = self.zones.get(found.ok()?)?;
        let stays = tier.share >= 1.0 || draw.rng.f64() < tier.share;
        stays.then_some(&tier.tier)
    }

    /// Picks by the hash of the call: the best rank within its bound; other usable backends; the
    /// excluded ones; last resorts; unreachable backends.
    #[inline]
    fn pick_hashed(
        &self,
        hint: &PickHint<'_>,
        draw: &mut Draw<'_>,
    ) -> Option<(usize, &Arc<Backend<T>>)> {
        let hash = hint.hash.unwrap_or_else(|| draw.rng.u64(..));
        let best = self.ranks.best;
        self.walk(hash, |slot, backend| {
            slot.rank == best && draw.accepts(backend) && self.is_within_bound(slot, backend)
        })
        .or_else(|| self.next_best(hash, draw))
    }

    #[cold]
    fn next_best(&self, hash: u64, draw: &Draw<'_>) -> Option<(usize, &Arc<Backend<T>>)> {
        let Ranks { best, usable } = self.ranks;
        let limits = [
            (best, true),
            (usable, true),
            (usable, false),
            (DRAINED, true),
        ];
        limits
            .into_iter()
            .chain([(DRAINED, false)])
            .find_map(|(limit, excludes)| {
                self.walk(hash, |slot, backend| {
                    let ranked = slot.rank < limit || slot.rank == best;
                    ranked && slot.rank != DRAINED && (!excludes || draw.accepts(backend))
                })
            })
    }

    /// Returns `true` if another call keeps the backend within the bound of consistent hashing.
    #[inline]
    fn is_within_bound(&self, slot: &Slot, backend: &Backend<T>) -> bool {
        let Some(total) = &self.total else {
            return true;
        };
        #[expect(clippy::cast_precision_loss, reason = "it counts calls in flight")]
        let total = total.load(Ordering::Relaxed) as f64;
        let limit = (self.bound * (total + 1.0) * slot.weight / self.weight).ceil();
        f64::from(backend.load().in_flight()) < limit
    }

    /// Returns the first acceptable backend in the order of a hash. All backends are in that order,
    /// and those at its beginning may repeat.
    #[inline]
    fn walk(
        &self,
        hash: u64,
        accepts: impl Fn(&Slot, &Backend<T>) -> bool,
    ) -> Option<(usize, &Arc<Backend<T>>)> {
        let check = |index: usize| {
            let (slot, backend) = (self.slots.get(index)?, self.set.get(index)?);
            accepts(slot, backend).then_some((index, backend))
        };
        match &self.hashing {
            Hashing::None | Hashing::Chosen => None,
            Hashing::Ring(ring) => {
                // A jump of the key leads to the place of another key. Keys of one backend thus
                // jump to different others, and one that is full does not fill the next.
                let jump = |jump: u64| hash.wrapping_add(jump.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                let found = check(ring.get(hash)? as usize).or_else(|| {
                    (1..JUMPS)
                        .filter_map(|number| ring.get(mix(jump(number))))
                        .find_map(|index| check(index as usize))
                });
                let start = below(mix(hash), self.slots.len());
                found.or_else(|| around(start, self.slots.len()).find_map(check))
            }
            Hashing::Go(entries) => {
                // Go takes the remainder of 32 bits.
                #[expect(clippy::cast_possible_truncation, reason = "the rest is 0")]
                let start = (hash as u32 as usize).checked_rem(entries.len())?;
                let mut all = around(start, entries.len()).filter_map(|place| entries.get(place));
                all.find_map(|index| check(*index as usize))
            }
        }
    }
}

/// Picks from the first level that has backends. Excluded ones come after the others of their level.
#[inline]
pub(super) fn pick_levels<'p, 'h, T>(
    levels: &'p [Vec<Tier<T>>; 3],
    hint: &PickHint<'h>,
    draw: &mut Draw<'h>,
) -> Option<(usize, &'p Arc<Backend<T>>)> {
    for level in levels {
        for tier in level {
            if let Some(member) = tier.pick(draw) {
                return Some((member.index, &member.backend));
            }
        }
        if !hint.excluded.is_empty() {
            draw.excluded = &[];
            for tier in level {
                if let Some(member) = tier.pick(draw) {
                    return Some((member.index, &member.backend));
                }
            }
            draw.excluded = hint.excluded;
        }
    }
    None
}

/// Returns all numbers below `count`, beginning with `start`.
fn around(start: usize, count: usize) -> impl Iterator<Item = usize> {
    (start..count).chain(0..start)
}
