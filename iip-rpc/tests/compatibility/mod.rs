//! The verdicts of `iip_schema::compat`, held against what the codecs do: values are written as one
//! type and read as another.

#![cfg(all(
    feature = "codec-bincode",
    feature = "codec-postcard",
    feature = "codec-msgpack",
    feature = "macros"
))]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod arguments;
mod enums;
mod structs;
mod values;

use std::fmt::Debug;

use bytes::BytesMut;
use iip_rpc::codec::{CodecId, DecodeLimits, decode_value, encode_value};
use iip_schema::compat::{Encoding, Verdict, compare_types};
use iip_schema::{Definition, Enum, Field, Shape, Tagging, Type, Types, Variant, VariantShape};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde::Serialize;
use serde::de::DeserializeOwned;

use Verdict::{Compatible, Equal, Incompatible, Warn};

/// The encodings in the order in which tests list verdicts.
const ENCODINGS: [(Encoding, CodecId); 4] = [
    (Encoding::Bincode, CodecId::BINCODE),
    (Encoding::Postcard, CodecId::POSTCARD),
    (Encoding::MessagePack, CodecId::MSGPACK),
    (Encoding::Json, CodecId::JSON),
];

/// Values of each kind that are tried.
const CASES: usize = 256;

/// The numbers of values that arrived, that arrived as others, and that were rejected.
#[derive(Debug, Default)]
struct Outcomes {
    right: usize,
    wrong: usize,
    rejected: usize,
}

impl Outcomes {
    /// Checks that a verdict says what happened.
    fn support(&self, verdict: Verdict) -> bool {
        match verdict {
            Equal | Compatible => self.right > 0 && self.wrong == 0 && self.rejected == 0,
            Warn => self.right > 0 && self.wrong == 0 && self.rejected > 0,
            _ => self.wrong > 0 || self.rejected > 0,
        }
    }
}

/// Writes `value` between other values, so that a reader that takes too many or too few bytes
/// misreads or rejects them.
fn send<W, R>(codec: CodecId, value: &W, expected: Option<&R>, outcomes: &mut Outcomes)
where
    W: Serialize,
    R: DeserializeOwned + PartialEq + 'static,
{
    let mut body = BytesMut::new();
    encode_value(codec, &(1u8, value, [0u8, 1, 0], "\u{0}\u{1}"), &mut body).unwrap();
    let limits = DecodeLimits::new();
    match decode_value::<(u8, R, [u8; 3], String)>(codec, &body.freeze(), &limits) {
        Ok((1, got, [0, 1, 0], text)) if text == "\u{0}\u{1}" && Some(&got) == expected => {
            outcomes.right += 1;
        }
        Ok(_) => outcomes.wrong += 1,
        Err(_) => outcomes.rejected += 1,
    }
}

/// A type with those that it names.
type Described = (Type, Types);

/// Tries values of `W`, which have to arrive as `expect` says, or to be rejected if it says `None`,
/// and compares the outcome and the verdict of the descriptions with `verdicts`: those in bincode,
/// postcard, MessagePack and JSON.
#[track_caller]
fn cell<W, R>(
    values: impl Strategy<Value = W>,
    expect: impl Fn(&W) -> Option<R>,
    writer: &Described,
    reader: &Described,
    verdicts: [Verdict; 4],
) where
    W: Serialize + Debug,
    R: DeserializeOwned + PartialEq + Debug + 'static,
{
    let mut runner = TestRunner::deterministic();
    let values: Vec<W> = (0..CASES)
        .map(|_| values.new_tree(&mut runner).unwrap().current())
        .collect();
    for ((encoding, codec), verdict) in ENCODINGS.into_iter().zip(verdicts) {
        let mut outcomes = Outcomes::default();
        for value in &values {
            send(codec, value, expect(value).as_ref(), &mut outcomes);
        }
        let report = compare_types((&writer.0, &writer.1), (&reader.0, &reader.1), encoding);
        assert!(
            outcomes.support(verdict),
            "{encoding}: {outcomes:?} is not {verdict}"
        );
        assert_eq!(report.verdict(), verdict, "{encoding}: {report}");
    }
}

fn plain(ty: Type) -> Described {
    (ty, Types::new())
}

fn named(name: &str, shape: Shape) -> Described {
    let mut types = Types::new();
    types.insert(name, Definition::new(shape));
    (Type::Named(name.into()), types)
}

fn fields(name: &str, fields: Vec<Field>) -> Described {
    let deny_unknown_fields = false;
    named(
        name,
        Shape::Struct {
            fields,
            deny_unknown_fields,
        },
    )
}

fn field(name: &str, ty: Type) -> Field {
    Field::new(name, ty)
}

fn with(mut field: Field, change: impl FnOnce(&mut Field)) -> Field {
    change(&mut field);
    field
}

fn variants(tagging: Tagging, variants: Vec<Variant>) -> Described {
    named("Shape", Shape::Enum(Enum::new(tagging, variants)))
}

fn unit(name: &str, index: u32) -> Variant {
    Variant::new(name, index, VariantShape::Unit)
}

fn newtype(name: &str, index: u32, ty: Type) -> Variant {
    Variant::new(name, index, VariantShape::Newtype(ty))
}
