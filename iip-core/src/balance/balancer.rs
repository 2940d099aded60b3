//! The owner of the state of all backends: applies snapshots and events, and prepares pickers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::backend::{Backend, BackendId, BackendInfo, Shared};
use super::choices::Choices;
use super::hash::subset;
use super::health::{Health, HealthSettings, Standing, State};
use super::options::BalanceOptions;
use super::picker::{DRAINED, FRESH, Hashing, Picker, Ranks, Slot, ZoneTier};
use super::policy::Policy;
use super::recovery::Recovery;
use super::ring::Ring;
use super::set::{BackendSet, SetChange};
use super::tier::{Member, Tier};
use super::time::Epoch;
use super::zone::ZoneShares;
use crate::error::ConfigError;

/// The entries that a backend has at most in the list of the Go client.
const MAX_GO_ENTRIES: u32 = 100;

/// The owner of the state of all backends of a client. It has no lock, task or clock: its owner
/// calls it under a lock of its own, off the path of calls, and passes the time.
///
/// A snapshot or an event takes effect with the next [`refresh`](Self::refresh). Several of them
/// may precede it.
#[derive(Debug)]
pub struct Balancer<T = ()> {
    pub(super) options: BalanceOptions,
    pub(super) settings: HealthSettings,
    pub(super) shared: Arc<Shared>,
    pub(super) set: Arc<BackendSet<T>>,
    /// The health of each backend of the set.
    pub(super) health: Vec<Health>,
    pub(super) picker: Arc<Picker<T>>,
    hashing: Hashing,
    recovery: Recovery,
    zones: ZoneShares,
    rng: fastrand::Rng,
    turn: Arc<AtomicU64>,
    next_id: u64,
}

impl<T> Balancer<T> {
    /// Creates a balancer without backends. `seed` determines all random choices.
    ///
    /// # Errors
    ///
    /// Fails if an option cannot work.
    pub fn new(options: BalanceOptions, now: Instant, seed: u64) -> Result<Self, ConfigError> {
        options.check()?;
        let mut rng = fastrand::Rng::with_seed(seed);
        let bounded = options.policy.is_ring() && options.ring_bound.is_finite();
        let shared = Arc::new(Shared {
            epoch: Epoch(now),
            load: options.load_settings(),
            outcomes: options.outcome_settings(),
            spares_full: matches!(options.policy, Policy::P2c),
            total: bounded.then(Arc::default),
        });
        // Clients that start together do not all begin with the first backend.
        let turn = Arc::new(AtomicU64::new(rng.u64(..u64::from(u32::MAX))));
        let set = Arc::default();
        Ok(Self {
            picker: Arc::new(Picker::empty(&options, &shared, &set, &turn)),
            settings: options.health_settings(),
            recovery: Recovery::new(&options),
            zones: ZoneShares::new(&options),
            options,
            shared,
            set,
            health: Vec::new(),
            hashing: Hashing::None,
            rng,
            turn,
            next_id: 0,
        })
    }

    /// Returns the picker of the last [`refresh`](Self::refresh).
    #[must_use]
    pub fn picker(&self) -> &Arc<Picker<T>> {
        &self.picker
    }

    /// Returns the backends of the last snapshot.
    #[must_use]
    pub fn set(&self) -> &Arc<BackendSet<T>> {
        &self.set
    }

    /// Replaces the backends by those of a snapshot. `data` makes what is kept with a new backend.
    ///
    /// A backend stays if its id and its address do, with all its statistics. One whose address has
    /// changed is a new one. Several may have the same address with different ids. New backends
    /// begin with slow start, if others are warm.
    pub fn apply(
        &mut self,
        snapshot: &[BackendInfo],
        now: Instant,
        mut data: impl FnMut(BackendId, &Arc<BackendInfo>) -> T,
    ) -> SetChange<T> {
        let now = self.shared.epoch.nanos(now);
        let chosen = self.choose(snapshot);
        let (shared, next_id) = (&self.shared, &mut self.next_id);
        let add = |info: &Arc<BackendInfo>| {
            *next_id += 1;
            let id = BackendId(*next_id);
            Arc::new(Backend::new(
                id,
                Arc::clone(info),
                data(id, info),
                Arc::clone(shared),
            ))
        };
        let (set, positions, change) = self.set.replace(chosen.into_iter(), add);
        let state = match self.is_warm(None, now) && self.settings.slow_start > 0 {
            true => State::SlowStart {
                until: now.saturating_add(self.settings.slow_start),
            },
            false => State::Ready,
        };
        let moved = positions
            .iter()
            .enumerate()
            .any(|(new, old)| Some(new) != *old);
        let mut old: Vec<_> = std::mem::take(&mut self.health)
            .into_iter()
            .map(Some)
            .collect();
        let health = positions.into_iter().map(|position| {
            let kept = position.and_then(|position| old.get_mut(position)?.take());
            kept.unwrap_or_else(|| Health::new(now, state))
        });
        self.health = health.collect();
        self.set = Arc::new(set);
        if moved || !change.is_empty() {
            self.hashing = self.hashing();
        }
        change
    }

