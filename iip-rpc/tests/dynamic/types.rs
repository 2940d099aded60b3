//! Structs and enums of tests.

use std::collections::BTreeMap;

use fastrand::Rng;
use iip_rpc::Schema;
use iip_schema::{Definition, Enum, Field, Shape, Tagging, Type, Types, Variant, VariantShape};
use serde::{Deserialize, Serialize};

use super::described::Described;

/// Adds a definition unless the name is taken, so that types may refer to themselves.
fn define(types: &mut Types, name: &str, shape: impl FnOnce(&mut Types) -> Shape) -> Type {
    if types.get(name).is_none() {
        types.insert(name, Definition::new(Shape::Unit));
        let shape = shape(types);
        types.insert(name, Definition::new(shape));
    }
    Type::Named(name.to_owned())
}

/// Makes a struct with its description. The two words tell whether it is
/// `NAMED_ONLY` and `EXACT`; a closure after a field changes its description.
macro_rules! record {
    (
        $(#[$meta:meta])*
        struct $name:ident ($named_only:literal, $exact:literal) {
            $($(#[$field_meta:meta])* $field:ident: $type:ty $(, |$f:ident| $edit:expr)?;)*
        }
    ) => {
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
        $(#[$meta])*
        pub(super) struct $name { $($(#[$field_meta])* pub(super) $field: $type),* }

        impl Described for $name {
            const NAMED_ONLY: bool = $named_only;
            const EXACT: bool = $exact;

            #[allow(unused_variables, reason = "there may be no field")]
            fn ty(types: &mut Types) -> Type {
                define(types, stringify!($name), |types| Shape::Struct {
                    fields: vec![$({
                        #[allow(unused_mut, reason = "some have no flags")]
                        let mut field = Field::new(stringify!($field), <$type>::ty(types));
                        $( let $f = &mut field; $edit; )?
                        field
                    }),*],
                    deny_unknown_fields: false,
                })
            }

            #[allow(unused_variables, reason = "there may be no field")]
            fn random(rng: &mut Rng, levels: u8) -> Self {
                let levels = levels.saturating_sub(1);
                Self { $($field: <$type>::random(rng, levels)),* }
            }
        }
    };
}

record! {
    struct Point (false, true) { x: i32; y: i32; }
}

record! {
    #[serde(rename_all = "camelCase")]
    struct Order (false, false) {
        #[serde(rename = "#")] number: u64, |field| field.name = "#".to_owned();
        item_name: String, |field| field.name = "itemName".to_owned();
        #[serde(default)] amount: Option<u16>, |field| field.default = true;
        #[serde(alias = "pos")] place: Option<Point>, |field| field.aliases = vec!["pos".into()];
        price: f64;
        big: u128;
    }
}

record! {
    struct Exact (false, true) {
        flag: bool; letter: char; blob: bytes::Bytes; list: Vec<Option<i8>>; pair: (u16, String);
        three: [u32; 3]; nothing: (); small: f32;
    }
}

record! {
    struct Skipped (false, true) {
        a: u8;
        #[serde(skip_serializing_if = "Option::is_none")]
        b: Option<String>, |field| field.may_be_skipped = true;
    }
}

record! {
    struct Tree (false, true) { value: i64; children: Vec<Tree>; }
}

record! {
    struct Flattened (true, true) {
        id: u32;
        #[serde(flatten)] point: Point, |field| field.flatten = true;
        #[serde(flatten)] kind: Adjacent, |field| field.flatten = true;
    }
}

record! {
    struct Beside (true, true) {
        id: u32;
        #[serde(flatten)] kind: Internal, |field| field.flatten = true;
    }
}

record! {
    struct Extra (true, true) {
        id: u32;
        #[serde(flatten)] choice: External, |field| field.flatten = true;
        #[serde(flatten)] maybe: Option<Point>, |field| field.flatten = true;
        #[serde(flatten)] more: Named, |field| field.flatten = true;
    }
}

record! {
    struct Empty (false, true) {}
}

/// A map with keys that are no fields of others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
pub(super) struct Named(BTreeMap<String, i32>);

impl Described for Named {
    const EXACT: bool = false;

    fn ty(types: &mut Types) -> Type {
        BTreeMap::<String, i32>::ty(types)
    }

    fn random(rng: &mut Rng, _: u8) -> Self {
        Self(
            (0..rng.u8(..3))
                .map(|at| (format!("more-{at}"), rng.i32(..)))
                .collect(),
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Schema)]
pub(super) struct Nothing;

impl Described for Nothing {
    fn ty(types: &mut Types) -> Type {
        define(types, "Nothing", |_| Shape::Unit)
    }

    fn random(_: &mut Rng, _: u8) -> Self {
        Self
    }
}

#[derive(Debug, Clone, PartialEq, PartialOrd, Eq, Ord, Serialize, Deserialize, Schema)]
pub(super) struct Id(u32);

impl Described for Id {
    fn ty(types: &mut Types) -> Type {
        define(types, "Id", |_| Shape::Newtype(Type::U32))
    }

    fn random(rng: &mut Rng, _: u8) -> Self {
        Self(rng.u32(..))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
pub(super) struct Line(Point, Point);

impl Described for Line {
    fn ty(types: &mut Types) -> Type {
        define(types, "Line", |types| {
            Shape::Tuple(vec![Point::ty(types), Point::ty(types)])
        })
    }

    fn random(rng: &mut Rng, levels: u8) -> Self {
        Self(Point::random(rng, levels), Point::random(rng, levels))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Schema)]
pub(super) enum Color {
    Red,
    Green,
    #[serde(rename = "blau", alias = "Blue")]
    Blue,
}

impl Described for Color {
    fn ty(types: &mut Types) -> Type {
        define(types, "Color", |_| {
            let mut blue = Variant::new("blau", 2, VariantShape::Unit);
            blue.aliases = vec!["Blue".to_owned()];
            let red = Variant::new("Red", 0, VariantShape::Unit);
            let green = Variant::new("Green", 1, VariantShape::Unit);
            Shape::Enum(Enum::new(Tagging::External, vec![red, green, blue]))
        })
    }

    fn random(rng: &mut Rng, _: u8) -> Self {
        [Self::Red, Self::Green, Self::Blue][rng.usize(..3)]
    }
}

/// Makes an enum with the same variants and another representation.
macro_rules! variants {
    ($($name:ident $(#[$meta:meta])* { $($tuple:tt)* })*) => { $(
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
        $(#[$meta])*
        pub(super) enum $name {
            Moved { by: Point, quickly: Option<bool> },
            Resized(Point),
            Closed,
            $($tuple)*
        }

        impl $name {
            fn common(types: &mut Types) -> Vec<Variant> {
                let by = Field::new("by", Point::ty(types));
                let quickly = Field::new("quickly", Type::option(Type::Bool));
                vec![
                    Variant::new("Moved", 0, VariantShape::Struct(vec![by, quickly])),
                    Variant::new("Resized", 1, VariantShape::Newtype(Point::ty(types))),
                    Variant::new("Closed", 2, VariantShape::Unit),
                ]
            }

            fn common_random(rng: &mut Rng, levels: u8) -> Self {
                match rng.u8(..3) {
                    0 => Self::Moved {
                        by: Point::random(rng, levels),
                        quickly: Option::random(rng, levels),
                    },
                    1 => Self::Resized(Point::random(rng, levels)),
                    _ => Self::Closed,
                }
            }
        }
    )* };
}

variants! {
    External {
        Pair(u8, String),
        Nested(Box<External>),
    }
    Internal #[serde(tag = "type")] {}
    Adjacent #[serde(tag = "t", content = "c")] {
        Pair(u8, String),
    }
    Untagged #[serde(untagged)] {
        Number(u64),
        Text(String),
        List(Vec<Untagged>),
    }
}

fn pair(index: u32) -> Variant {
    Variant::new(
        "Pair",
        index,
        VariantShape::Tuple(vec![Type::U8, Type::Text]),
    )
}

impl Described for External {
    fn ty(types: &mut Types) -> Type {
        define(types, "External", |types| {
            let mut variants = Self::common(types);
            let own = Type::Named("External".to_owned());
            variants.push(pair(3));
            variants.push(Variant::new("Nested", 4, VariantShape::Newtype(own)));
            Shape::Enum(Enum::new(Tagging::External, variants))
        })
    }

    fn random(rng: &mut Rng, levels: u8) -> Self {
        match rng.u8(..3) {
            0 if levels > 0 => Self::Nested(Box::new(Self::random(rng, levels - 1))),
            1 => Self::Pair(rng.u8(..), String::random(rng, levels)),
            _ => Self::common_random(rng, levels),
        }
    }
}

impl Described for Internal {
    const NAMED_ONLY: bool = true;

    fn ty(types: &mut Types) -> Type {
        define(types, "Internal", |types| {
            let tag = "type".to_owned();
            Shape::Enum(Enum::new(Tagging::Internal { tag }, Self::common(types)))
        })
    }

    fn random(rng: &mut Rng, levels: u8) -> Self {
        Self::common_random(rng, levels)
    }
}

impl Described for Adjacent {
    const NAMED_ONLY: bool = true;

    fn ty(types: &mut Types) -> Type {
        define(types, "Adjacent", |types| {
            let (tag, content) = ("t".to_owned(), "c".to_owned());
            let mut variants = Self::common(types);
            variants.push(pair(3));
            Shape::Enum(Enum::new(Tagging::Adjacent { tag, content }, variants))
        })
    }

    fn random(rng: &mut Rng, levels: u8) -> Self {
        match rng.u8(..4) {
            0 => Self::Pair(rng.u8(..), String::random(rng, levels)),
            _ => Self::common_random(rng, levels),
        }
    }
}

impl Described for Untagged {
    const NAMED_ONLY: bool = true;

    fn ty(types: &mut Types) -> Type {
        define(types, "Untagged", |types| {
            let mut variants = Self::common(types);
            let own = Type::Named("Untagged".to_owned());
            let more = [
                ("Number", Type::U64),
                ("Text", Type::Text),
                ("List", Type::seq(own)),
            ];
            for (index, (name, ty)) in (3..).zip(more) {
                variants.push(Variant::new(name, index, VariantShape::Newtype(ty)));
            }
            Shape::Enum(Enum::new(Tagging::Untagged, variants))
        })
    }

    fn random(rng: &mut Rng, levels: u8) -> Self {
        match rng.u8(..5) {
            0 => Self::Number(rng.u64(..)),
            1 => Self::Text(rng.u8(..).to_string()),
            // A list that begins with a point is read by serde as the fields of `Moved`.
            2 if levels > 0 => {
                let mut list = Vec::random(rng, levels);
                list.insert(0, Self::Number(1));
                Self::List(list)
            }
            // serde reads an object with `x` and `y` as the variant that is tried first.
            _ => Self::common_random(rng, levels),
        }
    }
}
