//! Enums in every representation.

use iip_rpc::Schema;
use iip_schema::{Enum, Shape, Tagging, Type, Variant, VariantShape};
use serde::{Deserialize, Serialize};

use super::written::{definition, is_written_as_described};

fn shape<T: Schema>() -> Enum {
    match definition::<T>().shape {
        Shape::Enum(shape) => shape,
        other => panic!("{other:?}"),
    }
}

fn variants<T: Schema>() -> Vec<Variant> {
    shape::<T>().variants
}

#[derive(Default, Serialize, Deserialize, Schema)]
struct Content {
    id: u8,
}

macro_rules! event {
    ($name:ident $(#[$attribute:meta])* => $($tuple:tt)?) => {
        #[derive(Serialize, Deserialize, Schema)]
        $(#[$attribute])*
        enum $name {
            Nothing,
            Wrapped(Content),
            $(Pair $tuple,)?
            Fields { first: u8, second_field: Option<String> },
        }

        impl $name {
            fn all() -> Vec<Self> {
                vec![
                    Self::Nothing,
                    Self::Wrapped(Content::default()),
                    $(event!(pair $tuple),)?
                    Self::Fields { first: 1, second_field: None },
                ]
            }
        }
    };
    (pair $tuple:tt) => { Self::Pair(1, String::new()) };
}

event!(External => (u8, String));
event!(Internal #[serde(tag = "type", rename_all = "snake_case")] =>);
event!(Adjacent #[serde(tag = "t", content = "c")] => (u8, String));
event!(Untagged #[serde(untagged)] => (u8, String));
event!(
    Renamed
    #[serde(rename_all = "kebab-case")]
    #[serde(rename_all_fields = "camelCase")]
    => (u8, String)
);

#[test]
fn every_representation_is_described() {
    is_written_as_described(&External::all());
    is_written_as_described(&Internal::all());
    is_written_as_described(&Adjacent::all());
    is_written_as_described(&Untagged::all());
    is_written_as_described(&Renamed::all());
    assert_eq!(shape::<External>().tagging, Tagging::External);
    let tag = "type".to_owned();
    assert_eq!(shape::<Internal>().tagging, Tagging::Internal { tag });
    let [tag, content] = ["t", "c"].map(str::to_owned);
    assert_eq!(
        shape::<Adjacent>().tagging,
        Tagging::Adjacent { tag, content }
    );
    assert_eq!(shape::<Untagged>().tagging, Tagging::Untagged);
    let contents = variants::<External>().into_iter();
    let contents: Vec<VariantShape> = contents.map(|variant| variant.shape).collect();
    let wrapped = Type::Named("Content".to_owned());
    assert_eq!(contents[0], VariantShape::Unit);
    assert_eq!(contents[1], VariantShape::Newtype(wrapped));
    let pair = vec![Type::U8, Type::Text];
    assert_eq!(contents[2], VariantShape::Tuple(pair));
    assert!(matches!(&contents[3], VariantShape::Struct(fields) if fields.len() == 2));
}

macro_rules! cases {
    ($($name:ident $case:literal)+) => {
        $(
            #[derive(Serialize, Deserialize, Schema)]
            #[serde(rename_all = $case)]
            enum $name {
                A,
                TwoWords,
                HTTPServer,
                V2Find { a_field: u8 },
                #[serde(rename_all = "SCREAMING-KEBAB-CASE")]
                Loud { a_field: u8 },
                #[serde(rename = "as It is")]
                Other,
            }
        )+

        #[test]
        fn every_case_of_variants_is_that_of_serde() {
            $(
                is_written_as_described(&[
                    $name::A,
                    $name::TwoWords,
                    $name::HTTPServer,
                    $name::V2Find { a_field: 1 },
                    $name::Loud { a_field: 1 },
                    $name::Other,
                ]);
            )+
        }
    };
}

cases! {
    Lower "lowercase"
    Upper "UPPERCASE"
    Pascal "PascalCase"
    Camel "camelCase"
    Snake "snake_case"
    ScreamingSnake "SCREAMING_SNAKE_CASE"
    Kebab "kebab-case"
    ScreamingKebab "SCREAMING-KEBAB-CASE"
}

/// What became of it.
#[derive(Serialize, Deserialize, Schema)]
enum Outcome {
    /// Well.
    #[serde(alias = "ok")]
    Done,
    #[serde(skip)]
    _Never(std::marker::PhantomData<*const u8>),
    Renamed(#[serde(skip)] u8),
    #[serde(with = "content")]
    ByFunction(u8, u8),
    #[serde(with = "content")]
    #[schema(as = "Vec<u8>")]
    Stated(u8, u8),
    #[serde(untagged)]
    Number(u32),
}

#[derive(Serialize, Deserialize, Schema)]
enum Open {
    Known,
    #[serde(other)]
    Unknown,
}

mod content {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(a: &u8, b: &u8, to: S) -> Result<S::Ok, S::Error> {
        vec![*a, *b].serialize(to)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<(u8, u8), D::Error> {
        Deserialize::deserialize(from)
    }
}

#[test]
fn the_attributes_of_variants_are_described() {
    is_written_as_described(&[
        Outcome::Done,
        Outcome::Renamed(1),
        Outcome::ByFunction(1, 2),
        Outcome::Stated(1, 2),
        Outcome::Number(7),
    ]);
    let all = variants::<Outcome>();
    let names: Vec<(&str, u32)> = all.iter().map(|v| (&*v.name, v.index)).collect();
    let expected = [
        ("Done", 0),
        ("Renamed", 2),
        ("ByFunction", 3),
        ("Stated", 4),
        ("Number", 5),
    ];
    assert_eq!(names, expected);
    assert_eq!(all[0].doc, "Well.");
    assert_eq!(all[0].aliases, ["ok"]);
    assert_eq!(all[1].shape, VariantShape::Unit);
    assert!(matches!(
        &all[2].shape,
        VariantShape::Newtype(Type::Opaque { .. })
    ));
    assert_eq!(all[3].shape, VariantShape::Newtype(Type::seq(Type::U8)));
    assert!(all[4].untagged);
    is_written_as_described(&[Open::Known, Open::Unknown]);
    assert!(variants::<Open>()[1].other);
    assert_eq!(definition::<Outcome>().doc, "What became of it.");
}

#[cfg(feature = "codec-bincode")]
#[test]
fn the_index_of_a_variant_is_the_one_that_positional_codecs_write() {
    use iip_rpc::codec::{Bincode, Codec};

    for (value, variant) in External::all().iter().zip(variants::<External>()) {
        let mut bytes = bytes::BytesMut::new();
        Bincode::encode(value, &mut bytes).unwrap();
        assert_eq!(u32::from(bytes[0]), variant.index, "{}", variant.name);
    }
}
