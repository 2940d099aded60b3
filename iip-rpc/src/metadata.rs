//! Metadata of a call: small pieces of information such as the user, a trace or a token.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeSeq, Serializer};

use crate::payload::Payload;

/// Keys and values that are sent with a request or a reply, in addition to its arguments or its
/// result.
///
/// An ordered multimap: a key may occur several times, and entries keep the order in which they
/// were added. Keys consist of lower-case ASCII letters, digits, `-`, `_` and `.`; values are any
/// bytes. Keys that begin with `iip-` are reserved for this crate. Empty metadata does not allocate
/// and takes no bytes on the wire.
///
/// # Limits
///
/// At most [`Metadata::MAX_BYTES`] in total, where each entry counts [`Metadata::ENTRY_BYTES`] in
/// addition to its key and its value. An entry beyond the limit is rejected when it is added, and
/// when it is received.
///
/// # Examples
///
/// ```
/// use iip_rpc::metadata::Metadata;
///
/// let mut metadata = Metadata::new();
/// metadata.insert_text("x-user", "ann")?;
/// metadata.append("x-trace", vec![0x17, 0xff])?;
/// assert_eq!(metadata.text("x-user"), Some("ann"));
/// # Ok::<(), iip_rpc::metadata::MetadataError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    // Boxed, because most calls have none, and each moves its metadata several times. `None` if
    // there are no entries.
    entries: Option<Box<Entries>>,
}

#[derive(Clone, Default, PartialEq, Eq)]
struct Entries {
    list: Vec<(Bytes, Bytes)>,
    size: usize,
}

impl Metadata {
    /// The largest total size of all entries: 16 KiB.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// Number of bytes that every entry counts in addition to its key and its value, as in HTTP/2:
    /// it bounds the number of entries too.
    pub const ENTRY_BYTES: usize = 32;

