//! Structs, and the attributes of fields.

use std::borrow::Cow;
use std::collections::BTreeMap;

use iip_rpc::Schema;
use iip_schema::{Field, Shape, Type};
use serde::{Deserialize, Serialize};

use super::written::{all_fit, definition, described, fits, is_written_as_described};

fn fields<T: Schema>() -> Vec<Field> {
    match definition::<T>().shape {
        Shape::Struct { fields, .. } => fields,
        other => panic!("{other:?}"),
    }
}

fn names<T: Schema>() -> Vec<String> {
    fields::<T>().into_iter().map(|field| field.name).collect()
}

/// An order.
///
/// It has  two paragraphs.
#[derive(Debug, Serialize, Deserialize, Schema)]
struct Order {
    /// The number
    /// on the invoice.
    number: u64,
    #[serde(rename = "positions", alias = "items", alias = "lines")]
    items: Vec<Item>,
    #[serde(rename(serialize = "to", deserialize = "address"))]
    target: Option<String>,
    #[serde(default)]
    note: String,
    #[schema(secret)]
    card: String,
    r#type: char,
}

#[derive(Debug, Serialize, Deserialize, Schema)]
struct Item {
    article: String,
    count: usize,
}

fn order() -> Order {
    Order {
        number: 1,
        items: vec![Item {
            article: "pen".to_owned(),
            count: 2,
        }],
        target: None,
        note: String::new(),
        card: "4111".to_owned(),
        r#type: 'x',
    }
}

#[test]
fn a_struct_has_its_fields_in_order_with_all_that_is_known_of_them() {
    // Reading does not show the names that are written, where they differ.
    all_fit(&[order()]);
    let definition = definition::<Order>();
    assert_eq!(definition.doc, "An order.\n\nIt has  two paragraphs.");
    let fields = fields::<Order>();
    assert_eq!(
        names::<Order>(),
        ["number", "positions", "to", "note", "card", "type"]
    );
    assert_eq!(fields[0].doc, "The number\non the invoice.");
    assert_eq!(fields[1].aliases, ["items", "lines"]);
    assert_eq!(fields[1].ty, Type::seq(Type::Named("Item".to_owned())));
    assert_eq!(fields[2].aliases, ["address"]);
    assert!(fields[2].is_optional() && !fields[2].default);
    let defaults: Vec<bool> = fields.iter().map(|field| field.default).collect();
    assert_eq!(defaults, [false, false, false, true, false, false]);
    let secrets: Vec<bool> = fields.iter().map(|field| field.secret).collect();
    assert_eq!(secrets, [false, false, false, false, true, false]);
}

/// The check that the other tests use.
#[test]
fn a_description_that_differs_from_what_is_written_is_noticed() {
    let (ty, types) = described::<Order>();
    let good = serde_json::to_value(order()).unwrap();
    assert_eq!(fits(&types, &ty, &good), Ok(()));
    let changes: [fn(&mut serde_json::Value); 5] = [
        |order| order["number"] = "1".into(),
        |order| order["other"] = 1.into(),
        |order| order["positions"][0]["count"] = (-0.5).into(),
        |order| order["type"] = serde_json::Value::Null,
        |order| {
            order.as_object_mut().unwrap().remove("note");
        },
    ];
    for change in changes {
        let mut changed = good.clone();
        change(&mut changed);
        assert!(fits(&types, &ty, &changed).is_err(), "{changed}");
    }
}

