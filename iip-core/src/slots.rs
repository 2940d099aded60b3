//! A table whose slots are reused in place: neither taking nor releasing a slot moves the others or
//! itself.

/// Slots numbered from 0. A released slot keeps its old value until it is taken again.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    places: Vec<T>,
    free: Vec<u32>,
}

impl<T: Default> Slots<T> {
    pub(crate) const fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Takes a slot; its content is meaningless.
    #[inline]
    pub(crate) fn take(&mut self) -> (usize, &mut T) {
        let index = match self.free.pop() {
            Some(index) => index as usize,
            None => {
                self.places.push(T::default());
                self.places.len() - 1
            }
        };
        (index, &mut self.places[index])
    }

    /// Releases a slot. Must be called only once for each time it was taken.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "calls are counted in thousands"
    )]
    pub(crate) fn give_back(&mut self, index: usize) {
        debug_assert!(!self.free.contains(&(index as u32)), "given back twice");
        self.free.push(index as u32);
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.places.get_mut(index)
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.places.get(index)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Releases the memory of the free slots after the last one in use.
    pub(crate) fn shrink(&mut self) {
        self.free.sort_unstable();
        while let Some(&last) = self.free.last()
            && last as usize + 1 == self.places.len()
        {
            self.free.pop();
            self.places.pop();
        }
        self.places.shrink_to_fit();
        self.free.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_are_not_needed_any_more_are_given_back() {
        let mut slots = Slots::<u64>::new();
        for index in 0..1000 {
            assert_eq!(slots.take().0, index);
        }
        for index in (0..1000).filter(|&index| index != 7) {
            slots.give_back(index);
        }
        slots.shrink();
        assert_eq!(slots.len(), 8);
        assert!(slots.places.capacity() < 100 && slots.free.capacity() < 100);
        // The other slots are reused, each once.
        let mut taken: Vec<_> = (0..8).map(|_| slots.take().0).collect();
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2, 3, 4, 5, 6, 8]);
        slots.give_back(7);
        taken.into_iter().for_each(|index| slots.give_back(index));
        slots.shrink();
        assert_eq!((slots.len(), slots.places.capacity()), (0, 0));
    }
}
