//! The types of the standard library, as serde writes them.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::num;
use std::ops::{Bound, Range, RangeFrom, RangeInclusive, RangeTo};
use std::path::{Path, PathBuf};
use std::sync::atomic;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime};

use crate::derived::{Argument, first, own_enum, own_struct};
use crate::registry::Registry;
use crate::schema::Schema;
use crate::types::{Field, Type, Variant, VariantShape};

/// Types without parts.
macro_rules! plain {
    ($($type:expr => $($ty:ty),+;)+) => {
        $($(
            impl Schema for $ty {
                fn describe(_: &mut Registry) -> Type {
                    $type
                }
            }
        )+)+
    };
}

plain! {
    Type::Bool => bool, atomic::AtomicBool;
    Type::U8 => u8, num::NonZeroU8, atomic::AtomicU8;
    Type::U16 => u16, num::NonZeroU16, atomic::AtomicU16;
    Type::U32 => u32, num::NonZeroU32, atomic::AtomicU32;
    Type::U64 => u64, usize, num::NonZeroU64, num::NonZeroUsize, atomic::AtomicUsize;
    Type::U128 => u128, num::NonZeroU128;
    Type::I8 => i8, num::NonZeroI8, atomic::AtomicI8;
    Type::I16 => i16, num::NonZeroI16, atomic::AtomicI16;
    Type::I32 => i32, num::NonZeroI32, atomic::AtomicI32;
    Type::I64 => i64, isize, num::NonZeroI64, num::NonZeroIsize, atomic::AtomicIsize;
    Type::I128 => i128, num::NonZeroI128;
    Type::F32 => f32;
    Type::F64 => f64;
    Type::Char => char;
    Type::Text => str, String, Path, PathBuf;
    Type::Bytes => CStr, CString;
    Type::Unit => ();
}

#[cfg(target_has_atomic = "64")]
plain! {
    Type::U64 => atomic::AtomicU64;
    Type::I64 => atomic::AtomicI64;
}

/// The constants of a type with these parts.
macro_rules! reasons {
    (in place: $($t:ty),+) => {
        const IN_PLACE: Option<&'static str> = first(&[$(<$t>::IN_PLACE),+]);
        const IN_CONTAINER: Option<&'static str> = first(&[$(<$t>::IN_CONTAINER),+]);
        const IN_CONTAINERS: Option<&'static str> = first(&[$(<$t>::IN_CONTAINERS),+]);
    };
    (on heap: $($t:ty),+) => {
        const IN_CONTAINER: Option<&'static str> = first(&[$(<$t>::IN_PLACE),+]);
        const IN_CONTAINERS: Option<&'static str> = first(&[$(<$t>::IN_CONTAINER),+]);
    };
}

/// Types that are written like the one value in them, which is part of them in memory (`in place`),
/// or on the heap (`on heap`).
macro_rules! like {
    ($($place:tt $kind:tt: $($ty:ty),+;)+) => {
        $($(
            impl<T: Schema + ?Sized> Schema for $ty {
                reasons!($place $kind: T);

                fn describe(registry: &mut Registry) -> Type {
                    T::describe(registry)
                }
            }
        )+)+
    };
}

like! {
    in place: Mutex<T>, RefCell<T>, RwLock<T>;
    on heap: Box<T>, Arc<T>, &'static T;
}

/// The same, of types whose value has a size.
macro_rules! like_sized {
    ($($ty:ty),+) => {
        $(
            impl<T: Schema> Schema for $ty {
                reasons!(in place: T);

                fn describe(registry: &mut Registry) -> Type {
                    T::describe(registry)
                }
            }
        )+
    };
}

like_sized!(Cell<T>, Reverse<T>, num::Wrapping<T>, num::Saturating<T>);

impl<T: Schema + ToOwned + ?Sized> Schema for Cow<'static, T> {
    reasons!(on heap: T);

    fn describe(registry: &mut Registry) -> Type {
        T::describe(registry)
    }
}

impl<T: ?Sized + 'static> Schema for PhantomData<T> {
    fn describe(_: &mut Registry) -> Type {
        Type::Unit
    }
}

impl<T: Schema> Schema for Option<T> {
    reasons!(in place: T);

    fn describe(registry: &mut Registry) -> Type {
        Type::option(T::describe(registry))
    }
}

macro_rules! sequences {
    ($(<T $(, $hasher:ident)?> $ty:ty),+ $(,)?) => {
        $(
            impl<T: Schema $(, $hasher: 'static)?> Schema for $ty {
                reasons!(on heap: T);

                fn describe(registry: &mut Registry) -> Type {
                    Type::seq(T::describe(registry))
                }
            }
        )+
    };
}

