//! Values of any type attached to a call on one side of it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Map with one value of each type. An empty one takes the size of a pointer and does not allocate.
#[derive(Clone, Default)]
pub(crate) struct Extensions(Option<Box<Map>>);

type Map = HashMap<TypeId, Arc<dyn Any + Send + Sync>>;

impl Extensions {
    pub(crate) fn insert<T: Any + Send + Sync>(&mut self, value: T) -> Option<Arc<T>> {
        let map = self.0.get_or_insert_default();
        let old = map.insert(TypeId::of::<T>(), Arc::new(value))?;
        old.downcast().ok()
    }

    pub(crate) fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let value = self.0.as_ref()?.get(&TypeId::of::<T>())?;
        Arc::clone(value).downcast().ok()
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.as_ref().map_or(0, |map| map.len());
        write!(f, "{count} extensions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_type_and_replaced_by_the_next_one() {
        let mut extensions = Extensions::default();
        assert_eq!(extensions.get::<u8>(), None);
        assert_eq!(extensions.insert(1_u8), None);
        assert_eq!(extensions.insert("text"), None);
        assert_eq!(extensions.insert(2_u8).as_deref(), Some(&1));
        let copy = extensions.clone();
        assert_eq!(copy.get::<u8>().as_deref(), Some(&2));
        assert_eq!(copy.get::<&str>().as_deref(), Some(&"text"));
        assert_eq!(copy.get::<u16>(), None);
    }
}