    /// Creates empty metadata. Does not allocate.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: None }
    }

    /// Sets `key` to one value, replacing all values it had.
    ///
    /// Takes a `String`, a `Vec<u8>`, a `Bytes` or anything `'static`;
    /// [`insert_text`](Self::insert_text) copies from a `&str`.
    ///
    /// # Errors
    ///
    /// [`MetadataError::InvalidKey`] for a key with other characters than allowed,
    /// [`MetadataError::TooLarge`] if the total would exceed [`Metadata::MAX_BYTES`]; the metadata
    /// is then unchanged.
    pub fn insert(&mut self, key: &str, value: impl Into<Bytes>) -> Result<(), MetadataError> {
        let value = value.into();
        check_key(key.as_bytes())?;
        let freed: usize = self
            .values(key)
            .map(|old| entry_size(key.len(), old.len()))
            .sum();
        let size = fits(self.size_bytes() - freed, key.len(), value.len())?;
        let entries = self.entries.get_or_insert_default();
        if freed > 0 {
            entries.list.retain(|(known, _)| known != key.as_bytes());
        }
        let key = Bytes::copy_from_slice(key.as_bytes());
        entries.list.push((key, value));
        entries.size = size;
        Ok(())
    }

    /// Adds a value to `key` after those it has.
    ///
    /// # Errors
    ///
    /// Like [`insert`](Self::insert).
    pub fn append(&mut self, key: &str, value: impl Into<Bytes>) -> Result<(), MetadataError> {
        check_key(key.as_bytes())?;
        self.push(Bytes::copy_from_slice(key.as_bytes()), value.into())
    }

    /// Sets `key` to a text, replacing all values it had.
    ///
    /// # Errors
    ///
    /// Like [`insert`](Self::insert).
    pub fn insert_text(&mut self, key: &str, value: &str) -> Result<(), MetadataError> {
        self.insert(key, Bytes::copy_from_slice(value.as_bytes()))
    }

    /// The first value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Bytes> {
        self.values(key).next()
    }

    /// The first value of `key` as text; `None` also if it is not UTF-8.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.get(key)?).ok()
    }

    /// All values of `key`, in the order in which they were added.
    pub fn values<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a Bytes> {
        let wanted = key.as_bytes();
        self.list()
            .iter()
            .filter(move |(known, _)| known == wanted)
            .map(|(_, value)| value)
    }

    /// Removes `key` with all its values. Returns `true` if it was present.
    pub fn remove(&mut self, key: &str) -> bool {
        let Some(entries) = &mut self.entries else {
            return false;
        };
        let before = entries.list.len();
        entries.list.retain(|(known, _)| known != key.as_bytes());
        let left = entries.list.len();
        let sizes = entries
            .list
            .iter()
            .map(|(k, v)| entry_size(k.len(), v.len()));
        entries.size = sizes.sum();
        if left == 0 {
            self.entries = None;
        }
        before != left
    }

    /// Adds all entries of `other` after the existing ones.
    ///
    /// # Errors
    ///
    /// [`MetadataError::TooLarge`] if the two do not fit together; the metadata is then unchanged.
    pub fn append_all(&mut self, other: &Self) -> Result<(), MetadataError> {
        let size = self.size_bytes() + other.size_bytes();
        if size > Self::MAX_BYTES {
            return Err(MetadataError::TooLarge { size });
        }
        if !other.is_empty() {
            let entries = self.entries.get_or_insert_default();
            entries.list.extend_from_slice(other.list());
            entries.size = size;
        }
        Ok(())
    }

    /// Adds all entries of `other`; its keys replace those of the same name.
    ///
    /// # Errors
    ///
    /// Like [`append_all`](Self::append_all).
    pub(crate) fn replace_all(&mut self, other: &Self) -> Result<(), MetadataError> {
        let mut merged = self.clone();
        for (key, _) in other.iter() {
            merged.remove(key);
        }
        merged.append_all(other)?;
        *self = merged;
        Ok(())
    }

    /// All entries in their order; a key with several values occurs several times.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Bytes)> {
        self.list().iter().map(|(key, value)| {
            // Keys were checked to be ASCII when they were added.
            (std::str::from_utf8(key).unwrap_or_default(), value)
        })
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list().len()
    }

    /// Returns `true` if there are no entries.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_none()
    }

    /// The total size that [`Metadata::MAX_BYTES`] limits: keys, values and
    /// [`Metadata::ENTRY_BYTES`] for each entry.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.entries.as_ref().map_or(0, |entries| entries.size)
    }

    fn list(&self) -> &[(Bytes, Bytes)] {
        self.entries.as_ref().map_or(&[], |entries| &entries.list)
    }

    /// Adds an entry whose key shares memory with others, as received from the peer.
    pub(crate) fn push_unchecked_memory(
        &mut self,
        key: Bytes,
        value: Bytes,
    ) -> Result<(), MetadataError> {
        check_key(&key)?;
        self.push(key, value)
    }

    fn push(&mut self, key: Bytes, value: Bytes) -> Result<(), MetadataError> {
        let size = fits(self.size_bytes(), key.len(), value.len())?;
        let entries = self.entries.get_or_insert_default();
        entries.list.push((key, value));
        entries.size = size;
        Ok(())
    }
}

/// Prints keys and the lengths of their values. Values stay out of logs: they may be secrets.
impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.iter()
                    .map(|(key, value)| (key, format_args!("{} bytes", value.len()).to_string())),
            )
            .finish()
    }
}

/// Serializes a sequence of pairs of key and value. In JSON a value that is UTF-8 is a text, any
/// other an array of numbers.
impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = serializer.is_human_readable();
        let mut entries = serializer.serialize_seq(Some(self.len()))?;
        for (key, value) in self.iter() {
            match std::str::from_utf8(value) {
                Ok(value) if text => entries.serialize_element(&(key, value))?,
                _ => entries.serialize_element(&(key, value))?,
            }
        }
        entries.end()
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = Vec::<(String, Payload)>::deserialize(deserializer)?;
        let mut metadata = Self::new();
        for (key, value) in entries {
            metadata
                .append(&key, Bytes::from(value))
                .map_err(D::Error::custom)?;
        }
        Ok(metadata)
    }
}

/// The reason why an entry is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// The key is empty or has other characters than lower-case ASCII letters, digits, `-`, `_` and
    /// `.`.
    #[error(
        "{key:?} is not a metadata key: keys consist of lower-case ascii letters, digits, '-', '_' \
         and '.'"
    )]
    InvalidKey {
        /// The key, cut to its first 64 characters.
        key: String,
    },
    /// The entries together are larger than [`Metadata::MAX_BYTES`].
    #[error(
        "metadata of {size} bytes (32 of them for each entry) is over its limit of {limit} bytes; \
         send large values as arguments",
        limit = Metadata::MAX_BYTES
    )]
    TooLarge {
        /// The size that they would have had.
        size: usize,
    },
}

