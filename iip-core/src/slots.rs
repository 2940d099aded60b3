//! A table whose places are used again, in place: neither taking nor giving back a place moves the others or itself.

/// Places numbered from 0. A place that was given back keeps its old value until it is taken again.
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

    /// Takes a place; what is in it is of no meaning.
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

    /// Gives a place back, once.
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
}
