//! The backends of a client at one point in time, and what a new snapshot changes.

use std::collections::HashMap;
use std::sync::Arc;

use super::backend::{Backend, BackendId, BackendInfo};
use crate::transport::Endpoint;

/// The backends of a client at one point in time, in the order of their source.
#[derive(Debug)]
pub struct BackendSet<T = ()> {
    entries: Vec<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    backend: Arc<Backend<T>>,
    /// The description in the latest snapshot.
    info: Arc<BackendInfo>,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self {
            backend: Arc::clone(&self.backend),
            info: Arc::clone(&self.info),
        }
    }
}

/// The changes that a snapshot has made to the set of backends.
#[derive(Debug)]
#[must_use]
pub struct SetChange<T = ()> {
    /// The number of backends that have stayed, changed ones included.
    pub kept: usize,
    /// The backends that are new: another id, or another address under the same id.
    pub added: Vec<Arc<Backend<T>>>,
    /// The backends that are gone. Calls in flight may finish.
    pub removed: Vec<Arc<Backend<T>>>,
    /// The backends with another weight, zone, priority or metadata. Their statistics have stayed.
    pub changed: Vec<Arc<Backend<T>>>,
}

impl<T> SetChange<T> {
    /// Returns `true` if the snapshot has changed nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

impl<T> Default for BackendSet<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
        }
    }
}

impl<T> BackendSet<T> {
    /// Returns the number of backends.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns `true` if there are no backends.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the backend at a position.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Arc<Backend<T>>> {
        self.entries.get(index).map(|entry| &entry.backend)
    }

    /// Returns the current description of the backend at a position.
    #[must_use]
    pub fn info(&self, index: usize) -> Option<&BackendInfo> {
        self.entries.get(index).map(|entry| &*entry.info)
    }

    /// Returns the position of a backend.
    #[must_use]
    pub fn position(&self, id: BackendId) -> Option<usize> {
        self.entries
            .iter()
            .position(|entry| entry.backend.id() == id)
    }

    /// Returns the backends with their current descriptions.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Arc<Backend<T>>, &BackendInfo)> {
        self.entries
            .iter()
            .map(|entry| (&entry.backend, &*entry.info))
    }

    /// Returns the set of `snapshot`, which shares the backends that stay, and the positions that
    /// these had. A backend stays if its id and its address do. A repetition of both is skipped.
    pub(super) fn replace<'a>(
        &self,
        snapshot: impl ExactSizeIterator<Item = &'a BackendInfo>,
        mut add: impl FnMut(&Arc<BackendInfo>) -> Arc<Backend<T>>,
    ) -> (Self, Vec<Option<usize>>, SetChange<T>) {
        let key = |info: &'a BackendInfo| (&*info.id, &info.endpoint);
        let mut old = self.by_key();
        let mut seen = HashMap::with_capacity(snapshot.len());
        let mut change = SetChange {
            kept: 0,
            added: Vec::new(),
            removed: Vec::new(),
            changed: Vec::new(),
        };
        let (mut entries, mut positions) = (Vec::with_capacity(snapshot.len()), Vec::new());
        for info in snapshot {
            if seen.insert(key(info), ()).is_some() {
                continue;
            }
            let position = old.remove(&(&*info.id, &info.endpoint));
            positions.push(position);
            let entry = match position.and_then(|position| self.entries.get(position)) {
                Some(entry) if *entry.info == *info => entry.clone(),
                Some(entry) => {
                    change.changed.push(Arc::clone(&entry.backend));
                    Entry {
                        backend: Arc::clone(&entry.backend),
                        info: Arc::new(info.clone()),
                    }
                }
                None => {
                    let info = Arc::new(info.clone());
                    let backend = add(&info);
                    change.added.push(Arc::clone(&backend));
                    Entry { backend, info }
                }
            };
            entries.push(entry);
        }
        change.kept = entries.len() - change.added.len();
        let mut removed: Vec<_> = old.into_values().collect();
        removed.sort_unstable();
        let gone = removed
            .into_iter()
            .filter_map(|position| self.get(position));
        change.removed = gone.map(Arc::clone).collect();
        (Self { entries }, positions, change)
    }

    fn by_key(&self) -> HashMap<(&str, &Endpoint), usize> {
        let keys = self.entries.iter().enumerate();
        keys.map(|(position, entry)| ((&*entry.info.id, &entry.info.endpoint), position))
            .collect()
    }
}