    /// Returns the backends of a snapshot that this client uses.
    fn choose<'a>(&self, snapshot: &'a [BackendInfo]) -> Vec<&'a BackendInfo> {
        let Some(count) = self.options.subset else {
            return snapshot.iter().collect();
        };
        // A drained backend takes no place: another one replaces it.
        let active: Vec<_> = snapshot.iter().filter(|info| info.weight > 0).collect();
        let ids = active.iter().map(|info| &*info.id);
        let chosen = subset(ids, count, self.options.client_id);
        chosen
            .into_iter()
            .filter_map(|index| active.get(index).copied())
            .collect()
    }

    /// Returns `true` if a backend is usable.
    #[must_use]
    pub fn has_usable(&self) -> bool {
        self.count(|standing| standing == Standing::Usable) > 0
    }

    /// Returns the backends that get no calls before they are connected.
    pub fn unreachable(&self) -> impl Iterator<Item = &Arc<Backend<T>>> {
        let all = self.set.iter().zip(&self.health);
        all.filter(|(_, health)| health.standing() == Standing::Unreachable)
            .map(|((backend, _), _)| backend)
    }

    fn hashing(&self) -> Hashing {
        let backends = self.set.iter().map(|(_, info)| (&*info.id, info.weight));
        if self.options.policy.is_ring() {
            let backends: Vec<_> = backends.collect();
            return Hashing::Ring(Arc::new(Ring::new(self.options.ring_size, &backends)));
        }
        if self.options.policy.chooser().is_some() {
            return Hashing::Chosen;
        }
        if !self.options.policy.is_go_hash() {
            return Hashing::None;
        }
        // Go lays the entries out in rounds: A#3,B#1 is A, B, A, A.
        let weights: Vec<_> = backends
            .map(|(_, weight)| weight.min(MAX_GO_ENTRIES))
            .collect();
        let rounds = 0..weights.iter().copied().max().unwrap_or(0);
        let entries = rounds.flat_map(|round| {
            let indexes = (0_u32..).zip(&weights);
            indexes.filter_map(move |(index, weight)| (*weight > round).then_some(index))
        });
        Hashing::Go(entries.collect())
    }

    /// Ejects a backend with too many failures, after [`Notice::Failing`](super::Notice::Failing).
    /// Returns `true` if a refresh is needed. At most half of the backends are ejected, never the
    /// last usable one.
    pub fn failing(&mut self, id: BackendId, now: Instant) -> bool {
        let now = self.shared.epoch.nanos(now);
        let Some(position) = self.set.position(id) else {
            return false;
        };
        let (Some(backend), Some(health)) = (self.set.get(position), self.health.get(position))
        else {
            return false;
        };
        let Some(why) = backend.outcomes().too_many(now, &self.shared.outcomes) else {
            return false;
        };
        if health.standing() != Standing::Usable || !self.may_eject() {
            return false;
        }
        let random = self.rng.f64();
        if let Some(health) = self.health.get_mut(position) {
            health.eject(now, why, random, &self.settings);
        }
        true
    }

    fn may_eject(&self) -> bool {
        let known = self.count(|_| true);
        let ejected = self.count(|standing| standing == Standing::LastResort);
        let usable = self.count(|standing| standing == Standing::Usable);
        #[expect(clippy::cast_precision_loss, reason = "it is a number of backends")]
        let within = (ejected + 1) as f64 <= known as f64 * self.options.max_ejected;
        within && usable > 1
    }

    /// Returns the number of backends with such a standing that are not drained.
    pub(super) fn count(&self, counts: impl Fn(Standing) -> bool) -> usize {
        let all = self.set.iter().zip(&self.health);
        all.filter(|((_, info), health)| info.weight > 0 && counts(health.standing()))
            .count()
    }

    /// Marks a backend that refuses connections. It gets no calls until it is
    /// [connected](Self::connected), unless all backends are unreachable. Returns `true` if a
    /// refresh is needed.
    pub fn refused(&mut self, id: BackendId, now: Instant) -> bool {
        self.update(id, now, |health, now, settings, _, _| {
            health.leave(now, State::Down, settings)
        })
    }

    /// Marks a backend that is not connected yet or has sent a drain notice, with the effect of
    /// [`refused`](Self::refused). It is not a failure. Returns `true` if a refresh is needed.
    pub fn going_away(&mut self, id: BackendId, now: Instant) -> bool {
        self.update(id, now, |health, now, settings, _, _| {
            health.leave(now, State::GoingAway, settings)
        })
    }

    /// Accounts for a new connection to a backend. One that was unreachable gets calls again, with
    /// slow start if others are warm. Returns `true` if a refresh is needed.
    pub fn connected(&mut self, id: BackendId, now: Instant) -> bool {
        self.recovery.begin();
        self.update(id, now, |health, now, settings, warm, _| {
            health.connected(now, warm, settings)
        })
    }

    /// Accounts for the reply to a ping of [`due_pings`](Self::due_pings), or its absence. Returns
    /// `true` if a refresh is needed.
    pub fn pinged(&mut self, id: BackendId, now: Instant, success: bool) -> bool {
        self.update(id, now, |health, now, settings, _, random| {
            health.pinged(now, success, random, settings)
        })
    }

    /// Accounts for the call that tested a backend, after
    /// [`Notice::Trial`](super::Notice::Trial). Returns `true` if a refresh is needed.
    pub fn trial_ended(&mut self, id: BackendId, now: Instant, success: bool) -> bool {
        self.update(id, now, |health, now, settings, warm, random| {
            health.tried(now, success, random, warm, settings)
        })
    }

    fn update(
        &mut self,
        id: BackendId,
        now: Instant,
        change: impl FnOnce(&mut Health, u64, &HealthSettings, bool, f64) -> bool,
    ) -> bool {
        let now = self.shared.epoch.nanos(now);
        let Some(position) = self.set.position(id) else {
            return false;
        };
        let (warm, random) = (self.is_warm(Some(position), now), self.rng.f64());
        let (Some(health), Some(backend)) = (self.health.get_mut(position), self.set.get(position))
        else {
            return false;
        };
        let before = health.standing();
        let changed = change(health, now, &self.settings, warm, random);
        if before != Standing::Usable && health.standing() == Standing::Usable {
            backend.forget();
        }
        changed
    }

    /// Returns `true` if a backend other than that at `position` is warm.
    fn is_warm(&self, position: Option<usize>, now: u64) -> bool {
        (0..self.set.len()).any(|other| Some(other) != position && self.is_warm_at(other, now))
    }

    /// Returns `true` if the backend at `position` is warm and gets calls.
    fn is_warm_at(&self, position: usize, now: u64) -> bool {
        let weight = self.set.info(position).map_or(0, |info| info.weight);
        weight > 0
            && self
                .health
                .get(position)
                .is_some_and(|health| health.is_warm(now))
    }

    /// Returns the backends whose ejection is over, and which need a ping.
    pub fn due_pings(&self) -> impl Iterator<Item = &Arc<Backend<T>>> {
        let all = self.set.iter().zip(&self.health);
        all.filter(|(_, health)| matches!(health.state(), State::HalfOpen { pinged: false, .. }))
            .map(|((backend, _), _)| backend)
    }

    /// Applies what time has changed, and prepares the next [`picker`](Self::picker). Returns the
    /// time at which the next refresh is needed even if nothing happens; `None`: none. While calls
    /// are made, one is due every second ([`Picked::stale`](super::Picked::stale)).
    pub fn refresh(&mut self, now: Instant) -> Option<Instant> {
        let now = self.shared.epoch.nanos(now);
        self.advance(now);
        let known = self.count(|_| true);
        let usable = self.count(|standing| standing == Standing::Usable);
        // Connections that were closed because they were idle are no outage.
        let is_out = self
            .health
            .iter()
            .all(|health| health.state() != State::GoingAway);
        let admit = self.recovery.update(now, usable, known, is_out);
        self.picker = Arc::new(self.build(now, admit));
        let changes = self
            .health
            .iter()
            .filter_map(|health| health.next_change(now, &self.settings));
        let zones = self
            .zones
            .is_overflowing()
            .then_some(now.saturating_add(FRESH));
        let next = changes
            .chain(self.recovery.next_change())
            .chain(zones)
            .min();
        next.map(|next| self.shared.epoch.instant(next))
    }

    fn advance(&mut self, now: u64) {
        let all = 0..self.health.len();
        let mut warm = all
            .clone()
            .filter(|other| self.is_warm_at(*other, now))
            .count();
        for position in all {
            let others = warm - usize::from(self.is_warm_at(position, now));
            let (Some(health), Some(backend)) =
                (self.health.get_mut(position), self.set.get(position))
            else {
                continue;
            };
            let before = health.standing();
            health.advance(now, others > 0, &self.settings);
            if before != Standing::Usable && health.standing() == Standing::Usable {
                backend.forget();
            }
            warm = others + usize::from(self.is_warm_at(position, now));
        }
    }

    fn build(&mut self, now: u64, admit: f64) -> Picker<T> {
        let median = self.median();
        if median > 0.0 {
            let backends = self.set.iter().map(|(backend, _)| backend.load());
            for load in backends.filter(|load| load.sampled().is_none()) {
                load.seed(now, median);
            }
        }
        let (groups, others, trials) = self.sort(now);
        let usable = groups.len();
        let lists = groups.into_values().chain(others);
        let mut ranked: Vec<_> = (0_u32..).zip(lists).collect();
        ranked.retain(|(_, members)| !members.is_empty());
        let best = ranked.first();
        let set = &self.set;
        let zone_of = |member: &Member<T>| set.info(member.index)?.zone.as_deref();
        let zones = match best {
            Some((0, members)) if usable > 0 => self.zones.update(now, members, zone_of),
            _ => Vec::new(),
        };
        let weights = best.iter().flat_map(|(_, members)| members);
        let weight = weights.map(|member| member.weight).sum();
        let policy = self.options.tier_policy();
        let zones = zones.into_iter().map(|(zone, share, members)| ZoneTier {
            zone,
            share,
            tier: Tier::new(members, policy),
        });
        let usable = u32::try_from(usable).unwrap_or(DRAINED - 2);
        let choices = matches!(self.hashing, Hashing::Chosen).then(|| {
            let levels = |ranked| levels(ranked, usable, policy);
            Choices::new(self.options.fallback, &self.set, &ranked, levels)
        });
        Picker {
            choices: choices.map(Box::new),
            stale_at: self.shared.epoch.instant(now.saturating_add(FRESH)),
            median,
            fresh_since: self.shared.load.fresh_since(now, FRESH),
            admit,
            zones: zones.collect(),
            trials,
            hashing: self.hashing.clone(),
            slots: self.slots(&ranked),
            ranks: Ranks {
                best: best.map_or(0, |(rank, _)| *rank),
                usable,
            },
            weight,
            levels: levels(ranked, usable, policy),
            ..Picker::empty(&self.options, &self.shared, &self.set, &self.turn)
        }
    }

    /// Returns the properties of each backend that hashing uses.
    fn slots(&self, ranked: &[(u32, Vec<Member<T>>)]) -> Vec<Slot> {
        if matches!(self.hashing, Hashing::None) {
            return Vec::new();
        }
        let drained = Slot {
            rank: DRAINED,
            weight: 0.0,
        };
        let mut slots = vec![drained; self.set.len()];
        for (rank, members) in ranked {
            for member in members {
                if let Some(slot) = slots.get_mut(member.index) {
                    (slot.rank, slot.weight) = (*rank, member.weight);
                }
            }
        }
        slots
    }

    /// Returns the usable backends by priority, the other two levels, and those that wait for the
    /// call that tests them.
    #[expect(clippy::type_complexity, reason = "it has one caller")]
    fn sort(
        &self,
        now: u64,
    ) -> (
        BTreeMap<u32, Vec<Member<T>>>,
        [Vec<Member<T>>; 2],
        Vec<(usize, Arc<Backend<T>>)>,
    ) {
        let mut groups = BTreeMap::<u32, Vec<Member<T>>>::new();
        let (mut resort, mut unreachable, mut trials) = (Vec::new(), Vec::new(), Vec::new());
        for (index, ((backend, info), health)) in self.set.iter().zip(&self.health).enumerate() {
            if info.weight == 0 {
                continue;
            }
            let warmth = health.warmth(now, &self.settings);
            let member = Member::new(backend, index, info.weight, warmth);
            match health.standing() {
                Standing::Usable => groups.entry(info.priority).or_default().push(member),
                Standing::LastResort => resort.push(member),
                Standing::Unreachable => unreachable.push(member),
            }
            if matches!(health.state(), State::HalfOpen { pinged: true, .. }) {
                trials.push((index, Arc::clone(backend)));
            }
        }
        (groups, [resort, unreachable], trials)
    }

    /// Returns the median of the latencies of usable backends in nanoseconds; 0 without samples.
    fn median(&self) -> f64 {
        let all = self.set.iter().zip(&self.health);
        let usable = all.filter(|(_, health)| health.standing() == Standing::Usable);
        let mut samples: Vec<_> = usable
            .filter_map(|((backend, _), _)| backend.load().sampled())
            .collect();
        let middle = samples.len() / 2;
        match samples.is_empty() {
            true => 0.0,
            false => *samples.select_nth_unstable_by(middle, f64::total_cmp).1,
        }
    }
}

/// Returns the tiers of usable backends, last resorts, and unreachable backends.
fn levels<T>(
    ranked: Vec<(u32, Vec<Member<T>>)>,
    usable: u32,
    policy: &Policy,
) -> [Vec<Tier<T>>; 3] {
    let mut levels: [Vec<Tier<T>>; 3] = Default::default();
    for (rank, members) in ranked {
        let level = rank.saturating_add(1).saturating_sub(usable) as usize;
        if let Some(tiers) = levels.get_mut(level) {
            tiers.push(Tier::new(members, policy));
        }
    }
    levels
}
