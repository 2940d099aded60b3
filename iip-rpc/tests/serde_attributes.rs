//! Every attribute of serde in every codec: a value arrives as it was sent, or one side rejects it.

#![cfg(all(
    feature = "codec-bincode",
    feature = "codec-postcard",
    feature = "codec-msgpack",
    feature = "macros"
))]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::BytesMut;
use iip_rpc::Schema;
use iip_rpc::codec::{Bincode, Codec, DecodeLimits, EncodeErrorKind, Json, Msgpack, Postcard};
use iip_rpc::schema::check_derived;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The outcome for a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It arrives.
    Carried,
    /// It is not sent.
    RefusedByWriter,
    /// It is sent, and the receiver rejects it.
    RefusedByReader,
    /// Another one arrives.
    Changed,
}
use Fate::{Carried, Changed, RefusedByReader, RefusedByWriter};

/// Sends `value` between other values, so that a missing or extra field changes the values next to
/// it.
fn fate<C: Codec, T>(value: &T, arrives: &T) -> Fate
where
    T: Serialize + DeserializeOwned + PartialEq,
{
    type Around<T> = (u8, T, Vec<u8>, String);
    let mut out = BytesMut::new();
    let sent = (1u8, value, vec![0u8, 1, 0], "\u{0}\u{1}");
    if C::encode(&sent, &mut out).is_err() {
        return RefusedByWriter;
    }
    match C::decode::<Around<T>>(&out, &DecodeLimits::new()) {
        Ok((1, got, bytes, text))
            if got == *arrives && bytes == [0, 1, 0] && text == "\u{0}\u{1}" =>
        {
            Carried
        }
        Ok(_) => Changed,
        Err(_) => RefusedByReader,
    }
}

/// In bincode, postcard, JSON and MessagePack.
fn fates<T>(value: &T, arrives: &T) -> [Fate; 4]
where
    T: Serialize + DeserializeOwned + PartialEq,
{
    [
        fate::<Bincode, T>(value, arrives),
        fate::<Postcard, T>(value, arrives),
        fate::<Json, T>(value, arrives),
        fate::<Msgpack, T>(value, arrives),
    ]
}

/// Checks also that the type is described as it is observed.
#[track_caller]
fn arrives<T>(value: T, expected: [Fate; 4])
where
    T: Schema + Serialize + DeserializeOwned + PartialEq + Debug,
{
    check_derived::<T>().unwrap();
    assert_eq!(fates(&value, &value), expected, "{value:?}");
}

const EVERYWHERE: [Fate; 4] = [Carried; 4];
/// Arrives in self-describing codecs; in others the writer rejects it.
const DESCRIBED_OR_NOT_SENT: [Fate; 4] = [RefusedByWriter, RefusedByWriter, Carried, Carried];
/// Arrives in self-describing codecs; in others the reader rejects it, because the writer cannot
/// notice it.
const DESCRIBED_OR_NOT_READ: [Fate; 4] = [RefusedByReader, RefusedByReader, Carried, Carried];

fn is_zero(number: &u8) -> bool {
    *number == 0
}

fn seven() -> u8 {
    7
}

mod in_hex {
    use super::*;

    pub(super) fn serialize<S: Serializer>(value: &u8, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
        let text = String::deserialize(deserializer)?;
        u8::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
struct Plain {
    a: u8,
    b: Vec<u8>,
}

fn plain() -> Plain {
    Plain { a: 3, b: vec![1] }
}

#[test]
fn names_do_not_matter_to_a_value() {
    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    #[serde(
        rename = "Other",
        rename_all = "SCREAMING-KEBAB-CASE",
        deny_unknown_fields
    )]
    struct Renamed {
        one_name: u8,
        #[serde(rename = "x")]
        two: u8,
        #[serde(rename(serialize = "three", deserialize = "three"), alias = "drei")]
        three: u8,
    }
    arrives(
        Renamed {
            one_name: 1,
            two: 2,
            three: 3,
        },
        EVERYWHERE,
    );

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    #[serde(rename_all = "lowercase", rename_all_fields = "UPPERCASE")]
    enum Variants {
        First,
        #[serde(rename = "2nd", alias = "zweite")]
        Second {
            field: u8,
        },
        Third(u8, u8),
        Fourth(Plain),
    }
    arrives(Variants::First, EVERYWHERE);
    arrives(Variants::Second { field: 1 }, EVERYWHERE);
    arrives(Variants::Third(0, 1), EVERYWHERE);
    arrives(Variants::Fourth(plain()), EVERYWHERE);

