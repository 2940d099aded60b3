//! A table whose slots are reused in place: neither taking nor releasing a slot moves the others or
//! itself.

use std::fmt;

/// The identity of a call: its slot, and the number of calls that the slot had before. An id whose
/// call has ended finds nothing, even if its slot belongs to another call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallId {
    slot: u32,
    generation: u32,
}

impl CallId {
    #[cfg(any(test, fuzzing))]
    #[expect(clippy::cast_possible_truncation, reason = "tests use small numbers")]
    pub(crate) const fn of(slot: usize) -> Self {
        Self {
            slot: slot as u32,
            generation: 0,
        }
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) const fn slot(self) -> usize {
        self.slot as usize
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// Slots by [`CallId`].
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    /// The generation of slots that are added, so that the id of a slot that was removed is not
    /// used again.
    generation: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: T,
}

impl<T: Default> Slots<T> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            generation: 0,
        }
    }

    /// Takes a slot; its value is the default or that of an earlier call.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "calls are counted in thousands"
    )]
    pub(crate) fn take(&mut self) -> (CallId, &mut T) {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot {
                    generation: self.generation,
                    value: T::default(),
                });
                self.slots.len() as u32 - 1
            }
        };
        let Slot { generation, value } = &mut self.slots[slot as usize];
        let generation = *generation;
        (CallId { slot, generation }, value)
    }

    /// Releases a slot. Its id finds nothing from now on.
    #[inline]
    pub(crate) fn give_back(&mut self, id: CallId) {
        if let Some(slot) = self.slots.get_mut(id.slot as usize)
            && slot.generation == id.generation
        {
            // An old id would be mistaken for a new one only after 2^32 calls of its slot.
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(id.slot);
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: CallId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        (slot.generation == id.generation).then_some(&mut slot.value)
    }

    #[inline]
    pub(crate) fn get(&self, id: CallId) -> Option<&T> {
        let slot = self.slots.get(id.slot as usize)?;
        (slot.generation == id.generation).then_some(&slot.value)
    }

    /// Returns all slots, also those that are free.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (CallId, &T)> {
        self.slots.iter().zip(0..).map(|(slot, number)| {
            let id = CallId {
                slot: number,
                generation: slot.generation,
            };
            (id, &slot.value)
        })
    }

    /// Releases the memory of the free slots after the last one in use.
    pub(crate) fn shrink(&mut self) {
        // Slots are addressed by their index, so only those at the end can be removed.
        self.free.sort_unstable();
        while let Some(&last) = self.free.last()
            && last as usize + 1 == self.slots.len()
            && let Some(slot) = self.slots.pop()
        {
            self.free.pop();
            // A free slot has a higher generation than every id that was issued for it.
            self.generation = self.generation.max(slot.generation);
        }
        self.slots.shrink_to_fit();
        self.free.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_that_are_not_needed_any_more_are_given_back() {
        let mut slots = Slots::<u64>::new();
        let ids: Vec<CallId> = (0..1000).map(|_| slots.take().0).collect();
        assert!(ids.iter().map(|id| id.slot()).eq(0..1000));
        let kept = ids[7];
        ids.iter()
            .filter(|&&id| id != kept)
            .for_each(|&id| slots.give_back(id));
        slots.shrink();
        assert_eq!(slots.slots.len(), 8);
        assert!(slots.slots.capacity() < 100 && slots.free.capacity() < 100);
        // The other slots are reused, each once.
        let taken: Vec<CallId> = (0..8).map(|_| slots.take().0).collect();
        let mut numbers: Vec<usize> = taken.iter().map(|id| id.slot()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 8]);
        slots.give_back(kept);
        taken.into_iter().for_each(|id| slots.give_back(id));
        slots.shrink();
        assert_eq!((slots.slots.len(), slots.slots.capacity()), (0, 0));
    }

    #[test]
    fn an_id_finds_nothing_once_its_slot_was_released() {
        let mut slots = Slots::<u64>::new();
        let (first, value) = slots.take();
        *value = 1;
        slots.give_back(first);
        let (second, value) = slots.take();
        *value = 2;
        assert_eq!(second.slot(), first.slot());
        assert_eq!((slots.get(first), slots.get(second)), (None, Some(&2)));
        // A slot is released once.
        slots.give_back(first);
        assert_eq!(slots.get(second), Some(&2));
        // The ids of slots whose memory was released are not used again either.
        slots.give_back(second);
        slots.shrink();
        let (third, value) = slots.take();
        *value = 3;
        assert_eq!((slots.get(first), slots.get(second)), (None, None));
        assert_eq!(slots.get(third), Some(&3));
    }
}
