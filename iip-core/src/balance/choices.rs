//! The backends and groups that the application can choose from.

use std::collections::BTreeMap;

use super::choose::Fallback;
use super::set::BackendSet;
use super::tier::{Member, Tier};

/// A list of members for each rank.
pub(super) type Ranked<T> = Vec<(u32, Vec<Member<T>>)>;

/// The backends by their ids and groups.
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
pub(super) struct Group<T> {
    name: Box<str>,
    pub(super) levels: [Vec<Tier<T>>; 3],
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

    pub(super) fn group(&self, name: &str) -> Option<&Group<T>> {
        let found = self
            .groups
            .binary_search_by(|group| (*group.name).cmp(name));
        self.groups.get(found.ok()?)
    }

    /// Returns the positions of the backends with an id. Several have it if they have different
    /// addresses.
    pub(super) fn backends<'a>(
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
