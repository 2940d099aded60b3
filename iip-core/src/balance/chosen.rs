//! Picking from the backends that the application has chosen for a call.

use std::sync::Arc;

use super::backend::Backend;
use super::choices::Choices;
use super::choose::{Choice, Fallback};
use super::picker::{DRAINED, PickError, PickHint, Picker, pick_levels};
use super::tier::Draw;

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
