//! The keys below a prefix, as far as they are known.

use std::collections::BTreeMap;
use std::sync::Arc;

use iip_core::balance::BackendInfo;

use crate::answer::KeyValue;
use crate::failure::{Failure, printable};
use crate::value::read_backend;

/// The maximum of the memory that all keys below the prefix take.
pub(crate) const MAX_TOTAL: usize = 64 * 1024 * 1024;

/// The bytes that an entry takes besides its key and its value, in memory and in snapshots.
const OVERHEAD: usize = 512;

/// A prefix of keys, which ends with a slash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Prefix(String);

impl Prefix {
    /// Appends a slash unless there is one: `/services/orders` must not find `/services/orders2/a`.
    pub(crate) fn new(mut text: String) -> Self {
        if !text.ends_with('/') {
            text.push('/');
        }
        Self(text)
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Returns the first key that is greater than all keys with the prefix.
    pub(crate) fn range_end(&self) -> Vec<u8> {
        range_end(self.0.as_bytes())
    }

    pub(crate) fn key(&self, id: &str) -> String {
        format!("{}{id}", self.0)
    }
}

/// Returns the first key that is greater than all keys with a prefix. If there is none, it is a
/// zero byte, by which etcd means the end of all keys.
fn range_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    vec![0]
}

/// The keys below a prefix at a revision.
#[derive(Debug)]
pub(crate) struct Keys {
    prefix: Arc<Prefix>,
    entries: BTreeMap<Vec<u8>, Entry>,
    bytes: usize,
    revision: i64,
}

#[derive(Clone, Debug)]
struct Entry {
    mod_revision: i64,
    size: usize,
    /// `None` if the value cannot be read.
    backend: Option<BackendInfo>,
}

impl Keys {
    pub(crate) fn new(prefix: Arc<Prefix>, revision: i64) -> Self {
        Self {
            prefix,
            entries: BTreeMap::new(),
            bytes: 0,
            revision,
        }
    }