sequences!(
    <T> [T],
    <T> Vec<T>,
    <T> VecDeque<T>,
    <T> LinkedList<T>,
    <T> BinaryHeap<T>,
    <T> BTreeSet<T>,
    <T, H> HashSet<T, H>,
);

macro_rules! maps {
    ($(<K, V $(, $hasher:ident)?> $ty:ty),+ $(,)?) => {
        $(
            impl<K: Schema, V: Schema $(, $hasher: 'static)?> Schema for $ty {
                reasons!(on heap: K, V);

                fn describe(registry: &mut Registry) -> Type {
                    let key = K::describe(registry);
                    Type::map(key, V::describe(registry))
                }
            }
        )+
    };
}

maps!(<K, V> BTreeMap<K, V>, <K, V, H> HashMap<K, V, H>);

/// serde supports up to 32 elements; beyond that, the attribute `with` is needed anyway.
impl<T: Schema, const N: usize> Schema for [T; N] {
    reasons!(in place: T);

    fn describe(registry: &mut Registry) -> Type {
        Type::array(T::describe(registry), N as u64)
    }
}

macro_rules! tuples {
    ($(($($t:ident),+))+) => {
        $(
            impl<$($t: Schema),+> Schema for ($($t,)+) {
                reasons!(in place: $($t),+);

                fn describe(registry: &mut Registry) -> Type {
                    Type::Tuple(vec![$($t::describe(registry)),+])
                }
            }
        )+
    };
}

tuples! {
    (A)
    (A, B)
    (A, B, C)
    (A, B, C, D)
    (A, B, C, D, E)
    (A, B, C, D, E, F)
    (A, B, C, D, E, F, G)
    (A, B, C, D, E, F, G, H)
    (A, B, C, D, E, F, G, H, I)
    (A, B, C, D, E, F, G, H, I, J)
    (A, B, C, D, E, F, G, H, I, J, K)
    (A, B, C, D, E, F, G, H, I, J, K, L)
    (A, B, C, D, E, F, G, H, I, J, K, L, M)
    (A, B, C, D, E, F, G, H, I, J, K, L, M, N)
    (A, B, C, D, E, F, G, H, I, J, K, L, M, N, O)
    (A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P)
}

/// Structs with fields of one type.
macro_rules! structs {
    ($($name:literal => $ty:ty $(where $t:ident)?: $($field:literal: $of:ty),+;)+) => {
        $(
            impl $(<$t: Schema>)? Schema for $ty {
                $(reasons!(in place: $t);)?

                fn describe(registry: &mut Registry) -> Type {
                    let arguments = [$(Argument::Type($t::describe))?];
                    own_struct::<Self>(registry, $name, &arguments, |registry| {
                        vec![$(Field::new($field, <$of>::describe(registry))),+]
                    })
                }
            }
        )+
    };
}

structs! {
    "Duration" => Duration: "secs": u64, "nanos": u32;
    "SystemTime" => SystemTime: "secs_since_epoch": u64, "nanos_since_epoch": u32;
    "Range" => Range<T> where T: "start": T, "end": T;
    "RangeFrom" => RangeFrom<T> where T: "start": T;
    "RangeInclusive" => RangeInclusive<T> where T: "start": T, "end": T;
    "RangeTo" => RangeTo<T> where T: "end": T;
}

impl<T: Schema> Schema for Bound<T> {
    reasons!(in place: T);

    fn describe(registry: &mut Registry) -> Type {
        own_enum::<Self>(
            registry,
            "Bound",
            &[Argument::Type(T::describe)],
            |registry| {
                vec![
                    Variant::new("Unbounded", 0, VariantShape::Unit),
                    Variant::new("Included", 1, VariantShape::Newtype(T::describe(registry))),
                    Variant::new("Excluded", 2, VariantShape::Newtype(T::describe(registry))),
                ]
            },
        )
    }
}

impl<T: Schema, E: Schema> Schema for Result<T, E> {
    reasons!(in place: T, E);

    fn describe(registry: &mut Registry) -> Type {
        let arguments = [Argument::Type(T::describe), Argument::Type(E::describe)];
        own_enum::<Self>(registry, "Result", &arguments, |registry| {
            vec![
                Variant::new("Ok", 0, VariantShape::Newtype(T::describe(registry))),
                Variant::new("Err", 1, VariantShape::Newtype(E::describe(registry))),
            ]
        })
    }
}
