//! Types of tests with their descriptions and random values.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use fastrand::Rng;
use iip_schema::{Definition, Enum, Shape, Tagging, Type, Types, Variant, VariantShape};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A type that is described by hand.
pub(super) trait Described:
    Serialize + DeserializeOwned + PartialEq + std::fmt::Debug
{
    /// It cannot be used in a codec without field names.
    const NAMED_ONLY: bool = false;
    /// serde_json has it exactly, and its entries have the same order in JSON.
    const EXACT: bool = true;

    fn ty(types: &mut Types) -> Type;

    fn random(rng: &mut Rng, levels: u8) -> Self;
}

macro_rules! numbers {
    ($($type:ident $variant:ident)*) => { $(
        impl Described for $type {
            fn ty(_: &mut Types) -> Type {
                Type::$variant
            }

            fn random(rng: &mut Rng, _: u8) -> Self {
                match rng.u8(..4) {
                    0 => $type::MIN,
                    1 => $type::MAX,
                    _ => rng.$type(..) >> rng.u32(..$type::BITS),
                }
            }
        }
    )* };
}

numbers! {
    u8 U8 u16 U16 u32 U32 u64 U64 i8 I8 i16 I16 i32 I32 i64 I64
}

macro_rules! wide {
    ($($type:ident $variant:ident)*) => { $(
        impl Described for $type {
            const EXACT: bool = false;

            fn ty(_: &mut Types) -> Type {
                Type::$variant
            }

            fn random(rng: &mut Rng, _: u8) -> Self {
                rng.$type(..) >> rng.u32(..128)
            }
        }
    )* };
}

wide! { u128 U128 i128 I128 }

macro_rules! others {
    ($($type:ty, $ty:expr, |$rng:ident| $random:expr;)*) => { $(
        impl Described for $type {
            fn ty(_: &mut Types) -> Type {
                $ty
            }

            fn random($rng: &mut Rng, _: u8) -> Self {
                $random
            }
        }
    )* };
}

others! {
    bool, Type::Bool, |rng| rng.bool();
    f32, Type::F32, |rng| (rng.f32() - 0.5) * 10f32.powi(rng.i32(-20..20));
    f64, Type::F64, |rng| (rng.f64() - 0.5) * 10f64.powi(rng.i32(-200..200));
    char, Type::Char, |rng| rng.char(..);
    String, Type::Text, |rng| (0..rng.usize(..9)).map(|_| rng.char(..)).collect();
    bytes::Bytes, Type::Bytes, |rng| (0..rng.usize(..300)).map(|_| rng.u8(..)).collect();
    (), Type::Unit, |_rng| ();
}

impl<T: Described> Described for Option<T> {
    const NAMED_ONLY: bool = T::NAMED_ONLY;
    const EXACT: bool = T::EXACT;

    fn ty(types: &mut Types) -> Type {
        Type::option(T::ty(types))
    }

    fn random(rng: &mut Rng, levels: u8) -> Self {
        rng.bool().then(|| T::random(rng, levels))
    }
}

impl<T: Described> Described for Box<T> {
    const NAMED_ONLY: bool = T::NAMED_ONLY;
    const EXACT: bool = T::EXACT;

    fn ty(types: &mut Types) -> Type {
        T::ty(types)
    }

    fn random(rng: &mut Rng, levels: u8) -> Self {
        Self::new(T::random(rng, levels))
    }
}

impl<T: Described> Described for Vec<T> {
    const NAMED_ONLY: bool = T::NAMED_ONLY;
    const EXACT: bool = T::EXACT;

    fn ty(types: &mut Types) -> Type {
        Type::seq(T::ty(types))
    }

    fn random(rng: &mut Rng, levels: u8) -> Self {
        let Some(levels) = levels.checked_sub(1) else {
            return Self::new();
        };
        (0..rng.usize(..5))
            .map(|_| T::random(rng, levels))
            .collect()
    }
}

