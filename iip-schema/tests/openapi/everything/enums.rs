//! Enums in the four forms.

use iip_schema::{Enum, Field, Shape, Tagging, Type, Variant, VariantShape};
use serde::{Deserialize, Serialize};

use super::structs::Strict;
use super::{Everything, Level, named};

/// The variants of all enums here.
macro_rules! shapes {
    ($name:ident, $($attribute:meta),* $(,)?) => {
        #[derive(Debug, Serialize, Deserialize)]
        $(#[$attribute])*
        pub(super) enum $name {
            Nil,
            One(Strict),
            Named { a: u8, b: Option<u8> },
        }
    };
}

shapes!(External, serde());
shapes!(Internal, serde(tag = "kind"));
shapes!(Adjacent, serde(tag = "t", content = "c"));
shapes!(Untagged, serde(untagged));

macro_rules! samples {
    ($name:ident) => {
        [
            $name::Nil,
            $name::One(Strict::default()),
            $name::Named { a: 1, b: None },
            $name::Named { a: 1, b: Some(2) },
        ]
    };
}

#[derive(Debug, Serialize, Deserialize)]
enum Mixed {
    Unit,
    Pair(u8, bool),
    #[serde(untagged)]
    Other(u8),
}

#[derive(Debug, Serialize, Deserialize)]
enum Open {
    Red,
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum OpenEvent {
    Made {
        by: String,
    },
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Serialize, Deserialize)]
enum Never {}

fn variants() -> Vec<Variant> {
    let fields = vec![
        Field::new("a", Type::U8),
        Field::new("b", Type::option(Type::U8)),
    ];
    let mut nil = Variant::new("Nil", 0, VariantShape::Unit);
    nil.doc = "Nothing at all.".to_owned();
    nil.aliases = vec!["None".to_owned()];
    let mut one = Variant::new("One", 1, VariantShape::Newtype(named("Strict")));
    one.doc = "A strict one.".to_owned();
    vec![
        nil,
        one,
        Variant::new("Named", 2, VariantShape::Struct(fields)),
    ]
}

pub(super) fn enums(all: &mut Everything) {
    let unit = |name: &str, index| Variant::new(name, index, VariantShape::Unit);
    let level = Enum::new(Tagging::External, vec![unit("low", 0), unit("high", 1)]);
    let written = [Level::Low, Level::High];
    all.add(
        "Level",
        Shape::Enum(level),
        &written,
        &[],
        &["\"Low\"", "{}", "0"],
    );

    let shape = |tagging| Shape::Enum(Enum::new(tagging, variants()));
    let refused = [
        "\"One\"",
        "\"Nobody\"",
        "{\"One\":{}}",
        "{\"One\":{\"a\":1},\"Nil\":null}",
        "{\"Named\":{\"a\":256}}",
    ];
    all.add(
        "External",
        shape(Tagging::External),
        &samples!(External),
        &[],
        &refused,
    );
    let internal = shape(Tagging::Internal {
        tag: "kind".to_owned(),
    });
    let refused = [
        "\"Nil\"",
        "{\"kind\":\"Nobody\"}",
        "{\"kind\":\"One\"}",
        "{\"kind\":\"Named\",\"a\":\"1\"}",
    ];
    all.add("Internal", internal, &samples!(Internal), &[], &refused);
    let adjacent = shape(Tagging::Adjacent {
        tag: "t".to_owned(),
        content: "c".to_owned(),
    });
    let refused = [
        "\"Nil\"",
        "{\"t\":\"Nobody\"}",
        "{\"t\":\"One\"}",
        "{\"t\":\"One\",\"c\":{\"a\":1,\"x\":1}}",
    ];
    all.add("Adjacent", adjacent, &samples!(Adjacent), &[], &refused);
    let refused = ["{}", "1", "\"Nil\"", "{\"a\":\"\"}"];
    all.add(
        "Untagged",
        shape(Tagging::Untagged),
        &samples!(Untagged),
        &[],
        &refused,
    );

    let pair = VariantShape::Tuple(vec![Type::U8, Type::Bool]);
    let mut other = Variant::new("Other", 2, VariantShape::Newtype(Type::U8));
    other.untagged = true;
    let mixed = vec![unit("Unit", 0), Variant::new("Pair", 1, pair), other];
    let mixed = Shape::Enum(Enum::new(Tagging::External, mixed));
    let written = [Mixed::Unit, Mixed::Pair(1, true), Mixed::Other(7)];
    all.add(
        "Mixed",
        mixed,
        &written,
        &[],
        &["\"Other\"", "{\"Pair\":[1]}", "256"],
    );

    let mut unknown = unit("Unknown", 1);
    unknown.other = true;
    let open = Enum::new(Tagging::External, vec![unit("Red", 0), unknown.clone()]);
    let written = [Open::Red, Open::Unknown];
    all.add(
        "Open",
        Shape::Enum(open),
        &written,
        &["\"Green\""],
        &["1", "{}"],
    );
    let made = VariantShape::Struct(vec![Field::new("by", Type::Text)]);
    let kind = Tagging::Internal {
        tag: "kind".to_owned(),
    };
    let event = Enum::new(kind, vec![Variant::new("Made", 0, made), unknown]);
    let made = OpenEvent::Made { by: String::new() };
    let written = [made, OpenEvent::Unknown];
    let read = ["{\"kind\":\"Lost\",\"when\":1}"];
    all.add(
        "OpenEvent",
        Shape::Enum(event),
        &written,
        &read,
        &["{}", "{\"kind\":1}", "{\"kind\":\"Made\"}"],
    );
    let never = Shape::Enum(Enum::new(Tagging::External, vec![]));
    all.add::<Never>("Never", never, &[], &[], &["null", "{}", "\"\""]);
}
