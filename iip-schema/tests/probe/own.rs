//! The attributes of serde, recursion and generic types.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::{check, shown};

#[derive(Serialize, Deserialize)]
struct Unit;

#[derive(Serialize, Deserialize)]
struct Meters(f64);

#[derive(Serialize, Deserialize)]
struct Point(i32, u8);

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Transparent {
    inner: u16,
}

#[test]
fn structs_without_names_are_told_apart() {
    check("Unit;", [Unit]);
    check("Meters(f64)", [Meters(1.5)]);
    check("Point(i32, u8)", [Point(-500, 3)]);
    check("u16", [Transparent { inner: 7 }]);
}

#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Fields {
    first_name: String,
    #[serde(rename = "lastName")]
    last: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default = "seven")]
    count: u32,
    note: Option<String>,
    #[serde(default)]
    default_note: Option<String>,
    #[serde(alias = "zip", alias = "aPostcode")]
    postcode: u32,
    #[serde(skip)]
    #[expect(dead_code, reason = "it is skipped")]
    cache: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<u8>,
}

fn seven() -> u32 {
    7
}

#[test]
fn attributes_of_fields_are_seen() {
    check(
        "Fields{firstName: text, lastName: text, tags: [text] =, count: u32 =, note: text?, \
         defaultNote: text?, postcode/aPostcode/zip: u32, leftOut: u8?, ..}",
        [Fields {
            left_out: Some(1),
            ..Fields::default()
        }],
    );
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct AllDefault {
    a: u8,
    b: Option<u8>,
    c: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Closed {
    a: u8,
}

#[derive(Serialize, Deserialize)]
struct Empty {}

#[test]
fn attributes_of_structs_are_seen() {
    check(
        "AllDefault{a: u8 =, b: u8?, c: text =, ..}",
        [AllDefault::default()],
    );
    check("Closed{a: u8}", [Closed { a: 1 }]);
    check("Empty{, ..}", [Empty {}]);
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Event {
    Started,
    #[serde(alias = "z_moved")]
    Moved(i32),
    Placed(i32, u8),
    Named {
        name: String,
        #[serde(default)]
        size: u8,
    },
    Nested(Box<Meters>),
    #[serde(skip)]
    #[expect(dead_code, reason = "it is skipped")]
    Internal,
}

#[derive(Serialize, Deserialize)]
enum Open {
    Known,
    #[serde(other)]
    Unknown,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", content = "value")]
enum Adjacent {
    Empty,
    Number(u32),
    Pair(u8, String),
    Fields { a: u8, b: Option<u8> },
}

#[test]
fn enums_have_their_variants() {
    check(
        "Event<started, moved/z_moved(i32), placed(i32, u8), named{name: text, size: u8 =}, \
         nested(Meters(f64))>",
        [
            Event::Started,
            Event::Moved(-1),
            Event::Placed(500, 1),
            Event::Named {
                name: "x".to_owned(),
                size: 1,
            },
            Event::Nested(Box::new(Meters(1.0))),
        ],
    );
    check("Open<Known, Unknown other>", [Open::Known, Open::Unknown]);
    check(
        "Adjacent<Adjacent { tag: \"kind\", content: \"value\" } Empty, Number(u32), Pair(u8, \
         text), Fields(opaque main::probe::own::Adjacent: it does not tell its fields, as with \
         `flatten`; it requires `a`)>",
        [
            Adjacent::Empty,
            Adjacent::Number(7),
            Adjacent::Pair(1, "x".to_owned()),
            Adjacent::Fields { a: 1, b: None },
        ],
    );
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Internal {
    A,
    B { b: u8 },
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
    Text(String),
}

#[derive(Serialize, Deserialize)]
struct Flattened {
    id: u32,
    #[serde(flatten)]
    rest: BTreeMap<String, u32>,
    name: String,
}

#[derive(Serialize, Deserialize)]
struct Around {
    before: u8,
    internal: Internal,
    untagged: Untagged,
    flat: Flattened,
    after: Meters,
}

#[test]
fn what_cannot_be_seen_is_opaque_and_hides_nothing_else() {
    check(
        "Around{before: u8, internal: opaque main::probe::own::Internal: it is an internally \
         tagged enum: `kind` is one of `A`, `B`, untagged: opaque main::probe::own::Untagged: it is \
         an untagged enum, or buffers its content otherwise, flat: opaque \
         main::probe::own::Flattened: it does not tell its fields, as with `flatten`; it requires \
         `id`, `name`, after: Meters(f64), ..}",
        [Around {
            before: 1,
            internal: Internal::B { b: 1 },
            untagged: Untagged::Text("x".to_owned()),
            flat: Flattened {
                id: 1,
                rest: BTreeMap::new(),
                name: "x".to_owned(),
            },
            after: Meters(1.0),
        }],
    );
    check(
        "opaque main::probe::own::Internal: it is an internally tagged enum: `kind` is one of `A`, \
         `B`",
        [Internal::A],
    );
    check(
        "(opaque (main::probe::own::Internal, u8): it is an internally tagged enum: `kind` is one \
         of `A`, `B`, u8)",
        [(Internal::A, 1_u8)],
    );
    check(
        "opaque main::probe::own::Untagged: it is an untagged enum, or buffers its content otherwise",
        [Untagged::Number(1)],
    );
}

#[derive(Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
#[derive(Clone)]
struct Even(u32);

impl TryFrom<u32> for Even {
    type Error = &'static str;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        if number == 0 || number % 2 == 1 {
            return Err("it is odd");
        }
        Ok(Self(number))
    }
}

impl From<Even> for u32 {
    fn from(even: Even) -> Self {
        even.0
    }
}

#[derive(Serialize, Deserialize, Clone)]
#[serde(try_from = "String", into = "String")]
struct Never(String);

impl TryFrom<String> for Never {
    type Error = &'static str;

    fn try_from(_: String) -> Result<Self, Self::Error> {
        Err("no text is good enough")
    }
}

impl From<Never> for String {
    fn from(never: Never) -> Self {
        never.0
    }
}

#[derive(Serialize, Deserialize)]
struct Checked {
    even: Even,
    never: Never,
    last: Point,
    #[serde(with = "as_text")]
    with: u32,
}

mod as_text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[test]
fn conditions_on_values_do_not_hide_other_fields() {
    check(
        "Checked{even: u32, never: text, last: Point(i32, u8), with: text, ..}",
        [Checked {
            even: Even(2),
            never: Never("x".to_owned()),
            last: Point(1, 2),
            with: 7,
        }],
    );
}

#[derive(Serialize, Deserialize)]
struct Tree {
    name: String,
    children: Vec<Self>,
    parent: Option<Box<Self>>,
    by_name: HashMap<String, Self>,
}

#[derive(Serialize, Deserialize)]
enum Expression {
    Add(Box<Self>, Box<Self>),
    Not(Box<Self>),
    Literal(i64),
    Call { name: String, args: Vec<Self> },
}

#[derive(Serialize, Deserialize)]
struct Left {
    right: Option<Box<Right>>,
    l: u8,
}

#[derive(Serialize, Deserialize)]
struct Right {
    lefts: Vec<Left>,
    r: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Nested(Vec<Self>);

#[derive(Deserialize)]
#[expect(dead_code, reason = "it has no values")]
struct Endless {
    inner: Box<Self>,
    other: u8,
}

#[test]
fn recursive_types_refer_to_themselves() {
    let leaf = || Tree {
        name: "x".to_owned(),
        children: Vec::new(),
        parent: None,
        by_name: HashMap::new(),
    };
    check(
        "Tree{name: text, children: [Tree], parent: Tree?, by_name: {text: Tree}, ..}",
        [Tree {
            children: vec![leaf()],
            parent: Some(Box::new(leaf())),
            ..leaf()
        }],
    );
    check(
        "Expression<Add(Expression, Expression), Not(Expression), Literal(i64), Call{name: text, \
         args: [Expression]}>",
        [Expression::Not(Box::new(Expression::Add(
            Box::new(Expression::Literal(-7)),
            Box::new(Expression::Call {
                name: "x".to_owned(),
                args: vec![Expression::Literal(1)],
            }),
        )))],
    );
    check(
        "Left{right: Right{lefts: [Left], r: u16, ..}?, l: u8, ..}",
        [Left {
            right: Some(Box::new(Right {
                lefts: vec![Left { right: None, l: 1 }],
                r: 500,
            })),
            l: 2,
        }],
    );
    check("Vec<Nested>([Vec<Nested>])", [Nested(vec![Nested(vec![])])]);
    assert_eq!(shown::<Endless>(), "Endless{inner: Endless, other: u8, ..}");
    assert_eq!(
        shown::<Vec<Tree>>(),
        "[Tree{name: text, children: [Tree], parent: Tree?, by_name: {text: Tree}, ..}]"
    );
}

#[derive(Serialize, Deserialize, Default)]
struct Page<T> {
    items: Vec<T>,
    next: Option<T>,
}

mod other {
    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Meters {
        pub(super) value: u8,
    }
}

#[test]
fn generic_types_within_themselves_are_not_recursive() {
    check(
        "Page<Page<Page<u8>>>{items: [Page<Page<u8>>{items: [Page<u8>{items: [u8], next: u8?, \
         ..}], next: Page<u8>?, ..}], next: Page<Page<u8>>?, ..}",
        [Page {
            items: vec![Page {
                items: vec![Page {
                    items: vec![1_u8],
                    next: Some(2),
                }],
                next: None,
            }],
            next: None,
        }],
    );
}

#[test]
fn types_of_one_name_have_their_paths() {
    check(
        "(main::probe::own::Meters(f64), main::probe::own::other::Meters{value: u8, ..})",
        [(Meters(1.0), other::Meters { value: 1 })],
    );
}

#[derive(Serialize, Deserialize)]
struct Wide {
    id: uuid::Uuid,
    address: Option<std::net::IpAddr>,
    plain: Point,
}

#[test]
fn only_the_smallest_place_that_depends_on_the_format_is_described_twice() {
    check(
        "Wide{id: text | bytes, address: text | IpAddr<V4([u8; 4]), V6([u8; 16])>?, plain: \
         Point(i32, u8), ..}",
        [Wide {
            id: uuid::Uuid::nil(),
            address: Some(std::net::Ipv4Addr::LOCALHOST.into()),
            plain: Point(1, 2),
        }],
    );
}

type ByName = HashMap<String, (uuid::Uuid, semver::Version, Event)>;

#[derive(Deserialize)]
#[expect(dead_code, reason = "it is only described")]
struct Later {
    uuid: uuid::Uuid,
    version: semver::Version,
    url: url::Url,
    deep: Option<Vec<ByName>>,
}

#[test]
fn texts_with_several_formats_in_one_value_are_found() {
    let text = shown::<Later>();
    assert!(
        text.starts_with("Later{uuid: text | bytes, version: text, url: text, deep: "),
        "{text}"
    );
    assert!(
        text.contains("[{text: (text | bytes, text, Event<started, "),
        "{text}"
    );
    assert!(!text.contains("opaque"), "{text}");
}