macro_rules! cases {
    ($($name:ident $case:literal)+) => {$(
        #[derive(Serialize, Deserialize, Schema, Default)]
        #[serde(rename_all = $case)]
        #[allow(non_snake_case)]
        struct $name {
            id: u8,
            first_name: u8,
            _v2_find: u8,
            double__line: u8,
            #[serde(rename = "as It is")]
            renamed: u8,
        }
    )+

        #[test]
        fn every_case_of_names_is_that_of_serde() {
            $(is_written_as_described(&[$name::default()]);)+
            assert_eq!(Camel::NAMES, ["id", "firstName", "v2Find", "doubleLine", "as It is"]);
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

impl Camel {
    const NAMES: [&'static str; 5] = ["id", "firstName", "v2Find", "doubleLine", "as It is"];
}

#[derive(Serialize, Deserialize, Schema)]
#[serde(rename_all(serialize = "camelCase", deserialize = "kebab-case"))]
struct TwoCases {
    first_name: String,
    #[serde(rename(deserialize = "old"))]
    last_name: String,
}

#[test]
fn names_that_differ_between_directions_are_aliases() {
    all_fit(&[TwoCases {
        first_name: String::new(),
        last_name: String::new(),
    }]);
    let fields = fields::<TwoCases>();
    assert_eq!(fields[0].name, "firstName");
    assert_eq!(fields[0].aliases, ["first-name"]);
    assert_eq!(fields[1].name, "lastName");
    assert_eq!(fields[1].aliases, ["old"]);
}

#[derive(Serialize, Deserialize, Schema, Default)]
#[serde(default, deny_unknown_fields)]
struct Skips {
    kept: u8,
    #[serde(skip)]
    never: NotSerializable,
    #[serde(skip_serializing)]
    read: u8,
    #[serde(skip_deserializing)]
    written: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    sometimes: Option<u8>,
}

#[derive(Default)]
struct NotSerializable;

#[test]
fn skipped_fields_are_left_out_or_marked() {
    let some = Skips {
        sometimes: Some(1),
        ..Skips::default()
    };
    all_fit(&[Skips::default(), some]);
    let fields = fields::<Skips>();
    assert_eq!(names::<Skips>(), ["kept", "read", "written", "sometimes"]);
    assert!(fields.iter().all(|field| field.default));
    assert!(fields[1].read_only && !fields[1].write_only);
    assert!(fields[2].write_only && !fields[2].read_only);
    assert!(fields[3].may_be_skipped);
    let strict = Shape::Struct {
        fields,
        deny_unknown_fields: true,
    };
    assert_eq!(definition::<Skips>().shape, strict);
}

#[derive(Serialize, Deserialize, Schema)]
#[serde(tag = "kind")]
struct Tagged {
    id: u8,
    #[serde(flatten)]
    item: Item,
    #[serde(flatten)]
    rest: BTreeMap<String, u8>,
}

#[test]
fn flattened_fields_and_the_tag_of_a_struct_are_described() {
    is_written_as_described(&[Tagged {
        id: 1,
        item: Item {
            article: String::new(),
            count: 1,
        },
        rest: BTreeMap::from([("other".to_owned(), 1)]),
    }]);
    let fields = fields::<Tagged>();
    assert_eq!(names::<Tagged>(), ["kind", "id", "item", "rest"]);
    assert!(fields[0].write_only && fields[2].flatten && fields[3].flatten);
}

#[derive(Serialize, Deserialize, Schema)]
struct Nothing;
#[derive(Serialize, Deserialize, Schema)]
struct NoFields {}
#[derive(Serialize, Deserialize, Schema)]
struct NoElements();
#[derive(Serialize, Deserialize, Schema)]
struct Meters(f64);
#[derive(Serialize, Deserialize, Schema)]
struct Point(i32, #[serde(skip)] (), i64);
#[derive(Serialize, Deserialize, Schema)]
struct OneLeft(#[serde(skip)] (), i64);

#[test]
fn every_form_of_a_struct_is_described() {
    is_written_as_described(&[Nothing]);
    is_written_as_described(&[NoFields {}]);
    is_written_as_described(&[NoElements()]);
    is_written_as_described(&[Meters(1.5)]);
    is_written_as_described(&[Point(1, (), 3)]);
    is_written_as_described(&[OneLeft((), 3)]);
    assert_eq!(definition::<Nothing>().shape, Shape::Unit);
    assert_eq!(definition::<Meters>().shape, Shape::Newtype(Type::F64));
    let two = Shape::Tuple(vec![Type::I32, Type::I64]);
    assert_eq!(definition::<Point>().shape, two);
}

mod as_text {
    pub(super) fn serialize<S: serde::Serializer>(value: &u32, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'a, D: serde::Deserializer<'a>>(from: D) -> Result<u32, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[derive(Serialize, Deserialize, Schema)]
struct With {
    #[serde(with = "as_text")]
    unknown: u32,
    #[serde(serialize_with = "as_text::serialize")]
    #[schema(as = "String")]
    quoted: u32,
    #[serde(with = "as_text")]
    #[schema(as = String)]
    plain: u32,
}

#[test]
fn a_field_that_a_function_writes_has_the_type_that_is_stated() {
    all_fit(&[With {
        unknown: 1,
        quoted: 2,
        plain: 3,
    }]);
    let types: Vec<Type> = fields::<With>().into_iter().map(|field| field.ty).collect();
    assert!(
        matches!(&types[0], Type::Opaque { name, reason } if name == "u32" && reason.contains("as"))
    );
    assert_eq!(types[1..], [Type::Text, Type::Text]);
}

#[derive(Clone, Serialize, Deserialize, Schema)]
#[serde(into = "String", try_from = "String")]
struct Email {
    name: String,
    host: String,
}

impl From<Email> for String {
    fn from(email: Email) -> Self {
        format!("{}@{}", email.name, email.host)
    }
}

impl TryFrom<String> for Email {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let (name, host) = text.split_once('@').ok_or("no @")?;
        let [name, host] = [name, host].map(str::to_owned);
        Ok(Self { name, host })
    }
}

#[derive(Serialize, Deserialize, Schema)]
#[serde(try_from = "u8")]
struct Even(u8);

impl TryFrom<u8> for Even {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        number
            .is_multiple_of(2)
            .then_some(Self(number))
            .ok_or("odd")
    }
}

#[derive(Serialize, Deserialize, Schema)]
#[serde(transparent)]
struct Transparent {
    value: Vec<u16>,
    #[serde(skip)]
    _never: (),
}

#[derive(Serialize)]
struct ByHand;

#[derive(Serialize, Deserialize, Schema)]
#[schema(as = "(u8, String)")]
struct Stated(u8, String);

#[test]
fn a_type_that_is_written_like_another_one_is_described_so() {
    let email = Email::try_from("a@b".to_owned()).unwrap();
    is_written_as_described(&[email]);
    assert_eq!(described::<Email>().0, Type::Text);
    is_written_as_described(&[Even(2)]);
    assert_eq!(definition::<Even>().shape, Shape::Newtype(Type::U8));
    is_written_as_described(&[Transparent {
        value: vec![1],
        _never: (),
    }]);
    assert_eq!(described::<Transparent>().0, Type::seq(Type::U16));
    all_fit(&[Stated(1, String::new())]);
    let stated = Type::Tuple(vec![Type::U8, Type::Text]);
    assert_eq!(described::<Stated>().0, stated);
}

#[derive(Serialize, Deserialize, Schema)]
#[serde(transparent)]
struct Tree(Vec<Self>);

#[derive(Serialize, Deserialize, Schema)]
#[serde(transparent)]
struct Ping(Option<Box<Pong>>);
#[derive(Serialize, Deserialize, Schema)]
#[serde(transparent)]
struct Pong(Vec<Ping>);

#[test]
fn a_transparent_type_within_itself_has_a_name() {
    is_written_as_described(&[Tree(vec![Tree(vec![]), Tree(vec![Tree(vec![])])])]);
    let itself = Type::seq(Type::Named("Tree".to_owned()));
    assert_eq!(definition::<Tree>().shape, Shape::Newtype(itself));
    is_written_as_described(&[Ping(Some(Box::new(Pong(vec![Ping(None)]))))]);
    let other = Type::option(Type::seq(Type::Named("Ping".to_owned())));
    assert_eq!(definition::<Ping>().shape, Shape::Newtype(other));
}

#[derive(Serialize, Deserialize, Schema)]
struct Borrows<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
    name: &'a str,
}

/// A struct with the type of another crate that neither derives `Schema` nor can be read.
#[derive(Serialize, Schema)]
struct Foreign {
    address: ByHand,
    part: Vec<ByHand>,
}

#[test]
fn types_that_borrow_and_types_without_schema_are_described() {
    all_fit(&[Borrows {
        text: "a".into(),
        name: "b",
    }]);
    let [text, name] = &*fields::<Borrows<'_>>() else {
        panic!("two fields");
    };
    assert_eq!((&text.ty, &name.ty), (&Type::Text, &Type::Text));
    all_fit(&[Foreign {
        address: ByHand,
        part: vec![ByHand],
    }]);
    let foreign = fields::<Foreign>();
    assert!(matches!(&foreign[0].ty, Type::Opaque { name, .. } if name.ends_with("ByHand")));
}

#[derive(Serialize, Deserialize, Schema)]
#[schema(crate = "iip_schema")]
#[serde(rename = "Renamed")]
struct OfTheOtherCrate {
    id: u8,
}

#[test]
fn the_path_of_the_crate_and_the_name_of_a_type_can_be_set() {
    is_written_as_described(&[OfTheOtherCrate { id: 1 }]);
    let (ty, _) = described::<OfTheOtherCrate>();
    assert_eq!(ty, Type::Named("Renamed".to_owned()));
}
