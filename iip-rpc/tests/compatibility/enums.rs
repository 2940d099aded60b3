//! Enums whose variants change.

use iip_rpc::Schema;
use iip_rpc::schema::check_derived;
use proptest::prelude::{Just, any};
use proptest::prop_oneof;
use proptest::strategy::Strategy;
use serde::{Deserialize, Serialize};

use super::*;

macro_rules! shapes {
    ($($(#[$attribute:meta])* $name:ident { $($variants:tt)* })*) => { $(
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
        $(#[$attribute])*
        enum $name { $($variants)* }
    )*
        #[test]
        fn enums_are_described_as_they_are_observed() {
            $(check_derived::<$name>().unwrap();)*
        }
    };
}

shapes! {
    Old { A, B(u32), C }
    Appended { A, B(u32), C, D(u32) }
    Reordered { B(u32), A, C }
    Removed { A, C }
    Renamed { A, Bee(u32), C }
    Aliased { A, #[serde(alias = "B")] Bee(u32), C }
    Wider { A, B(u64), C }
    OtherContent { A, B { b: u32 }, C }
    OtherForm { A, B(u32, u32), C }
    #[serde(tag = "kind")]
    Internal { A, B { b: u32 } }
    #[serde(tag = "kind", content = "value")]
    Adjacent { A, B(u32), C }
    #[serde(untagged)]
    Untagged { B(u32), C(String) }
    #[serde(untagged)]
    UntaggedMore { B(u32), C(String), D(bool) }
    Units { A, B }
    WithOther { A, #[serde(other)] Other }
    #[serde(tag = "kind")]
    InternalOther { A, #[serde(other)] Other }
}

fn old() -> Described {
    variants(
        Tagging::External,
        vec![unit("A", 0), newtype("B", 1, Type::U32), unit("C", 2)],
    )
}

fn with_b(b: Variant) -> Described {
    variants(Tagging::External, vec![unit("A", 0), b, unit("C", 2)])
}

fn olds() -> impl Strategy<Value = Old> {
    prop_oneof![Just(Old::A), any::<u32>().prop_map(Old::B), Just(Old::C)]
}

#[test]
fn a_variant_is_appended_and_used_with_a_warning() {
    let new = variants(
        Tagging::External,
        vec![
            unit("A", 0),
            newtype("B", 1, Type::U32),
            unit("C", 2),
            newtype("D", 3, Type::U32),
        ],
    );
    let expect = |value: &Old| {
        Some(match value {
            Old::A => Appended::A,
            Old::B(b) => Appended::B(*b),
            Old::C => Appended::C,
        })
    };
    cell(olds(), expect, &old(), &new, [Compatible; 4]);
    let news = prop_oneof![
        Just(Appended::A),
        any::<u32>().prop_map(Appended::B),
        Just(Appended::C),
        any::<u32>().prop_map(Appended::D),
    ];
    let expect = |value: &Appended| match value {
        Appended::A => Some(Old::A),
        Appended::B(b) => Some(Old::B(*b)),
        Appended::C => Some(Old::C),
        Appended::D(_) => None,
    };
    cell(news, expect, &new, &old(), [Warn; 4]);
}

#[test]
fn variants_are_reordered_only_where_they_have_names() {
    let new = variants(
        Tagging::External,
        vec![newtype("B", 0, Type::U32), unit("A", 1), unit("C", 2)],
    );
    let expect = |value: &Old| {
        Some(match value {
            Old::A => Reordered::A,
            Old::B(b) => Reordered::B(*b),
            Old::C => Reordered::C,
        })
    };
    let verdicts = [Incompatible, Incompatible, Compatible, Compatible];
    cell(olds(), expect, &old(), &new, verdicts);
}

#[test]
fn a_variant_is_removed_with_a_warning_where_it_has_a_name() {
    let new = variants(Tagging::External, vec![unit("A", 0), unit("C", 1)]);
    let expect = |value: &Old| match value {
        Old::A => Some(Removed::A),
        Old::B(_) => None,
        Old::C => Some(Removed::C),
    };
    cell(
        olds(),
        expect,
        &old(),
        &new,
        [Incompatible, Incompatible, Warn, Warn],
    );
}

#[test]
fn a_variant_is_renamed_by_number_or_with_an_alias() {
    let expect = |value: &Old| {
        Some(match value {
            Old::A => Renamed::A,
            Old::B(b) => Renamed::Bee(*b),
            Old::C => Renamed::C,
        })
    };
    let renamed = with_b(newtype("Bee", 1, Type::U32));
    cell(
        olds(),
        expect,
        &old(),
        &renamed,
        [Compatible, Compatible, Warn, Warn],
    );
    let mut bee = newtype("Bee", 1, Type::U32);
    bee.aliases.push("B".into());
    let expect = |value: &Old| {
        Some(match value {
            Old::A => Aliased::A,
            Old::B(b) => Aliased::Bee(*b),
            Old::C => Aliased::C,
        })
    };
    cell(olds(), expect, &old(), &with_b(bee), [Compatible; 4]);
}

#[test]
fn the_content_of_a_variant_changes_as_any_value() {
    let expect = |value: &Old| {
        Some(match value {
            Old::A => Wider::A,
            Old::B(b) => Wider::B(u64::from(*b)),
            Old::C => Wider::C,
        })
    };
    cell(
        olds(),
        expect,
        &old(),
        &with_b(newtype("B", 1, Type::U64)),
        [Compatible; 4],
    );
    let named = VariantShape::Struct(vec![field("b", Type::U32)]);
    let expect = |value: &Old| {
        Some(match value {
            Old::A => OtherContent::A,
            Old::B(b) => OtherContent::B { b: *b },
            Old::C => OtherContent::C,
        })
    };
    let verdicts = [Equal, Equal, Incompatible, Incompatible];
    cell(
        olds(),
        expect,
        &old(),
        &with_b(Variant::new("B", 1, named)),
        verdicts,
    );
    let two = VariantShape::Tuple(vec![Type::U32, Type::U32]);
    let two = with_b(Variant::new("B", 1, two));
    let expect = |value: &Old| match value {
        Old::A => Some(OtherForm::A),
        Old::B(_) => None,
        Old::C => Some(OtherForm::C),
    };
    cell(olds(), expect, &old(), &two, [Incompatible; 4]);
}

#[test]
fn another_representation_is_not_read() {
    let adjacent = Tagging::Adjacent {
        tag: "kind".into(),
        content: "value".into(),
    };
    let adjacent = variants(
        adjacent,
        vec![unit("A", 0), newtype("B", 1, Type::U32), unit("C", 2)],
    );
    cell(
        olds(),
        |_| None::<Adjacent>,
        &old(),
        &adjacent,
        [Incompatible; 4],
    );
    let adjacents = prop_oneof![Just(Adjacent::A), any::<u32>().prop_map(Adjacent::B)];
    cell(
        adjacents,
        |_| None::<Old>,
        &adjacent,
        &old(),
        [Incompatible; 4],
    );
}

#[test]
fn enums_with_tags_are_read_where_fields_have_names() {
    let internal = |b: Type| {
        let b = VariantShape::Struct(vec![field("b", b)]);
        variants(
            Tagging::Internal { tag: "kind".into() },
            vec![unit("A", 0), Variant::new("B", 1, b)],
        )
    };
    let values = || {
        prop_oneof![
            Just(Internal::A),
            any::<u32>().prop_map(|b| Internal::B { b })
        ]
    };
    let same = |value: &Internal| Some(value.clone());
    let verdicts = [Incompatible, Incompatible, Equal, Equal];
    cell(
        values(),
        same,
        &internal(Type::U32),
        &internal(Type::U32),
        verdicts,
    );
    // What it does not know is read as `Other`, with whatever it has.
    let mut other = unit("Other", 1);
    other.other = true;
    let others = variants(
        Tagging::Internal { tag: "kind".into() },
        vec![unit("A", 0), other],
    );
    let expect = |value: &Internal| {
        Some(match value {
            Internal::A => InternalOther::A,
            Internal::B { .. } => InternalOther::Other,
        })
    };
    let verdicts = [Incompatible, Incompatible, Compatible, Compatible];
    cell(values(), expect, &internal(Type::U32), &others, verdicts);
}

#[test]
fn an_untagged_enum_is_read_where_fields_have_names() {
    let more = |more: bool| {
        let mut all = vec![newtype("B", 0, Type::U32), newtype("C", 1, Type::Text)];
        all.extend(more.then(|| newtype("D", 2, Type::Bool)));
        variants(Tagging::Untagged, all)
    };
    let values = prop_oneof![
        any::<u32>().prop_map(UntaggedMore::B),
        ".{0,3}".prop_map(UntaggedMore::C),
        any::<bool>().prop_map(UntaggedMore::D),
    ];
    let same = |value: &UntaggedMore| Some(value.clone());
    let verdicts = [Incompatible, Incompatible, Equal, Equal];
    cell(values.clone(), same, &more(true), &more(true), verdicts);
    let expect = |value: &UntaggedMore| match value {
        UntaggedMore::B(b) => Some(Untagged::B(*b)),
        UntaggedMore::C(c) => Some(Untagged::C(c.clone())),
        UntaggedMore::D(_) => None,
    };
    let verdicts = [Incompatible, Incompatible, Warn, Warn];
    cell(values, expect, &more(true), &more(false), verdicts);
}

#[test]
fn an_unknown_variant_is_read_as_the_other_one_if_it_has_no_content() {
    let mut other = unit("Other", 1);
    other.other = true;
    let others = variants(Tagging::External, vec![unit("A", 0), other]);
    let expect = |value: &Old| match value {
        Old::A => Some(WithOther::A),
        Old::B(_) => None,
        Old::C => Some(WithOther::Other),
    };
    let verdicts = [Incompatible, Incompatible, Warn, Warn];
    cell(olds(), expect, &old(), &others, verdicts);
    let without_content = prop_oneof![Just(Old::A), Just(Old::C)];
    let old = variants(Tagging::External, vec![unit("A", 0), unit("C", 2)]);
    cell(without_content, expect, &old, &others, [Compatible; 4]);
}

#[test]
fn variants_without_content_are_texts_where_they_have_names() {
    let units = variants(Tagging::External, vec![unit("A", 0), unit("B", 1)]);
    let values = prop_oneof![Just(Units::A), Just(Units::B)];
    cell(
        values,
        |value| Some(format!("{value:?}")),
        &units,
        &plain(Type::Text),
        [Incompatible, Incompatible, Compatible, Compatible],
    );
    cell(
        "[ABC]",
        |value: &String| match &**value {
            "A" => Some(Units::A),
            "B" => Some(Units::B),
            _ => None,
        },
        &plain(Type::Text),
        &units,
        [Incompatible, Incompatible, Warn, Warn],
    );
}
