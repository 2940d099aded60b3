//! Descriptions and bytes that nobody would make in good faith.

use fastrand::Rng;
use iip_rpc::codec::{Bincode, Codec, DecodeLimits, Json, Msgpack, Postcard};
use iip_schema::dynamic::{DynamicSeed, DynamicValue, Layout, Options};
use iip_schema::{Definition, Enum, Field, Shape, Tagging, Type, Types, Variant, VariantShape};
use serde_json::{Value, json};

use super::{decode, encode};

fn in_every_codec(ty: &Type, types: &Types, value: &Value, input: &[u8]) -> Vec<String> {
    let mut errors = Vec::new();
    let mut add = |error: Option<String>| errors.extend(error);
    add(encode::<Bincode>(ty, types, value)
        .err()
        .map(|error| error.to_string()));
    add(encode::<Postcard>(ty, types, value)
        .err()
        .map(|error| error.to_string()));
    add(encode::<Json>(ty, types, value)
        .err()
        .map(|error| error.to_string()));
    add(encode::<Msgpack>(ty, types, value)
        .err()
        .map(|error| error.to_string()));
    add(decode::<Bincode>(ty, types, input)
        .err()
        .map(|error| error.to_string()));
    add(decode::<Postcard>(ty, types, input)
        .err()
        .map(|error| error.to_string()));
    add(decode::<Json>(ty, types, input)
        .err()
        .map(|error| error.to_string()));
    add(decode::<Msgpack>(ty, types, input)
        .err()
        .map(|error| error.to_string()));
    errors
}

fn named(name: &str) -> Type {
    Type::Named(name.to_owned())
}

#[test]
fn a_type_that_consists_only_of_itself_is_an_error() {
    let mut types = Types::new();
    types.insert("A", Definition::new(Shape::Newtype(named("A"))));
    types.insert("T", Definition::new(Shape::Tuple(vec![named("T")])));
    let mut flattened = Field::new("f", named("F"));
    flattened.flatten = true;
    let deny_unknown_fields = false;
    let fields = vec![flattened];
    types.insert(
        "F",
        Definition::new(Shape::Struct {
            fields,
            deny_unknown_fields,
        }),
    );
    let untagged = vec![Variant::new("U", 0, VariantShape::Newtype(named("U")))];
    let untagged = Shape::Enum(Enum::new(Tagging::Untagged, untagged));
    types.insert("U", Definition::new(untagged));
    let twice = vec![
        Variant::new("A", 0, VariantShape::Newtype(Type::seq(named("W")))),
        Variant::new("B", 0, VariantShape::Newtype(Type::seq(named("W")))),
    ];
    types.insert(
        "W",
        Definition::new(Shape::Enum(Enum::new(Tagging::Untagged, twice))),
    );
    for name in ["A", "F", "U", "missing"] {
        let errors = in_every_codec(&named(name), &types, &json!({}), b"\x80");
        assert!(errors.len() >= 7, "{name}: {errors:?}");
        in_every_codec(&named(name), &types, &json!({}), b"{}");
    }
    let pair = Type::ByFormat {
        readable: Box::new(named("A")),
        compact: Box::new(named("A")),
    };
    assert!(!in_every_codec(&pair, &types, &json!({}), b"0").is_empty());
    let mut deep = json!(1);
    for _ in 0..60 {
        deep = Value::Array(vec![deep]);
    }
    // The number of trials doubles with every level.
    let text = deep.to_string();
    for name in ["T", "W"] {
        let errors = in_every_codec(&named(name), &types, &deep, text.as_bytes());
        assert!(errors.len() >= 6, "{name}: {errors:?}");
    }
    for _ in 0..2000 {
        deep = Value::Array(vec![deep]);
    }
    for ty in [named("T"), named("W"), Type::Any] {
        let errors = in_every_codec(&ty, &types, &deep, &[b'['; 3000]);
        assert!(errors.len() >= 6, "{errors:?}");
    }
    // Dropping it level by level takes no stack.
    while let Value::Array(mut parts) = deep {
        deep = parts.pop().unwrap_or_default();
    }
}

