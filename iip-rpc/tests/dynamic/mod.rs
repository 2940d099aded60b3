//! Values by description, in every codec: the bytes are those of the Rust type.

#![cfg(all(
    feature = "codec-bincode",
    feature = "codec-postcard",
    feature = "codec-msgpack",
    feature = "macros"
))]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod described;
mod errors;
mod hostile;
mod types;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::BytesMut;
use iip_rpc::codec::{
    Bincode, Codec, CodecId, DecodeError, DecodeLimits, EncodeError, Json, Msgpack, Postcard,
};
use iip_schema::dynamic::{DynamicSeed, DynamicValue, Layout, Options};
use iip_schema::{Registry, Schema, Type, Types, check_derived, same_types};
use serde_json::Value;

use self::described::Described;
use self::types::*;

/// Values of each type and codec.
const VALUES: usize = 200;

fn options<C: Codec>() -> Options {
    Options::new(match C::ID {
        CodecId::JSON | CodecId::MSGPACK => Layout::Named,
        _ => Layout::Positional,
    })
    .max_values(50_000)
}

fn encode<C: Codec>(ty: &Type, types: &Types, value: &Value) -> Result<BytesMut, EncodeError> {
    let mut out = BytesMut::new();
    C::encode(
        &DynamicValue::new(ty, types, value, options::<C>()),
        &mut out,
    )?;
    Ok(out)
}

fn decode<C: Codec>(ty: &Type, types: &Types, input: &[u8]) -> Result<Value, DecodeError> {
    let seed = DynamicSeed::new(ty, types, options::<C>());
    C::decode_seed(seed, input, &DecodeLimits::new())
}

/// Checks random values of one type in one codec; returns the number of values that were written.
fn check<T: Described, C: Codec>(rng: &mut fastrand::Rng) -> usize {
    let mut types = Types::new();
    let ty = T::ty(&mut types);
    let name = std::any::type_name::<T>();
    let limits = DecodeLimits::new();
    let mut written = 0;
    for _ in 0..VALUES {
        let value = T::random(rng, 4);
        let mut typed = BytesMut::new();
        let encoded = C::encode(&value, &mut typed);
        if T::NAMED_ONLY && matches!(C::ID, CodecId::BINCODE | CodecId::POSTCARD) {
            let json = serde_json::to_value(&value).unwrap();
            // A list without elements has nothing that could be refused.
            let is_refused = encode::<C>(&ty, &types, &json).is_err();
            assert!(
                is_refused || typed.len() <= 1,
                "{name} in {}: {json}",
                C::ID
            );
            continue;
        }
        // Such as elements without bytes, or keys that are not texts.
        if encoded.is_err() {
            continue;
        }
        written += 1;
        let json = decode::<C>(&ty, &types, &typed)
            .unwrap_or_else(|error| panic!("{name} in {}: {error}: {value:?}", C::ID));
        let again = encode::<C>(&ty, &types, &json)
            .unwrap_or_else(|error| panic!("{name} in {}: {error}: {json}", C::ID));
        if T::EXACT {
            assert_eq!(again, typed, "{name} in {}: {json}", C::ID);
            let text = serde_json::to_string(&value).unwrap();
            let expected: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json, expected, "{name} in {}", C::ID);
        }
        let back = C::decode::<T>(&again, &limits);
        let back = back.unwrap_or_else(|error| panic!("{name} in {}: {error}: {json}", C::ID));
        assert_eq!(back, value, "{name} in {}", C::ID);
    }
    written
}

macro_rules! all {
    ($rng:expr, $($type:ty),* $(,)?) => { [$(
        check::<$type, Bincode>($rng)
            + check::<$type, Postcard>($rng)
            + check::<$type, Json>($rng)
            + check::<$type, Msgpack>($rng)
    ),*] };
}

