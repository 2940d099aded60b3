//! Types that need a codec with names, found at compile time.

#![allow(dead_code, reason = "no value of these types is made")]

use std::collections::HashMap;

use iip_rpc::__private::schema::__private::{Describe, NotDescribed as _};
use iip_rpc::Schema;

macro_rules! reasons {
    ($($expected:literal => $(#[$attribute:meta])* $kind:ident $name:ident $body:tt)+) => {
        $(
            #[derive(Schema)]
            $(#[$attribute])*
            $kind $name $body
        )+

        #[test]
        fn each_attribute_is_named_with_its_place() {
            $(assert_eq!(<$name as Schema>::NAMED_ONLY, Some($expected));)+
        }
    };
}

reasons! {
    "`skip_serializing_if` of the field `note` of `Skips`" => struct Skips {
        id: u8,
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<u8>,
    }
    "`flatten` of the field `rest` of `Flat`" => struct Flat {
        #[serde(flatten)]
        rest: HashMap<String, u8>,
    }
    "`skip_serializing` of the field `a` of `Read`" => struct Read {
        #[serde(skip_serializing)]
        a: u8,
    }
    "`skip_deserializing` of the field `a` of `Written`" => struct Written {
        #[serde(skip_deserializing)]
        a: u8,
    }
    "`tag` of `Struct`" => #[serde(tag = "t")] struct Struct { a: u8 }
    "`tag` of `Internal`" => #[serde(tag = "t")] enum Internal { A, B }
    "`tag, content` of `Adjacent`" => #[serde(tag = "t", content = "c")] enum Adjacent { A, B }
    "`untagged` of `Untagged`" => #[serde(untagged)] enum Untagged { A(u8), B(String) }
    "`untagged` of the variant `B` of `Partly`" => enum Partly {
        A(u8),
        #[serde(untagged)]
        B(String),
    }
    "`skip_serializing_if` of the field `b` of `Inner::A`" => enum Inner {
        A {
            #[serde(skip_serializing_if = "Option::is_none")]
            b: Option<u8>,
        },
    }
    "`skip` of the variant `A` of `Gap`" => enum Gap {
        #[serde(skip)]
        A,
        B,
    }
}

#[derive(Schema)]
struct Harmless {
    #[serde(skip, skip_serializing_if = "Option::is_none")]
    a: Option<u8>,
    #[serde(default, rename = "c", alias = "d")]
    b: u8,
}

#[derive(Schema)]
enum SkippedLast {
    A,
    #[serde(skip)]
    B,
}

#[test]
fn attributes_that_positional_codecs_allow_are_no_reason() {
    assert_eq!(Harmless::NAMED_ONLY, None);
    assert_eq!(SkippedLast::NAMED_ONLY, None);
    assert_eq!(Harmless::IN_CONTAINERS, None);
}

#[derive(Schema)]
struct InPlace {
    id: u8,
    skips: (u8, Option<Skips>),
}
#[derive(Schema)]
struct Deeper {
    inside: InPlace,
}
#[derive(Schema)]
struct InList {
    list: Vec<Deeper>,
}
#[derive(Schema)]
struct InLists {
    lists: HashMap<String, InList>,
}
#[derive(Schema)]
struct TooDeep {
    lists: Box<InLists>,
}
#[derive(Schema)]
struct Page<T> {
    items: Vec<T>,
}
#[derive(Schema)]
#[schema(named_only)]
struct Declared {
    inside: InPlace,
    #[serde(flatten)]
    flat: Harmless,
}
#[derive(Schema)]
struct UsesDeclared {
    declared: Declared,
}

const SKIPS: Option<&str> = Some("`skip_serializing_if` of the field `note` of `Skips`");

#[test]
fn reasons_are_found_in_nested_types() {
    assert_eq!(Describe::<InPlace>::IN_PLACE, SKIPS);
    assert_eq!(Describe::<Deeper>::IN_PLACE, SKIPS);
    assert_eq!(Describe::<InList>::IN_PLACE, None);
    assert_eq!(Describe::<InList>::IN_CONTAINERS, SKIPS);
    assert_eq!(Describe::<InLists>::IN_CONTAINERS, SKIPS);
    assert_eq!(Describe::<TooDeep>::IN_CONTAINERS, None);
    assert_eq!(Describe::<Page<Deeper>>::IN_CONTAINERS, SKIPS);
    assert_eq!(Describe::<Vec<Page<Deeper>>>::IN_CONTAINERS, SKIPS);
    assert_eq!(InPlace::NAMED_ONLY, None);
}

#[test]
fn a_type_that_states_it_is_no_reason() {
    const { assert!(Declared::IS_NAMED_ONLY && !InPlace::IS_NAMED_ONLY) };
    let own = Some("`flatten` of the field `flat` of `Declared`");
    assert_eq!(Declared::NAMED_ONLY, own);
    assert_eq!(Describe::<Declared>::IN_CONTAINERS, None);
    assert_eq!(Describe::<UsesDeclared>::IN_CONTAINERS, None);
}

struct NoSchema;

#[derive(Schema)]
struct Loop {
    back: Option<Box<Back>>,
    other: NoSchema,
}
#[derive(Schema)]
struct Back {
    loops: Vec<Loop>,
    skips: Skips,
}

#[test]
fn types_that_contain_each_other_do_not_stop_the_compiler() {
    assert_eq!(Describe::<Loop>::IN_CONTAINERS, SKIPS);
    assert_eq!(Describe::<NoSchema>::IN_CONTAINERS, None);
}
