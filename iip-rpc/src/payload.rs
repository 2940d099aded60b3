//! Bytes as arguments and results, without copying them.
//!
//! serde gives a type only a borrowed slice of the message that is decoded, and gives a format only
//! a borrowed slice of the value that is encoded, so both would have to copy. This module therefore
//! keeps the message in a thread-local while it is decoded, so that a [`Payload`] can share its
//! memory, and keeps the payload while it is encoded, so that the encoder can pass it on.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Size from which a received [`Payload`] shares the memory of its message. A smaller one is
/// copied, which costs less than sharing and does not keep the whole receive buffer alive.
pub const SHARE_FROM_BYTES: usize = 2 * 1024;

/// Size from which a [`Payload`] at the end of a message is sent from its own memory, without being
/// copied after the rest of the message.
pub const SPLIT_FROM_BYTES: usize = 4 * 1024;

/// Bytes as an argument, as a result, or anywhere inside one, that are sent and received without a
/// copy.
///
/// On the wire it is the same as `Vec<u8>` and `bytes::Bytes`, so the two sides need not use the
/// same type. A received payload shares the memory of the message instead of copying it (from 2 KiB
/// on). As the last part of a message, it is sent from its own memory (from 4 KiB on). An argument
/// that is a plain `bytes::Bytes` is received without a copy too; inside another type only
/// `Payload` is.
///
/// In JSON it is an array of numbers; a text is read as its UTF-8 bytes.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use iip_rpc::payload::Payload;
///
/// let payload = Payload::from(Bytes::from_static(b"abc"));
/// assert_eq!(payload.len(), 3);
/// assert_eq!(Bytes::from(payload), "abc");
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Payload(Bytes);

impl Payload {
    /// Creates an empty payload. Does not allocate.
    #[must_use]
    pub const fn new() -> Self {
        Self(Bytes::new())
    }