#[test]
fn an_array_of_nothing_without_end_is_an_error() {
    let types = Types::new();
    let nothing = Type::array(Type::Unit, u64::MAX);
    for ty in [
        nothing.clone(),
        Type::array(Type::array(Type::Unit, 1 << 20), 1 << 20),
    ] {
        let options = Options::new(Layout::Positional).max_values(10_000);
        let seed = DynamicSeed::new(&ty, &types, options);
        Bincode::decode_seed(seed, &[], &DecodeLimits::new()).unwrap_err();
        let seed = DynamicSeed::new(&ty, &types, options);
        let error = Postcard::decode_seed(seed, &[], &DecodeLimits::new()).unwrap_err();
        assert!(error.to_string().contains("max_values"), "{error}");
    }
    let errors = in_every_codec(&nothing, &types, &json!([]), b"[]");
    assert_eq!(errors.len(), 8, "{errors:?}");
}

#[test]
fn a_small_value_with_many_fields_is_limited() {
    let mut types = Types::new();
    let fields = (0..10_000).map(|at| Field::new(format!("f{at}"), Type::option(Type::U8)));
    let fields: Vec<Field> = fields.collect();
    types.insert(
        "Wide",
        Definition::new(Shape::Struct {
            fields,
            deny_unknown_fields: false,
        }),
    );
    let ty = Type::seq(named("Wide"));
    let value = Value::Array(vec![json!({}); 10_000]);
    for layout in [Layout::Named, Layout::Positional] {
        let options = Options::new(layout).max_values(1_000_000);
        let error = DynamicValue::new(&ty, &types, &value, options)
            .check(true)
            .unwrap_err();
        assert!(error.to_string().contains("max_values"), "{error}");
    }
}

fn random_type(rng: &mut Rng, names: u8, levels: u8) -> Type {
    if levels > 0 {
        let levels = levels - 1;
        let part = |rng: &mut Rng| random_type(rng, names, levels);
        match rng.u8(..16) {
            0 => return Type::option(part(rng)),
            1 => return Type::seq(part(rng)),
            2 => return Type::array(part(rng), [0, 1, 4, 16, u64::MAX][rng.usize(..5)]),
            3 => return Type::Tuple((0..rng.u8(..4)).map(|_| part(rng)).collect()),
            4 => return Type::map(part(rng), part(rng)),
            5 => {
                return Type::ByFormat {
                    readable: Box::new(if rng.bool() { Type::Text } else { part(rng) }),
                    compact: Box::new(part(rng)),
                };
            }
            6..9 => return named(&rng.u8(..names + 1).to_string()),
            _ => {}
        }
    }
    let plain = [
        Type::Bool,
        Type::U8,
        Type::U16,
        Type::U32,
        Type::U64,
        Type::U128,
        Type::I8,
        Type::I16,
        Type::I32,
        Type::I64,
        Type::I128,
        Type::F32,
        Type::F64,
        Type::Char,
        Type::Text,
        Type::Bytes,
        Type::Unit,
        Type::Any,
        Type::opaque("O", ""),
    ];
    plain[rng.usize(..plain.len())].clone()
}

fn random_fields(rng: &mut Rng, names: u8) -> Vec<Field> {
    let fields = 0..rng.u8(..4);
    let fields = fields.map(|_| {
        let name = [b'a' + rng.u8(..4)]
            .map(char::from)
            .iter()
            .collect::<String>();
        let mut field = Field::new(name, random_type(rng, names, 3));
        field.flatten = rng.u8(..4) == 0;
        field.default = rng.u8(..4) == 0;
        field.may_be_skipped = rng.u8(..4) == 0;
        field.read_only = rng.u8(..8) == 0;
        field.write_only = rng.u8(..8) == 0;
        field
            .aliases
            .extend((rng.u8(..4) == 0).then(|| "a".to_owned()));
        field
    });
    fields.collect()
}

