//! Types that are merged into others.

use std::collections::BTreeMap;

use iip_schema::{Enum, Field, Shape, Tagging, Type, Variant, VariantShape};
use serde::{Deserialize, Serialize};

use super::enums::Internal;
use super::{Everything, fields, flattened, named};

#[derive(Debug, Serialize, Deserialize)]
struct Base {
    id: u8,
    name: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Page {
    items: Vec<u8>,
    #[serde(flatten)]
    base: Base,
    #[serde(flatten)]
    maybe: Option<Id2>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Id2 {
    second: u8,
}

#[derive(Debug, Serialize, Deserialize)]
struct Rest {
    id: u8,
    #[serde(flatten)]
    rest: BTreeMap<String, bool>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Tagged {
    id: u8,
    #[serde(flatten)]
    what: Internal,
}

#[derive(Debug, Serialize, Deserialize)]
struct Keyed {
    id: u8,
    #[serde(flatten)]
    what: Choice,
    #[serde(flatten)]
    rest: BTreeMap<String, bool>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Choice {
    Left(u8),
    Right { up: bool },
}

pub(super) fn flatten(all: &mut Everything) {
    let base = fields(vec![
        Field::new("id", Type::U8),
        Field::new("name", Type::Text),
    ]);
    let some = || Base {
        id: 1,
        name: String::new(),
    };
    all.add("Base", base, &[some()], &[], &["{\"id\":1}"]);
    let second = fields(vec![Field::new("second", Type::U8)]);
    all.add("Id2", second, &[Id2 { second: 2 }], &[], &["{}"]);
    let page = fields(vec![
        Field::new("items", Type::seq(Type::U8)),
        flattened("base", named("Base")),
        flattened("maybe", Type::option(named("Id2"))),
    ]);
    let written = [None, Some(Id2 { second: 2 })].map(|maybe| Page {
        items: vec![],
        base: some(),
        maybe,
    });
    let refused = ["{\"items\":[]}", "{\"items\":[],\"id\":-1,\"name\":\"\"}"];
    all.add("Page", page, &written, &[], &refused);
    let flags = || Type::map(Type::Text, Type::Bool);
    let rest = fields(vec![Field::new("id", Type::U8), flattened("rest", flags())]);
    let written = Rest {
        id: 1,
        rest: BTreeMap::from([("a".to_owned(), true)]),
    };
    let refused = ["{\"id\":1,\"a\":2}", "{\"a\":true}"];
    all.add("Rest", rest, &[written], &["{\"id\":1}"], &refused);
    let tagged = fields(vec![
        Field::new("id", Type::U8),
        flattened("what", named("Internal")),
    ]);
    // `Internal::One` is not among them: its content refuses the field `id`.
    let b = Some(2);
    let written = [Internal::Nil, Internal::Named { a: 1, b }].map(|what| Tagged { id: 1, what });
    let refused = [
        "{\"id\":1}",
        "{\"kind\":\"Nil\"}",
        "{\"id\":1,\"kind\":\"Nobody\"}",
    ];
    all.add("Tagged", tagged, &written, &[], &refused);
    let right = VariantShape::Struct(vec![Field::new("up", Type::Bool)]);
    let choice = Enum::new(
        Tagging::External,
        vec![
            Variant::new("Left", 0, VariantShape::Newtype(Type::U8)),
            Variant::new("Right", 1, right),
        ],
    );
    let choices = || [Choice::Left(1), Choice::Right { up: true }];
    all.add(
        "Choice",
        Shape::Enum(choice),
        &choices(),
        &[],
        &["\"Left\"", "{}"],
    );
    let keyed = fields(vec![
        Field::new("id", Type::U8),
        flattened("what", named("Choice")),
        flattened("rest", flags()),
    ]);
    let written = choices().map(|what| Keyed {
        id: 1,
        what,
        rest: BTreeMap::new(),
    });
    let refused = [
        "{\"id\":1}",
        "{\"id\":1,\"Left\":true}",
        "{\"id\":1,\"Left\":1,\"a\":2}",
    ];
    all.add(
        "Keyed",
        keyed,
        &written,
        &["{\"id\":1,\"Left\":1,\"a\":true}"],
        &refused,
    );
}