    // A name that the other direction does not know.
    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    struct TwoNames {
        #[serde(rename(serialize = "out", deserialize = "in"))]
        a: u8,
    }
    // The description has the name that is written, which is not observed.
    let by_name = [Carried, Carried, RefusedByReader, RefusedByReader];
    let sent = TwoNames { a: 1 };
    assert_eq!(fates(&sent, &sent), by_name);
}

#[test]
fn defaults_and_bounds_do_not_matter_to_a_value_that_is_there() {
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize, Schema)]
    #[serde(default)]
    struct Defaults {
        a: u8,
        #[serde(default)]
        b: Vec<u8>,
        #[serde(default = "seven")]
        c: u8,
    }
    arrives(Defaults::default(), EVERYWHERE);
    arrives(
        Defaults {
            a: 0,
            b: vec![0],
            c: 0,
        },
        EVERYWHERE,
    );

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    #[serde(bound = "T: Serialize + DeserializeOwned", expecting = "a bound")]
    struct Bound<T>(T, #[serde(bound = "")] u8);
    arrives(Bound(plain(), 0), EVERYWHERE);
}

#[test]
fn a_skipped_field_has_its_default_and_the_others_arrive() {
    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    struct Skips {
        a: u8,
        #[serde(skip)]
        skipped: u8,
        #[serde(skip, default = "seven")]
        seven: u8,
        b: Vec<u8>,
    }
    let sent = Skips {
        a: 1,
        skipped: 9,
        seven: 9,
        b: vec![0],
    };
    let arrives = Skips {
        a: 1,
        skipped: 0,
        seven: 7,
        b: vec![0],
    };
    assert_eq!(fates(&sent, &arrives), EVERYWHERE);
    check_derived::<Skips>().unwrap();

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    struct SkipsInTuple(u8, #[serde(skip)] u8, Vec<u8>);
    let (sent, arrives) = (SkipsInTuple(1, 9, vec![0]), SkipsInTuple(1, 0, vec![0]));
    assert_eq!(fates(&sent, &arrives), EVERYWHERE);
    check_derived::<SkipsInTuple>().unwrap();

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    enum SkipsInVariants {
        Fields {
            #[serde(skip)]
            skipped: u8,
            b: u8,
        },
        Tuple(#[serde(skip)] u8, u8, u8),
    }
    use SkipsInVariants::{Fields, Tuple};
    let (sent, arrives) = (Fields { skipped: 9, b: 1 }, Fields { skipped: 0, b: 1 });
    assert_eq!(fates(&sent, &arrives), EVERYWHERE);
    assert_eq!(fates(&Tuple(9, 1, 2), &Tuple(0, 1, 2)), EVERYWHERE);
    check_derived::<SkipsInVariants>().unwrap();

    // The last variant: no variant after it changes its number.
    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    enum LastIsSkipped {
        A,
        B(u8),
        #[serde(skip)]
        C,
    }
    self::arrives(LastIsSkipped::A, EVERYWHERE);
    self::arrives(LastIsSkipped::B(0), EVERYWHERE);
    self::arrives(LastIsSkipped::C, [RefusedByWriter; 4]);
}

#[test]
fn a_field_that_is_left_out_is_rejected_where_fields_are_identified_by_position() {
    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    struct Order {
        #[serde(default, skip_serializing_if = "is_zero")]
        discount: u8,
        count: u8,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        notes: Vec<u8>,
    }
    arrives(
        Order {
            discount: 1,
            count: 0,
            notes: vec![0],
        },
        EVERYWHERE,
    );
    arrives(
        Order {
            discount: 0,
            count: 1,
            notes: vec![0],
        },
        DESCRIBED_OR_NOT_SENT,
    );
    arrives(
        Order {
            discount: 1,
            count: 1,
            notes: vec![],
        },
        DESCRIBED_OR_NOT_SENT,
    );
    arrives(
        Order {
            discount: 0,
            count: 1,
            notes: vec![],
        },
        DESCRIBED_OR_NOT_SENT,
    );

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    enum InVariant {
        Fields {
            #[serde(default, skip_serializing_if = "Option::is_none")]
            a: Option<u8>,
            b: u8,
        },
    }
    arrives(InVariant::Fields { a: Some(1), b: 0 }, EVERYWHERE);
    arrives(InVariant::Fields { a: None, b: 0 }, DESCRIBED_OR_NOT_SENT);

    // Without a default an option is missing to JSON and MessagePack as well as `None`.
    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    struct NoDefault {
        #[serde(skip_serializing_if = "Option::is_none")]
        a: Option<u8>,
        #[serde(skip_serializing_if = "is_zero")]
        b: u8,
    }
    arrives(NoDefault { a: None, b: 1 }, DESCRIBED_OR_NOT_SENT);
    let missing = [
        RefusedByWriter,
        RefusedByWriter,
        RefusedByReader,
        RefusedByReader,
    ];
    arrives(NoDefault { a: None, b: 0 }, missing);

    let order = Order {
        discount: 0,
        count: 1,
        notes: vec![0],
    };
    let error = Bincode::encode(&[order], &mut BytesMut::new()).unwrap_err();
    assert_eq!(
        error.kind(),
        &EncodeErrorKind::SkippedField { field: "discount" }
    );
    assert_eq!(
        error.to_string(),
        "the field `discount` is left out, and bincode and postcard identify fields by their \
         position; remove `serde(skip_serializing_if)` or choose json or msgpack"
    );
}

#[test]
fn flattened_and_untagged_values_need_a_self_describing_codec() {
    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    struct Flat {
        id: u8,
        #[serde(flatten)]
        plain: Plain,
        #[serde(flatten)]
        rest: BTreeMap<String, u8>,
    }
    let rest = BTreeMap::from([("r".to_owned(), 0)]);
    arrives(
        Flat {
            id: 0,
            plain: plain(),
            rest,
        },
        DESCRIBED_OR_NOT_SENT,
    );

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    enum FlatVariant {
        Fields {
            id: u8,
            #[serde(flatten)]
            plain: Plain,
        },
    }
    arrives(
        FlatVariant::Fields {
            id: 0,
            plain: plain(),
        },
        DESCRIBED_OR_NOT_SENT,
    );

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    #[serde(untagged)]
    enum Untagged {
        Number(u8),
        Text(String),
        Fields { a: u8 },
        Nothing,
    }
    arrives(Untagged::Number(1), DESCRIBED_OR_NOT_READ);
    arrives(Untagged::Text("t".into()), DESCRIBED_OR_NOT_READ);
    arrives(Untagged::Fields { a: 1 }, DESCRIBED_OR_NOT_READ);
    arrives(Untagged::Nothing, DESCRIBED_OR_NOT_READ);

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    enum LastIsUntagged {
        A(u8),
        #[serde(untagged)]
        Other(String),
    }
    arrives(LastIsUntagged::A(0), DESCRIBED_OR_NOT_READ);
    arrives(LastIsUntagged::Other("o".into()), DESCRIBED_OR_NOT_READ);

    let value = serde_json::json!({ "a": [1, "x"] });
    assert_eq!(fates(&value, &value), DESCRIBED_OR_NOT_READ);
}

#[test]
fn a_tag_needs_a_self_describing_codec() {
    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    #[serde(tag = "kind")]
    enum Internal {
        Unit,
        Newtype(Plain),
        Fields { a: u8 },
    }
    arrives(Internal::Unit, DESCRIBED_OR_NOT_READ);
    arrives(Internal::Newtype(plain()), DESCRIBED_OR_NOT_READ);
    arrives(Internal::Fields { a: 0 }, DESCRIBED_OR_NOT_READ);

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    #[serde(tag = "kind", content = "value")]
    enum Adjacent {
        Unit,
        Newtype(Plain),
        Tuple(u8, u8),
        Fields { a: u8 },
    }
    arrives(Adjacent::Unit, DESCRIBED_OR_NOT_READ);
    arrives(Adjacent::Newtype(plain()), DESCRIBED_OR_NOT_READ);
    arrives(Adjacent::Tuple(0, 1), DESCRIBED_OR_NOT_READ);
    arrives(Adjacent::Fields { a: 0 }, DESCRIBED_OR_NOT_READ);
}

#[test]
fn conversions_and_forwarding_do_not_matter() {
    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    #[serde(transparent)]
    struct Transparent {
        plain: Plain,
    }
    arrives(Transparent { plain: plain() }, EVERYWHERE);

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    struct With {
        #[serde(with = "in_hex")]
        a: u8,
        #[serde(
            serialize_with = "in_hex::serialize",
            deserialize_with = "in_hex::deserialize"
        )]
        b: u8,
    }
    arrives(With { a: 255, b: 0 }, EVERYWHERE);

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
    #[serde(into = "(u8, Vec<u8>)", from = "(u8, Vec<u8>)")]
    struct Converted(Plain);
    impl From<Converted> for (u8, Vec<u8>) {
        fn from(Converted(Plain { a, b }): Converted) -> Self {
            (a, b)
        }
    }
    impl From<(u8, Vec<u8>)> for Converted {
        fn from((a, b): (u8, Vec<u8>)) -> Self {
            Self(Plain { a, b })
        }
    }
    arrives(Converted(plain()), EVERYWHERE);

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
    #[serde(into = "u8", try_from = "u8")]
    struct Even(u8);
    impl From<Even> for u8 {
        fn from(Even(number): Even) -> Self {
            number
        }
    }
    impl TryFrom<u8> for Even {
        type Error = &'static str;

        fn try_from(number: u8) -> Result<Self, &'static str> {
            if number.is_multiple_of(2) {
                Ok(Self(number))
            } else {
                Err("odd")
            }
        }
    }
    arrives(Even(4), EVERYWHERE);
    arrives(Even(5), [RefusedByReader; 4]);

    struct Foreign(u8, u8);
    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Foreign")]
    struct ForeignDef(u8, u8);
    #[derive(Serialize, Deserialize, Schema)]
    struct Remote {
        #[serde(with = "ForeignDef")]
        foreign: Foreign,
    }
    impl PartialEq for Remote {
        fn eq(&self, other: &Self) -> bool {
            (self.foreign.0, self.foreign.1) == (other.foreign.0, other.foreign.1)
        }
    }
    let remote = || Remote {
        foreign: Foreign(0, 1),
    };
    assert_eq!(fates(&remote(), &remote()), EVERYWHERE);
    check_derived::<Remote>().unwrap();

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    enum WithOther {
        Known,
        #[serde(other)]
        Unknown,
    }
    arrives(WithOther::Known, EVERYWHERE);
    arrives(WithOther::Unknown, EVERYWHERE);
}