impl<K: Described + Ord, V: Described> Described for BTreeMap<K, V> {
    const NAMED_ONLY: bool = K::NAMED_ONLY || V::NAMED_ONLY;
    // The keys of objects are ordered as texts.
    const EXACT: bool = false;

    fn ty(types: &mut Types) -> Type {
        Type::map(K::ty(types), V::ty(types))
    }

    fn random(rng: &mut Rng, levels: u8) -> Self {
        let Some(levels) = levels.checked_sub(1) else {
            return Self::new();
        };
        let entries = 0..rng.usize(..5);
        entries
            .map(|_| (K::random(rng, levels), V::random(rng, levels)))
            .collect()
    }
}

impl<T: Described> Described for [T; 3] {
    const NAMED_ONLY: bool = T::NAMED_ONLY;
    const EXACT: bool = T::EXACT;

    fn ty(types: &mut Types) -> Type {
        Type::array(T::ty(types), 3)
    }

    fn random(rng: &mut Rng, levels: u8) -> Self {
        std::array::from_fn(|_| T::random(rng, levels))
    }
}

macro_rules! tuples {
    ($(($($type:ident)*))*) => { $(
        impl<$($type: Described),*> Described for ($($type,)*) {
            const NAMED_ONLY: bool = false $(|| $type::NAMED_ONLY)*;
            const EXACT: bool = true $(&& $type::EXACT)*;

            fn ty(types: &mut Types) -> Type {
                Type::Tuple(vec![$($type::ty(types)),*])
            }

            fn random(rng: &mut Rng, levels: u8) -> Self {
                ($($type::random(rng, levels),)*)
            }
        }
    )* };
}

tuples! { (A) (A B) (A B C D) }

fn by_format(compact: Type) -> Type {
    Type::ByFormat {
        readable: Box::new(Type::Text),
        compact: Box::new(compact),
    }
}

fn v4() -> Type {
    Type::array(Type::U8, 4)
}

fn v6() -> Type {
    Type::array(Type::U8, 16)
}

fn versions(types: &mut Types, name: &str, v4: Type, v6: Type) -> Type {
    let variants = vec![
        Variant::new("V4", 0, VariantShape::Newtype(v4)),
        Variant::new("V6", 1, VariantShape::Newtype(v6)),
    ];
    let shape = Shape::Enum(Enum::new(Tagging::External, variants));
    types.insert(name, Definition::new(shape));
    by_format(Type::Named(name.to_owned()))
}

impl Described for Ipv4Addr {
    fn ty(_: &mut Types) -> Type {
        by_format(v4())
    }

    fn random(rng: &mut Rng, _: u8) -> Self {
        Self::from_bits(rng.u32(..))
    }
}

impl Described for Ipv6Addr {
    fn ty(_: &mut Types) -> Type {
        by_format(v6())
    }

    fn random(rng: &mut Rng, _: u8) -> Self {
        Self::from_bits(rng.u128(..))
    }
}

impl Described for IpAddr {
    fn ty(types: &mut Types) -> Type {
        versions(types, "IpAddr", by_format(v4()), v6())
    }

    fn random(rng: &mut Rng, levels: u8) -> Self {
        match rng.bool() {
            true => Self::V4(Ipv4Addr::random(rng, levels)),
            false => Self::V6(Ipv6Addr::random(rng, levels)),
        }
    }
}

impl Described for SocketAddr {
    fn ty(types: &mut Types) -> Type {
        let v4 = by_format(Type::Tuple(vec![by_format(v4()), Type::U16]));
        let v6 = Type::Tuple(vec![v6(), Type::U16]);
        versions(types, "SocketAddr", v4, v6)
    }

    fn random(rng: &mut Rng, levels: u8) -> Self {
        let port = rng.u16(..);
        match IpAddr::random(rng, levels) {
            IpAddr::V4(ip) => Self::V4(SocketAddrV4::new(ip, port)),
            IpAddr::V6(ip) => Self::V6(SocketAddrV6::new(ip, port, 0, 0)),
        }
    }
}