fn random_types(rng: &mut Rng) -> (Types, u8) {
    let (mut types, names) = (Types::new(), rng.u8(1..6));
    for name in 0..names {
        let shape = match rng.u8(..6) {
            0 => Shape::Newtype(random_type(rng, names, 3)),
            1 => Shape::Tuple(
                (0..rng.u8(..3))
                    .map(|_| random_type(rng, names, 3))
                    .collect(),
            ),
            2 => Shape::Unit,
            3 => Shape::Struct {
                fields: random_fields(rng, names),
                deny_unknown_fields: rng.bool(),
            },
            _ => {
                let tagging = match rng.u8(..5) {
                    0 => Tagging::Internal {
                        tag: "a".to_owned(),
                    },
                    1 => Tagging::Adjacent {
                        tag: "a".to_owned(),
                        content: "b".to_owned(),
                    },
                    2 => Tagging::Untagged,
                    _ => Tagging::External,
                };
                let variants = (0..rng.u32(..4)).map(|index| {
                    let shape = match rng.u8(..4) {
                        0 => VariantShape::Unit,
                        1 => VariantShape::Newtype(random_type(rng, names, 2)),
                        2 => VariantShape::Tuple(vec![random_type(rng, names, 2); 2]),
                        _ => VariantShape::Struct(random_fields(rng, names)),
                    };
                    let name = char::from(b'a' + rng.u8(..4)).to_string();
                    let mut variant = Variant::new(name, index, shape);
                    variant.untagged = rng.u8(..8) == 0;
                    variant.other = rng.u8(..8) == 0;
                    variant
                });
                Shape::Enum(Enum::new(tagging, variants.collect()))
            }
        };
        types.insert(name.to_string(), Definition::new(shape));
    }
    (types, names)
}

fn random_json(rng: &mut Rng, levels: u8) -> Value {
    match rng.u8(..if levels == 0 { 5 } else { 8 }) {
        0 => Value::Null,
        1 => json!(rng.bool()),
        2 => json!(rng.u64(..) >> rng.u32(..64)),
        3 => json!(rng.f64()),
        4 => json!(char::from(b'a' + rng.u8(..4)).to_string()),
        5 => (0..rng.u8(..4))
            .map(|_| random_json(rng, levels - 1))
            .collect(),
        _ => {
            let entries = (0..rng.u8(..3)).map(|_| {
                let key = char::from(b'a' + rng.u8(..4)).to_string();
                (key, random_json(rng, levels - 1))
            });
            Value::Object(entries.collect())
        }
    }
}

/// Reads bytes that may be anything; what was read can be written.
fn read<C: Codec>(ty: &Type, types: &Types, input: &[u8], layout: Layout) -> bool {
    let options = Options::new(layout).max_values(5000);
    let seed = DynamicSeed::new(ty, types, options);
    C::decode_seed(seed, input, &DecodeLimits::new()).is_ok_and(|value| {
        let mut out = bytes::BytesMut::new();
        let _ = C::encode(&DynamicValue::new(ty, types, &value, options), &mut out);
        true
    })
}

#[test]
fn random_bytes_and_values_with_random_descriptions_never_panic() {
    let mut rng = Rng::with_seed(11);
    let (mut read_back, mut written) = (0, 0);
    for _ in 0..20_000 {
        let rng = &mut rng;
        let (types, names) = random_types(rng);
        let ty = random_type(rng, names, 3);
        let mut input: Vec<u8> = (0..rng.usize(..40))
            .map(|_| rng.u8(..) >> rng.u32(..8))
            .collect();
        read_back += usize::from(read::<Bincode>(&ty, &types, &input, Layout::Positional));
        read_back += usize::from(read::<Postcard>(&ty, &types, &input, Layout::Positional));
        read_back += usize::from(read::<Msgpack>(&ty, &types, &input, Layout::Named));
        let value = random_json(rng, 4);
        input = value.to_string().into_bytes();
        read_back += usize::from(read::<Json>(&ty, &types, &input, Layout::Named));
        for (layout, readable) in [
            (Layout::Named, true),
            (Layout::Named, false),
            (Layout::Positional, false),
        ] {
            let options = Options::new(layout).max_values(5000);
            let value = DynamicValue::new(&ty, &types, &value, options);
            written += usize::from(value.check(readable).is_ok());
        }
    }
    // Some of it has to be valid, or nothing was tested.
    assert!(read_back > 1000 && written > 1000, "{read_back} {written}");
}