#[test]
fn a_borrowed_value_arrives() {
    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    struct Borrowed<'a> {
        text: &'a str,
        #[serde(borrow)]
        cow: Cow<'a, str>,
    }
    fn try_one<C: Codec>() {
        let sent = Borrowed {
            text: "a",
            cow: Cow::Borrowed("b"),
        };
        let mut out = BytesMut::new();
        C::encode(&sent, &mut out).unwrap();
        assert_eq!(
            C::decode::<Borrowed<'_>>(&out, &DecodeLimits::new()).unwrap(),
            sent
        );
    }
    try_one::<Bincode>();
    try_one::<Postcard>();
    try_one::<Json>();
    try_one::<Msgpack>();
}

/// Serde does not show to either side that the two halves of such a type differ. The documentation
/// of the codecs names these cases.
#[test]
fn types_that_read_other_fields_than_they_write_are_documented_as_unusable() {
    #[track_caller]
    fn not_carried<T>(value: T)
    where
        T: Serialize + DeserializeOwned + PartialEq + Debug,
    {
        let [bincode, postcard, ..] = fates(&value, &value);
        assert!(bincode != Carried && postcard != Carried, "{value:?}");
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    struct WrittenOnly {
        #[serde(skip_deserializing)]
        a: u8,
        b: u8,
    }
    not_carried(WrittenOnly { a: 0, b: 1 });

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    struct ReadOnly {
        #[serde(skip_serializing)]
        a: u8,
        b: u8,
    }
    not_carried(ReadOnly { a: 0, b: 1 });

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    struct Tuple(#[serde(skip_serializing_if = "is_zero")] u8, u8);
    not_carried(Tuple(0, 1));

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    #[serde(tag = "kind")]
    struct Tagged {
        a: u8,
    }
    not_carried(Tagged { a: 0 });

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    enum FirstIsSkipped {
        #[serde(skip)]
        #[expect(dead_code, reason = "it cannot be sent")]
        A,
        B,
        C,
    }
    not_carried(FirstIsSkipped::B);
    not_carried(FirstIsSkipped::C);
}