fn check_key(key: &[u8]) -> Result<(), MetadataError> {
    let allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    if !key.is_empty() && key.iter().all(allowed) {
        return Ok(());
    }
    Err(MetadataError::InvalidKey {
        key: String::from_utf8_lossy(key).chars().take(64).collect(),
    })
}

fn entry_size(key: usize, value: usize) -> usize {
    key.saturating_add(value)
        .saturating_add(Metadata::ENTRY_BYTES)
}

fn fits(size: usize, key: usize, value: usize) -> Result<usize, MetadataError> {
    let size = size.saturating_add(entry_size(key, value));
    if size > Metadata::MAX_BYTES {
        return Err(MetadataError::TooLarge { size });
    }
    Ok(size)
}

/// For policies that choose the backends of a call.
impl iip_core::balance::CallMetadata for Metadata {
    fn text(&self, name: &str) -> Option<&str> {
        Self::text(self, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_order_and_keys_may_repeat() {
        let mut metadata = Metadata::new();
        metadata.append("b", "1").unwrap();
        metadata.append("a", "2").unwrap();
        metadata.append("b", vec![0xff]).unwrap();
        assert_eq!(metadata.len(), 3);
        assert_eq!(
            metadata.iter().map(|(key, _)| key).collect::<Vec<_>>(),
            ["b", "a", "b"]
        );
        assert_eq!(
            metadata.values("b").map(|v| v.to_vec()).collect::<Vec<_>>(),
            [b"1".to_vec(), vec![0xff]]
        );
        assert_eq!(metadata.text("a"), Some("2"));
        assert_eq!(metadata.get("c"), None);
    }

    #[test]
    fn insert_replaces_all_values_of_the_key() {
        let mut metadata = Metadata::new();
        metadata.append("k", "old").unwrap();
        metadata.append("k", "older").unwrap();
        metadata.insert("k", "new").unwrap();
        assert_eq!(metadata.len(), 1);
        assert_eq!(metadata.text("k"), Some("new"));
        assert_eq!(metadata.size_bytes(), 1 + 3 + 32);
        assert!(metadata.remove("k"));
        assert!(!metadata.remove("k"));
        assert_eq!(metadata.size_bytes(), 0);
    }

    #[test]
    fn text_is_none_for_bytes_that_are_not_utf8() {
        let mut metadata = Metadata::new();
        metadata.insert("k", vec![0xff, 0xfe]).unwrap();
        assert_eq!(metadata.text("k"), None);
        assert!(metadata.get("k").is_some());
    }

    #[test]
    fn keys_outside_the_alphabet_are_rejected() {
        for key in ["", "Upper", "sp ace", "ümlaut", "a:b", "a\nb", "a\0"] {
            let error = Metadata::new().insert_text(key, "v").unwrap_err();
            assert!(matches!(error, MetadataError::InvalidKey { .. }), "{key:?}");
        }
        assert!(Metadata::new().insert_text("a-b_c.d9", "v").is_ok());
    }

    #[test]
    fn the_total_is_limited_and_a_rejected_entry_changes_nothing() {
        let mut metadata = Metadata::new();
        metadata.insert("k", vec![0; 16 * 1024 - 33]).unwrap();
        let before = metadata.clone();
        let error = metadata.append("x", "").unwrap_err();
        assert_eq!(
            error,
            MetadataError::TooLarge {
                size: 16 * 1024 + 33
            }
        );
        assert_eq!(metadata, before);
        assert!(metadata.append_all(&before).is_err());
        // The value that is replaced is removed first.
        metadata.insert("k", vec![1; 16 * 1024 - 33]).unwrap();
    }

    #[test]
    fn debug_shows_no_value() {
        let mut metadata = Metadata::new();
        metadata.insert_text("authorization", "secret").unwrap();
        let text = format!("{metadata:?}");
        assert!(
            text.contains("authorization") && !text.contains("secret"),
            "{text}"
        );
    }

    #[test]
    fn json_shows_texts_as_texts_and_reads_them_back() {
        let mut metadata = Metadata::new();
        metadata.append("t", "text").unwrap();
        metadata.append("b", vec![200]).unwrap();
        let json = serde_json::to_string(&metadata).unwrap();
        assert_eq!(json, r#"[["t","text"],["b",[200]]]"#);
        assert_eq!(serde_json::from_str::<Metadata>(&json).unwrap(), metadata);
        assert!(serde_json::from_str::<Metadata>(r#"[["Bad","x"]]"#).is_err());
    }
}
