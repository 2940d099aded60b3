//! Types of every form.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use iip_rpc::Schema;
use serde::{Deserialize, Serialize};

/// Every number.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Numbers {
    a: u8,
    b: u16,
    c: u32,
    /// An integer that a float does not hold.
    d: u64,
    e: u128,
    f: i8,
    g: i16,
    h: i32,
    i: i64,
    j: i128,
    k: f32,
    l: f64,
}

/// Whatever a value may be made of.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Plain {
    flag: bool,
    letter: char,
    text: String,
    bytes: Bytes,
    nothing: (),
    maybe: Option<u64>,
    twice: Option<Option<String>>,
    list: Vec<u64>,
    short: [u8; 3],
    long: [i64; 12],
    tuple: (u8, String, Option<u128>),
    single: (u64,),
}

/// Maps by keys of every type.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Maps {
    by_text: HashMap<String, u64>,
    by_number: BTreeMap<u64, Vec<u64>>,
    by_letter: BTreeMap<char, u8>,
    by_flag: BTreeMap<bool, u8>,
    by_level: BTreeMap<Level, u64>,
    by_id: BTreeMap<Id, Level>,
}

/// A level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Schema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Below.
    Low,
    VeryHigh,
}

/// A number with a meaning.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Schema)]
pub struct Id(u64);

#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Unit;

#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Point(i32, u64);

/// Structs of every form, and types of the standard library.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Structs {
    id: Id,
    unit: Unit,
    point: Point,
    page: Page<Point>,
    wait: Duration,
    address: IpAddr,
    outcome: Result<u64, String>,
}

/// A part of a list.
#[derive(Debug, Serialize, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
pub struct Page<T> {
    items: Vec<T>,
    next: Option<u64>,
}

/// Settings of serde.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Settings {
    #[serde(rename = "article-no", alias = "article")]
    article: String,
    #[serde(default)]
    count: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Level>,
    #[schema(secret)]
    password: String,
    #[serde(skip_deserializing)]
    total: u64,
}

/// A type that contains itself.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Tree {
    size: u64,
    children: Vec<Self>,
    parent: Option<Box<Self>>,
}

macro_rules! shapes {
    ($(#[$doc:meta])* $name:ident, $($attribute:meta),*) => {
        $(#[$doc])*
        #[derive(Debug, Serialize, Deserialize, Schema)]
        $(#[$attribute])*
        pub enum $name {
            /// Nothing.
            Nil,
            One(Content),
            Named { a: u64, b: Option<Level> },
        }
    };
}

#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Content {
    x: u64,
    y: f64,
}

shapes!(
    /// Variants are keys.
    External, serde()
);
shapes!(
    /// The variant is among the fields.
    Internal, serde(tag = "kind")
);
shapes!(
    /// The variant is beside the content.
    Adjacent, serde(tag = "t", content = "c")
);
shapes!(
    /// The variant is not written.
    Untagged, serde(untagged)
);

/// Some variants have no name.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub enum Mixed {
    Unit,
    Pair(u64, bool),
    #[serde(untagged)]
    Other(u64),
    #[serde(untagged)]
    Text(String),
}

/// A later build may have more variants.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub enum Colour {
    Red,
    #[serde(other)]
    Unknown,
}

/// Types that are merged into others.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Flat {
    own: u64,
    #[serde(flatten)]
    content: Content,
    #[serde(flatten)]
    maybe: Option<Second>,
    #[serde(flatten)]
    kind: Internal,
}

#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Second {
    second: u64,
}

/// A map is merged.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Rest {
    name: String,
    #[serde(flatten)]
    rest: BTreeMap<String, u64>,
}