    /// Returns the revision up to which all changes are known.
    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    /// Returns the number of keys, including those whose value cannot be read.
    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }

    /// Adds or replaces a key. `old` are the keys before this one began to be filled: what they had
    /// at the same revision is not read again, and no warning about it is repeated.
    pub(crate) fn put(&mut self, pair: KeyValue, old: Option<&Self>) -> Result<(), Failure> {
        let KeyValue {
            key,
            value,
            mod_revision,
        } = pair;
        let Some(id) = key.0.strip_prefix(self.prefix.text().as_bytes()) else {
            return Err(self.foreign(&key.0));
        };
        let size = key.0.len() + value.0.len() + OVERHEAD;
        let known = old.unwrap_or(self).entries.get(&key.0);
        let entry = match known {
            Some(known) if known.mod_revision == mod_revision.0 => known.clone(),
            _ => Entry {
                mod_revision: mod_revision.0,
                size,
                backend: self.read(id, &value.0, mod_revision.0),
            },
        };
        self.revision = self.revision.max(mod_revision.0);
        self.bytes += entry.size;
        if let Some(replaced) = self.entries.insert(key.0, entry) {
            self.bytes -= replaced.size;
        }
        match self.bytes > MAX_TOTAL {
            true => Err(Failure::Bad(format!(
                "the keys below `{}` take more than {MAX_TOTAL} bytes",
                self.prefix.text()
            ))),
            false => Ok(()),
        }
    }

    /// Removes a key.
    pub(crate) fn delete(&mut self, pair: &KeyValue) -> Result<(), Failure> {
        if !pair.key.0.starts_with(self.prefix.text().as_bytes()) {
            return Err(self.foreign(&pair.key.0));
        }
        self.revision = self.revision.max(pair.mod_revision.0);
        if let Some(removed) = self.entries.remove(&pair.key.0) {
            self.bytes -= removed.size;
        }
        Ok(())
    }

    /// Returns the backends, in the order of their keys.
    pub(crate) fn backends(&self) -> Arc<[BackendInfo]> {
        self.entries
            .values()
            .filter_map(|entry| entry.backend.clone())
            .collect()
    }

    fn read(&self, id: &[u8], value: &[u8], mod_revision: i64) -> Option<BackendInfo> {
        match read_backend(id, value) {
            Ok(backend) => Some(backend),
            Err(reason) => {
                let prefix = self.prefix.text();
                tracing::warn!(
                    key = format!("{prefix}{}", printable(id)),
                    revision = mod_revision,
                    reason,
                    "a key of etcd is skipped: its value is not that of a server"
                );
                None
            }
        }
    }

    fn foreign(&self, key: &[u8]) -> Failure {
        Failure::Bad(format!(
            "etcd sent the key `{}`, which is not below `{}`",
            printable(key),
            self.prefix.text()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{Blob, Number};

    fn pair(key: &str, value: &str, revision: i64) -> KeyValue {
        KeyValue {
            key: Blob(key.into()),
            value: Blob(value.into()),
            mod_revision: Number(revision),
        }
    }

    fn keys() -> Keys {
        Keys::new(Arc::new(Prefix::new("/a".into())), 1)
    }

    fn ids(keys: &Keys) -> Vec<String> {
        keys.backends()
            .iter()
            .map(|info| info.id.to_string())
            .collect()
    }

    #[test]
    fn the_end_of_a_range_is_the_first_key_behind_it() {
        assert_eq!(range_end(b"/a/"), b"/a0");
        assert_eq!(range_end(b"a\xff\xff"), b"b");
        assert_eq!(range_end(b"\xff"), [0]);
        assert_eq!(range_end(b""), [0]);
        assert_eq!(Prefix::new("/a".into()).text(), "/a/");
        assert_eq!(Prefix::new("/a/".into()).key("b"), "/a/b");
    }

    #[test]
    fn changes_are_applied_and_keys_that_cannot_be_read_are_counted() {
        let mut keys = keys();
        keys.put(pair("/a/y", "1.1.1.1:1#1", 2), None).unwrap();
        keys.put(pair("/a/x", "1.1.1.1:2#1", 4), None).unwrap();
        keys.put(pair("/a/bad", "?", 3), None).unwrap();
        assert_eq!(ids(&keys), ["x", "y"]);
        assert_eq!((keys.count(), keys.revision()), (3, 4));
        keys.put(pair("/a/y", "?", 5), None).unwrap();
        assert_eq!(ids(&keys), ["x"]);
        keys.delete(&pair("/a/x", "", 6)).unwrap();
        keys.delete(&pair("/a/unknown", "", 7)).unwrap();
        assert_eq!((keys.count(), keys.revision()), (2, 7));
        keys.delete(&pair("/a/y", "", 8)).unwrap();
        keys.delete(&pair("/a/bad", "", 9)).unwrap();
        assert_eq!(keys.bytes, 0);
    }

    #[test]
    fn a_key_with_the_same_revision_is_not_read_again() {
        let mut old = keys();
        old.put(pair("/a/x", "1.1.1.1:1#1", 2), None).unwrap();
        let mut new = keys();
        new.put(pair("/a/x", "?", 2), Some(&old)).unwrap();
        assert_eq!(ids(&new), ["x"]);
        new.put(pair("/a/x", "?", 3), Some(&old)).unwrap();
        assert!(ids(&new).is_empty());
    }

    #[test]
    fn keys_of_others_and_too_many_bytes_are_errors() {
        let mut keys = keys();
        let error = keys.put(pair("/b/x", "1.1.1.1:1#1", 2), None).unwrap_err();
        assert!(error.to_string().contains("`/b/x`"), "{error}");
        assert!(keys.delete(&pair("/ax", "", 2)).is_err());
        keys.bytes = MAX_TOTAL - 10;
        let error = keys.put(pair("/a/x", "1.1.1.1:1#1", 2), None).unwrap_err();
        assert!(error.to_string().contains("67108864"), "{error}");
    }
}