#[test]
fn values_by_description_have_the_bytes_of_their_types_in_every_codec() {
    let mut rng = fastrand::Rng::with_seed(7);
    let written = all!(
        &mut rng,
        bool, u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, f32, f64, char, String,
        bytes::Bytes, (), Nothing, Option<u8>, Option<String>, Vec<u8>, Vec<String>, Vec<()>,
        [u8; 3], [Option<char>; 3], (u8,), (i64, String), (u8, f32, (u16, bool), Vec<i32>),
        BTreeMap<String, u8>, BTreeMap<u16, String>, BTreeMap<i64, Point>, BTreeMap<bool, u8>,
        BTreeMap<char, u8>, BTreeMap<Color, u8>, BTreeMap<Id, u8>, BTreeMap<u128, u8>,
        BTreeMap<(u8, String), Point>, BTreeMap<IpAddr, u8>, Point, Order, Exact, Skipped, Tree,
        Flattened,
        Beside, Extra, Empty, Id, Line, Color, External, Internal, Adjacent, Untagged,
        Vec<External>, Option<Box<Tree>>, Ipv4Addr, Ipv6Addr, IpAddr, SocketAddr, Vec<Untagged>,
        BTreeMap<String, Internal>, Vec<Order>,
    );
    assert!(written.len() >= 50);
    // A type that is written by no codec would prove nothing.
    assert!(
        written.iter().all(|values| *values >= VALUES),
        "{written:?}"
    );
}

/// Checks that a type is described by hand as it describes itself, and as it is observed.
fn is_described_three_times_alike<T: Described + Schema>() {
    let (mut types, mut registry) = (Types::new(), Registry::new());
    let (ty, mut derived) = (T::ty(&mut types), T::describe(&mut registry));
    let (derived_types, names) = registry.finish();
    names.apply(&mut derived);
    same_types(&ty, &types, &derived, &derived_types).unwrap();
    check_derived::<T>().unwrap();
}

#[test]
fn types_are_described_by_hand_as_they_describe_themselves() {
    macro_rules! alike {
        ($($type:ty),*) => { $(is_described_three_times_alike::<$type>();)* };
    }
    alike!(
        Nothing, Point, Order, Exact, Skipped, Tree, Flattened, Beside, Extra, Empty, Id, Line,
        Color, External, Internal, Adjacent, Untagged
    );
}

#[test]
fn floats_that_json_does_not_have_are_texts() {
    let types = Types::new();
    for (ty, text) in [
        (Type::F64, "NaN"),
        (Type::F64, "-Infinity"),
        (Type::F32, "Infinity"),
    ] {
        let value = Value::from(text);
        let bytes = encode::<Bincode>(&ty, &types, &value).unwrap();
        assert_eq!(decode::<Bincode>(&ty, &types, &bytes).unwrap(), value);
        let bytes = encode::<Msgpack>(&ty, &types, &value).unwrap();
        assert_eq!(decode::<Msgpack>(&ty, &types, &bytes).unwrap(), value);
        encode::<Json>(&ty, &types, &value).unwrap_err();
    }
}

#[test]
fn a_uuid_is_a_text_in_json_and_bytes_in_other_codecs() {
    let types = Types::new();
    let ty = Type::ByFormat {
        readable: Box::new(Type::Text),
        compact: Box::new(Type::Bytes),
    };
    let value = Value::from("67e55044-10b1-426f-9247-bb680e5fe0c8");
    let bytes = encode::<Bincode>(&ty, &types, &value).unwrap();
    assert_eq!(bytes.len(), 17);
    assert_eq!(decode::<Bincode>(&ty, &types, &bytes).unwrap(), value);
    let bytes = encode::<Json>(&ty, &types, &value).unwrap();
    assert_eq!(bytes, value.to_string());
    // Other bytes of that kind are shown as they are.
    let three = serde_json::json!([1, 2, 3]);
    let bytes = encode::<Postcard>(&ty, &types, &three).unwrap();
    assert_eq!(decode::<Postcard>(&ty, &types, &bytes).unwrap(), three);
}
