//! Numbers by which two builds notice that they describe a method differently.
//!
//! A [`Fingerprint`] is a pair of XXH64 hashes with seed 0 over a canonical form:
//!
//! * The *positional* one covers what bincode and postcard write: the types in their order, without
//!   names. A struct is like a tuple struct, and a type by format is the form that is not readable.
//! * The *named* one covers names, aliases and tags too, and which fields may be missing, all in
//!   their order. It is different whenever the positional one is. Where fields of one type have
//!   changed places, as in `{ width: u32, height: u32 }`, only the named one shows it.
//!
//! Neither covers names of types, documentation, `secret`, timeouts, priorities and `auth`. Newtypes
//! are the type that they contain. Of an opaque type both cover its Rust name.
//!
//! The numbers are the same in every process, and are a contract between versions of this crate.
//!
//! # Bytes
//!
//! Numbers are 8 bytes, little-endian. A name is its length and its UTF-8; a list is its length and
//! its elements. A type is one byte, and its parts:
//!
//! | byte | type |
//! |---|---|
//! | 1 to 17 | `bool`, `u8` .. `u128`, `i8` .. `i128`, `f32`, `f64`, `char`, text, bytes, any value |
//! | 18 | `()` in the named form; in the positional one it has no parts |
//! | 20 | option: type |
//! | 21 | sequence: type |
//! | 22 | array: length, type |
//! | 23 | parts in a fixed order: list of types |
//! | 24 | map: type, type |
//! | 25 | a type by format, named form only: readable type, other type |
//! | 26 | opaque: name. A reference to nothing is opaque too |
//! | 27 | struct or enum: its hash |
//! | 28 | nested deeper than 128 levels |
//!
//! The hash of a struct or enum is that of its form: `S` and the marks and fields of a struct, `T`
//! and the types of a tuple struct (`S` in the positional form), or `E`, the tagging and the variants
//! of an enum, sorted by number in the positional form. Types that
//! refer to each other in a cycle are hashed in rounds: the first gives each the hash of `R`, the
//! next ones hash the forms with the hashes of the round before, until the number of different
//! hashes no longer grows, but at most 64 rounds. The hash of such a type is then that of `C`, its
//! last hash, and the sorted list of the different hashes of the cycle.
//!
//! A method is hashed as `M`, its kind, its format, whether its codec is protobuf, its arguments,
//! requests, result and error, and the error of its stream if that has one; the named form adds the
//! names of arguments, and whether the method is idempotent. A service is hashed as the sorted list
//! of the paths of its methods with both hashes. Its own name is not covered.

mod cycles;
mod form;

use self::form::{Form, Hashes, Mode};
use crate::description::{Description, Method};
use crate::types::Types;

/// The fingerprints of a method, see [`fingerprint`](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Fingerprint {
    /// Over what bincode and postcard write.
    pub positional: u64,
    /// Over what JSON and MessagePack write and read.
    pub named: u64,
}

/// The fingerprint of one method. To get those of all methods of a service,
/// [`method_fingerprints`] is faster.
#[must_use]
pub fn method_fingerprint(method: &Method, types: &Types) -> Fingerprint {
    Both::of(types).method(method)
}

/// The fingerprints of all methods of a service, in the order of the methods.
#[must_use]
pub fn method_fingerprints(description: &Description) -> Vec<Fingerprint> {
    let both = Both::of(&description.types);
    description
        .methods
        .iter()
        .map(|method| both.method(method))
        .collect()
}

/// One number for a service. It does not depend on the order of the methods.
#[must_use]
pub fn service_fingerprint(description: &Description) -> u64 {
    let fingerprints = method_fingerprints(description);
    let paths = description.methods.iter().map(|method| &*method.path);
    let mut all: Vec<(&str, Fingerprint)> = paths.zip(fingerprints).collect();
    all.sort_unstable();
    let mut form = Form::default();
    form.number(all.len() as u64);
    for (path, fingerprint) in all {
        form.name(path);
        form.number(fingerprint.positional);
        form.number(fingerprint.named);
    }
    form.hash()
}

/// One number for all services of a server, from the fingerprints of the services in any order. For
/// exactly one service it is that of the service.
#[must_use]
pub fn build_fingerprint(services: impl IntoIterator<Item = u64>) -> u64 {
    let mut all: Vec<u64> = services.into_iter().collect();
    if let [one] = all[..] {
        return one;
    }
    all.sort_unstable();
    let mut form = Form::default();
    form.number(all.len() as u64);
    all.into_iter().for_each(|one| form.number(one));
    form.hash()
}

/// The hashes of the named types in both modes.
struct Both<'a> {
    positional: Hashes<'a>,
    named: Hashes<'a>,
}

impl<'a> Both<'a> {
    fn of(types: &'a Types) -> Self {
        Self {
            positional: Hashes::of(types, Mode::Positional),
            named: Hashes::of(types, Mode::Named),
        }
    }

    fn method(&self, method: &Method) -> Fingerprint {
        Fingerprint {
            positional: self.positional.method(method),
            named: self.named.method(method),
        }
    }
}
