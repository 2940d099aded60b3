//! Picking from the backends that the application has chosen for a call.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::backend::Backend;
use super::choose::{Choice, Fallback};
use super::picker::{DRAINED, PickError, PickHint, Picker, pick_levels};
use super::set::BackendSet;
use super::tier::{Draw, Member, Tier};

/// A list of members for each rank.
pub(super) type Ranked<T> = Vec<(u32, Vec<Member<T>>)>;

/// The backends by their names.
#[derive(Debug)]
pub(super) struct Choices<T> {
    pub(super) fallback: Fallback,
    /// The positions of all backends, in the order of their ids.
    ids: Vec<usize>,
    /// In the order of their names.
    groups: Vec<Group<T>>,
}

/// The backends of a group that are not drained.
#[derive(Debug)]
struct Group<T> {
    name: Box<str>,
    levels: [Vec<Tier<T>>; 3],
}

impl<T> Choices<T> {
    /// Prepares the backends of a set. `levels` makes the tiers of a group from its members.
    pub(super) fn new(
        fallback: Fallback,
        set: &BackendSet<T>,
        ranked: &[(u32, Vec<Member<T>>)],
        levels: impl Fn(Ranked<T>) -> [Vec<Tier<T>>; 3],
    ) -> Self {
        let mut ids: Vec<_> = (0..set.len()).collect();
        ids.sort_by_key(|index| set.info(*index).map(|info| &*info.id));
        let mut groups = BTreeMap::<&str, Ranked<T>>::new();
        for (rank, members) in ranked {
            for member in members {
                let names = set.info(member.index).into_iter();
                for name in names.flat_map(|info| info.groups()) {
                    let group = groups.entry(name).or_default();
                    match group.last_mut() {
                        Some((last, members)) if last == rank => members.push(member.clone()),
                        _ => group.push((*rank, vec![member.clone()])),
                    }
                }
            }
        }
        let groups = groups.into_iter().map(|(name, ranked)| Group {
            name: name.into(),
            levels: levels(ranked),
        });
        Self {
            fallback,
            ids,
            groups: groups.collect(),
        }
    }

    fn group(&self, name: &str) -> Option<&Group<T>> {
        let found = self
            .groups
            .binary_search_by(|group| (*group.name).cmp(name));
        self.groups.get(found.ok()?)
    }

    /// Returns the positions of the backends with an id. Several have it if they have different
    /// addresses.
    fn backends<'a>(
        &'a self,
        set: &'a BackendSet<T>,
        id: &'a str,
    ) -> impl Iterator<Item = usize> + 'a {
        let id_of = |index: &usize| set.info(*index).map(|info| &*info.id);
        let start = self.ids.partition_point(|index| id_of(index) < Some(id));
        let rest = self.ids.iter().skip(start);
        rest.take_while(move |index| id_of(index) == Some(id))
            .copied()
    }
}

impl<T> Picker<T> {
    /// Picks from the backends that were chosen for the call.
    pub(super) fn pick_chosen<'h>(
        &self,
        hint: &PickHint<'h>,
        draw: &mut Draw<'h>,
    ) -> Result<(usize, &Arc<Backend<T>>), PickError> {
        let any = |draw: &mut Draw<'h>| self.pick_tier(hint, draw).ok_or(PickError::NoBackend);
        let (Some(choices), Some(choice)) = (&self.choices, hint.choice) else {
            return any(draw);
        };
        let found = match choice {
            Choice::Any => return any(draw),
            Choice::Reject(_) => return Err(PickError::Rejected),
            Choice::NotFound(_) => None,
            Choice::Backend(id) => self.pick_backend(choices, id, draw),
            Choice::Group(name) => choices
                .group(name)
                .and_then(|group| match choices.fallback {
                    Fallback::Fail => pick_levels(&group.levels, hint, draw),
                    // Excluded backends and those that are not usable are left to the fallback.
                    Fallback::Any => {
                        let [usable, ..] = &group.levels;
                        let member = usable.iter().find_map(|tier| tier.pick(draw))?;
                        Some((member.index, &member.backend))
                    }
                }),
        };
        match (found, choices.fallback) {
            (Some(found), _) => Ok(found),
            (None, Fallback::Any) => any(draw),
            // There may be no snapshot yet.
            (None, Fallback::Fail) if self.set.is_empty() => Err(PickError::NoBackend),
            (None, Fallback::Fail) => Err(PickError::NotFound),
        }
    }

    /// Picks the backend with an id. Of several, usable ones come first, then those that the call
    /// has not been sent to, the lowest priority, and the fewest calls in flight.
    fn pick_backend(
        &self,
        choices: &Choices<T>,
        id: &str,
        draw: &Draw<'_>,
    ) -> Option<(usize, &Arc<Backend<T>>)> {
        let usable = self.ranks.usable;
        let found = choices.backends(&self.set, id).filter_map(|index| {
            let (slot, backend) = (self.slots.get(index)?, self.set.get(index)?);
            let level = slot.rank.saturating_sub(usable.saturating_sub(1));
            let accepted = draw.accepts(backend);
            let taken = match choices.fallback {
                Fallback::Fail => slot.rank != DRAINED,
                Fallback::Any => slot.rank < usable && accepted,
            };
            let key = (level, !accepted, slot.rank, backend.load().in_flight());
            taken.then_some((key, (index, backend)))
        });
        found.min_by_key(|(key, _)| *key).map(|(_, found)| found)
    }

    /// Returns `true` if a backend is one of those that were chosen.
    pub(super) fn is_chosen(&self, index: usize, hint: &PickHint<'_>) -> bool {
        let (Some(_), Some(choice)) = (&self.choices, hint.choice) else {
            return true;
        };
        self.set.info(index).is_some_and(|info| match choice {
            Choice::Any => true,
            Choice::Backend(id) => *info.id == **id,
            Choice::Group(name) => info.groups().any(|group| group == name),
            Choice::NotFound(_) | Choice::Reject(_) => false,
        })
    }
}