    /// The bytes, which still share the memory that they are a part of.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for Payload {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Payload {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Bytes> for Payload {
    #[inline]
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&'static [u8]> for Payload {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Bytes::from_static(bytes))
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<Payload> for Bytes {
    #[inline]
    fn from(payload: Payload) -> Self {
        payload.0
    }
}

impl From<Payload> for Vec<u8> {
    fn from(payload: Payload) -> Self {
        payload.0.into()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

impl Serialize for Payload {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let _offer = Offer::make(&self.0);
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Payload {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(PayloadVisitor)
    }
}

struct PayloadVisitor;

impl<'de> Visitor<'de> for PayloadVisitor {
    type Value = Payload;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    #[inline]
    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Payload, E> {
        Ok(Payload(share(bytes)))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Payload, E> {
        Ok(Payload(Bytes::copy_from_slice(bytes)))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Payload, E> {
        Ok(Payload(bytes.into()))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Payload, E> {
        Ok(Payload(share(text.as_bytes())))
    }

    fn visit_str<E>(self, text: &str) -> Result<Payload, E> {
        Ok(Payload(Bytes::copy_from_slice(text.as_bytes())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Payload, A::Error> {
        VecVisitor.visit_seq(seq).map(Payload::from)
    }
}

/// Reads a `Vec<u8>` with a single copy, from a format in which a sequence of bytes and bytes are
/// the same.
struct VecVisitor;

impl<'de> Visitor<'de> for VecVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(4096));
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}

/// A value that is sent with its static type known: a `bytes::Bytes` in it is sent without a copy,
/// like a [`Payload`].
///
/// Generated code wraps the arguments that it owns. The wrapper does not change the encoding.
#[derive(Debug, Clone, Copy)]
pub struct ByValue<T>(pub T);

impl<T: Serialize + 'static> Serialize for ByValue<T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let _offer = (&self.0 as &dyn Any).downcast_ref().and_then(Offer::make);
        self.0.serialize(serializer)
    }
}

/// Reads a `T`: `Bytes` without a copy, and `Vec<u8>` in one copy if `bytes_are_sequences`; every
/// other type with its own `Deserialize`.
#[inline]
pub(crate) fn deserialize_owned<'de, T, D>(
    deserializer: D,
    bytes_are_sequences: bool,
) -> Result<T, D::Error>
where
    T: Deserialize<'de> + 'static,
    D: Deserializer<'de>,
{
    // Evaluated at compile time.
    match Shortcut::of(TypeId::of::<T>(), bytes_are_sequences) {
        None => T::deserialize(deserializer),
        Some(shortcut) => shortcut.read(deserializer)?.into_type(),
    }
}

/// The types that are read without the detour through `Deserialize`.
#[derive(Clone, Copy)]
enum Shortcut {
    Bytes,
    Vec,
}

impl Shortcut {
    #[inline]
    fn of(target: TypeId, bytes_are_sequences: bool) -> Option<Self> {
        if target == TypeId::of::<Bytes>() {
            Some(Self::Bytes)
        } else if target == TypeId::of::<Vec<u8>>() && bytes_are_sequences {
            Some(Self::Vec)
        } else {
            None
        }
    }

    #[inline]
    fn read<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<Read, D::Error> {
        Ok(match self {
            Self::Bytes => Read::Bytes(Some(Payload::deserialize(deserializer)?.0)),
            Self::Vec => Read::Vec(Some(deserializer.deserialize_byte_buf(VecVisitor)?)),
        })
    }
}

/// A value that was read by a [`Shortcut`].
enum Read {
    Bytes(Option<Bytes>),
    Vec(Option<Vec<u8>>),
}

impl Read {
    /// Converts the value to its type, under the name that its type has for the caller.
    // Where it is inlined, both types are known and this is a move, which the compiler cannot tell
    // when it decides about inlining.
    #[inline(always)]
    fn into_type<T: 'static, E: serde::de::Error>(mut self) -> Result<T, E> {
        let value: &mut dyn Any = match &mut self {
            Self::Bytes(bytes) => bytes,
            Self::Vec(vec) => vec,
        };
        let value = value.downcast_mut::<Option<T>>().and_then(Option::take);
        value.ok_or_else(|| E::custom("not the same type"))
    }
}

thread_local! {
    /// The message that is being read on this thread.
    static MESSAGE: RefCell<Bytes> = const { RefCell::new(Bytes::new()) };
    /// The payload that is currently being given to a serializer on this thread.
    static OFFERED: RefCell<Bytes> = const { RefCell::new(Bytes::new()) };
}

/// Runs `read`, during which payloads borrowed from `message` share its memory.
#[inline]
pub(crate) fn while_reading<R>(message: &Bytes, read: impl FnOnce() -> R) -> R {
    /// Restores the previous message, even if `read` panics, because reads may nest.
    struct Restore(Bytes);
    impl Drop for Restore {
        fn drop(&mut self) {
            MESSAGE.with_borrow_mut(|current| std::mem::swap(current, &mut self.0));
        }
    }
    // Restored on drop, because a message may be read within another one, and a type may panic.
    let large = message.len() >= SHARE_FROM_BYTES;
    let _restore = large.then(|| Restore(MESSAGE.replace(message.clone())));
    // The only call of `read`, so that the compiler inlines it.
    read()
}

/// Returns `bytes` as a part of the message that is being read, or as a copy if they are not part
/// of it or too small to share.
#[inline]
pub(crate) fn share(bytes: &[u8]) -> Bytes {
    if bytes.len() < SHARE_FROM_BYTES {
        return Bytes::copy_from_slice(bytes);
    }
    share_large(bytes)
}

// Not inlined, so that `share` is small enough to be inlined into decoders.
#[inline(never)]
fn share_large(bytes: &[u8]) -> Bytes {
    let part = MESSAGE.with_borrow(|message| part_of(message, bytes));
    part.unwrap_or_else(|| Bytes::copy_from_slice(bytes))
}

fn part_of(whole: &Bytes, part: &[u8]) -> Option<Bytes> {
    // Both are alive, so a range within that of the message is a part of it.
    let (outer, inner) = (whole.as_ptr_range(), part.as_ptr_range());
    (outer.start <= inner.start && inner.end <= outer.end).then(|| whole.slice_ref(part))
}

/// Guard for the time in which [`take_offered`] finds the bytes it was made of.
struct Offer;

impl Offer {
    /// Offers `bytes` if they are large. Only the check is inlined.
    #[inline]
    fn make(bytes: &Bytes) -> Option<Self> {
        (bytes.len() >= SPLIT_FROM_BYTES).then(|| Self::of_large(bytes))
    }

    #[inline(never)]
    fn of_large(bytes: &Bytes) -> Self {
        OFFERED.set(bytes.clone());
        Self
    }
}

impl Drop for Offer {
    #[inline(never)]
    fn drop(&mut self) {
        OFFERED.take();
    }
}

/// Returns the payload whose bytes a serializer was just given, if it was one and is large.
#[cfg(any(
    feature = "codec-bincode",
    feature = "codec-postcard",
    feature = "codec-msgpack",
    feature = "codec-prost",
    test
))]
#[inline]
pub(crate) fn take_offered(bytes: &[u8]) -> Option<Bytes> {
    if bytes.len() < SPLIT_FROM_BYTES {
        return None;
    }
    let offered = OFFERED.take();
    // The offer keeps its bytes alive, so the same range means the same bytes.
    (offered.as_ptr_range() == bytes.as_ptr_range()).then_some(offered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_message_is_shared_and_anything_else_copied() {
        let message = Bytes::from(vec![7; 3 * SHARE_FROM_BYTES]);
        let elsewhere = vec![7; SHARE_FROM_BYTES];
        let part = &message[10..10 + SHARE_FROM_BYTES];
        while_reading(&message, || {
            assert_eq!(share(part).as_ptr(), part.as_ptr());
            assert_ne!(share(&elsewhere).as_ptr(), elsewhere.as_ptr());
            let small = &message[..SHARE_FROM_BYTES - 1];
            assert_ne!(share(small).as_ptr(), small.as_ptr());
        });
        assert_ne!(
            share(part).as_ptr(),
            part.as_ptr(),
            "after reading nothing is shared"
        );
        assert_eq!(share(part), part);
    }

    #[test]
    fn reading_nests_and_survives_a_panic() {
        let outer = Bytes::from(vec![1; SHARE_FROM_BYTES]);
        let inner = Bytes::from(vec![2; SHARE_FROM_BYTES]);
        while_reading(&outer, || {
            while_reading(&inner, || {
                assert_eq!(share(&inner).as_ptr(), inner.as_ptr())
            });
            let unwound =
                std::panic::catch_unwind(|| while_reading(&inner, || panic!("in a deserialize")));
            assert!(unwound.is_err());
            assert_eq!(share(&outer).as_ptr(), outer.as_ptr());
            assert_ne!(share(&inner).as_ptr(), inner.as_ptr());
        });
        assert_eq!(MESSAGE.with_borrow(Bytes::len), 0);
    }

    #[test]
    fn an_offer_ends_with_the_serialization() {
        let bytes = Bytes::from(vec![1; SPLIT_FROM_BYTES]);
        serde_json::to_string(&Payload::from(bytes.clone())).unwrap();
        assert_eq!(take_offered(&bytes), None);
        let _offer = Offer::make(&bytes);
        assert_eq!(
            take_offered(&vec![1; SPLIT_FROM_BYTES]),
            None,
            "other bytes are not the offered ones"
        );
    }

    #[test]
    fn json_takes_numbers_and_texts() {
        let payload: Payload = serde_json::from_str("[1,2,255]").unwrap();
        assert_eq!(&*payload, [1, 2, 255]);
        assert_eq!(serde_json::to_string(&payload).unwrap(), "[1,2,255]");
        assert_eq!(
            &*serde_json::from_str::<Payload>("\"abc\"").unwrap(),
            b"abc"
        );
        assert!(serde_json::from_str::<Payload>("[256]").is_err());
    }

    #[test]
    fn by_value_does_not_change_the_encoding() {
        let value = (String::from("a"), 5);
        assert_eq!(
            serde_json::to_string(&ByValue(value.clone())).unwrap(),
            serde_json::to_string(&value).unwrap()
        );
    }
}
