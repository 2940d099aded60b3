//! Structs whose fields change.

use iip_rpc::Schema;
use iip_rpc::schema::check_derived;
use proptest::option;
use proptest::prelude::any;
use proptest::strategy::Strategy;
use serde::{Deserialize, Serialize};

use super::*;

/// Structs of one name in modules, with what serde needs.
macro_rules! shapes {
    ($($(#[$attribute:meta])* $name:ident { $($(#[$of_field:meta])* $field:ident: $type:ty),* })*) => { $(
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
        $(#[$attribute])*
        struct $name { $($(#[$of_field])* $field: $type),* }
    )*
        #[test]
        fn structs_are_described_as_they_are_observed() {
            $(check_derived::<$name>().unwrap();)*
        }
    };
}

shapes! {
    Size { width: u32, height: u32 }
    Swapped { height: u32, width: u32 }
    Renamed { width: u32, tall: u32 }
    Aliased { width: u32, #[serde(alias = "height")] tall: u32 }
    Defaulted { width: u32, #[serde(default)] tall: u32 }
    Both { #[serde(alias = "width")] height: u32 }
    WithNote { width: u32, height: u32, note: Option<String> }
    WithDefault { width: u32, height: u32, #[serde(default)] depth: u32 }
    WithDepth { width: u32, height: u32, depth: u32 }
    #[serde(deny_unknown_fields)]
    Denying { width: u32, height: u32 }
    Skipping { width: u32, #[serde(skip_serializing_if = "Option::is_none")] height: Option<u32> }
    Required { width: u32, height: u32 }
    Flat { width: u32, #[serde(flatten)] rest: Height }
    Height { height: u32 }
}

fn size() -> Described {
    fields(
        "Size",
        vec![field("width", Type::U32), field("height", Type::U32)],
    )
}

fn sizes() -> impl Strategy<Value = Size> {
    any::<(u32, u32)>().prop_map(|(width, height)| Size { width, height })
}

fn and(last: Field) -> Described {
    fields(
        "Size",
        vec![field("width", Type::U32), field("height", Type::U32), last],
    )
}

fn or(last: Field) -> Described {
    fields("Size", vec![field("width", Type::U32), last])
}

const NAMES_ONLY: [Verdict; 4] = [Incompatible, Incompatible, Compatible, Compatible];

#[test]
fn an_optional_field_is_added_where_fields_have_names() {
    let expect = |Size { width, height }: &Size| {
        Some(WithNote {
            width: *width,
            height: *height,
            note: None,
        })
    };
    let new = and(field("note", Type::option(Type::Text)));
    cell(sizes(), expect, &size(), &new, NAMES_ONLY);
    let expect = |Size { width, height }: &Size| {
        Some(WithDefault {
            width: *width,
            height: *height,
            depth: 0,
        })
    };
    let new = and(with(field("depth", Type::U32), |field| {
        field.default = true
    }));
    cell(sizes(), expect, &size(), &new, NAMES_ONLY);
}

#[test]
fn a_required_field_is_not_added() {
    let new = and(field("depth", Type::U32));
    cell(
        sizes(),
        |_| None::<WithDepth>,
        &size(),
        &new,
        [Incompatible; 4],
    );
    // The other way round it is ignored.
    let news = any::<(u32, u32, u32)>().prop_map(|(width, height, depth)| WithDepth {
        width,
        height,
        depth,
    });
    let expect = |new: &WithDepth| {
        Some(Size {
            width: new.width,
            height: new.height,
        })
    };
    cell(news, expect, &new, &size(), NAMES_ONLY);
}

#[test]
fn a_field_is_removed_unless_unknown_ones_are_denied() {
    let with_note = and(field("note", Type::option(Type::Text)));
    let notes = || {
        (sizes(), option::of(".{0,3}")).prop_map(|(Size { width, height }, note)| WithNote {
            width,
            height,
            note,
        })
    };
    let expect = |old: &WithNote| {
        Some(Size {
            width: old.width,
            height: old.height,
        })
    };
    cell(notes(), expect, &with_note, &size(), NAMES_ONLY);
    let denying = named(
        "Size",
        Shape::Struct {
            fields: vec![field("width", Type::U32), field("height", Type::U32)],
            deny_unknown_fields: true,
        },
    );
    cell(
        notes(),
        |_| None::<Denying>,
        &with_note,
        &denying,
        [Incompatible; 4],
    );
    let same = |old: &Size| {
        Some(Denying {
            width: old.width,
            height: old.height,
        })
    };
    cell(sizes(), same, &size(), &denying, [Equal; 4]);
}

#[test]
fn a_field_is_renamed_by_place_or_with_an_alias() {
    let expect = |Size { width, height }: &Size| {
        Some(Renamed {
            width: *width,
            tall: *height,
        })
    };
    let renamed = or(field("tall", Type::U32));
    let by_place = [Compatible, Compatible, Incompatible, Incompatible];
    cell(sizes(), expect, &size(), &renamed, by_place);
    let expect = |Size { width, height }: &Size| {
        Some(Aliased {
            width: *width,
            tall: *height,
        })
    };
    let aliased = or(with(field("tall", Type::U32), |field| {
        field.aliases.push("height".into());
    }));
    cell(sizes(), expect, &size(), &aliased, [Compatible; 4]);
}

#[test]
fn a_renamed_field_with_a_default_loses_its_value_where_fields_have_names() {
    let defaulted = or(with(field("tall", Type::U32), |field| field.default = true));
    let types = (size(), defaulted);
    for (encoding, codec) in ENCODINGS {
        let (from, to) = ((&types.0.0, &types.0.1), (&types.1.0, &types.1.1));
        let report = compare_types(from, to, encoding);
        let mut outcomes = Outcomes::default();
        let sent = Size {
            width: 1,
            height: 2,
        };
        send(
            codec,
            &sent,
            Some(&Defaulted { width: 1, tall: 2 }),
            &mut outcomes,
        );
        let positional = encoding.is_positional();
        assert_eq!(outcomes.right, usize::from(positional), "{encoding}");
        let verdict = if positional { Compatible } else { Warn };
        assert_eq!(report.verdict(), verdict, "{report}");
    }
}

#[test]
fn a_name_and_its_alias_are_not_written_together() {
    let both = with(field("height", Type::U32), |field| {
        field.aliases.push("width".into())
    });
    let both = fields("Size", vec![both]);
    cell(sizes(), |_| None::<Both>, &size(), &both, [Incompatible; 4]);
}

#[test]
fn fields_are_reordered_only_where_they_have_names() {
    let expect = |Size { width, height }: &Size| {
        Some(Swapped {
            height: *height,
            width: *width,
        })
    };
    let swapped = fields(
        "Size",
        vec![field("height", Type::U32), field("width", Type::U32)],
    );
    let verdicts = [Incompatible, Incompatible, Equal, Equal];
    cell(sizes(), expect, &size(), &swapped, verdicts);
}

#[test]
fn a_field_that_may_be_left_out_has_to_be_optional() {
    let skipping = or(with(field("height", Type::option(Type::U32)), |field| {
        field.may_be_skipped = true;
    }));
    for (encoding, codec) in &ENCODINGS[2..] {
        let reader = size();
        let report = compare_types(
            (&skipping.0, &skipping.1),
            (&reader.0, &reader.1),
            *encoding,
        );
        let mut outcomes = Outcomes::default();
        for height in [None, Some(2)] {
            let expected = height.map(|height| Required { width: 1, height });
            send(
                *codec,
                &Skipping { width: 1, height },
                expected.as_ref(),
                &mut outcomes,
            );
        }
        assert!(outcomes.support(Warn), "{outcomes:?}");
        assert_eq!(report.verdict(), Warn, "{report}");
    }
}

#[test]
fn a_flattened_struct_is_like_its_fields() {
    let mut flat = or(with(field("rest", Type::Named("Height".into())), |field| {
        field.flatten = true;
    }));
    let height = fields("Height", vec![field("height", Type::U32)]);
    for (name, definition) in height.1.iter() {
        flat.1.insert(name, definition.clone());
    }
    for (encoding, codec) in ENCODINGS {
        let reader = size();
        let report = compare_types((&flat.0, &flat.1), (&reader.0, &reader.1), encoding);
        if encoding.is_positional() {
            assert_eq!(report.verdict(), Incompatible, "{report}");
            continue;
        }
        assert_eq!(report.verdict(), Equal, "{report}");
        let mut outcomes = Outcomes::default();
        let (size, height) = (
            Size {
                width: 1,
                height: 2,
            },
            Height { height: 2 },
        );
        let flat = Flat {
            width: 1,
            rest: height,
        };
        send(codec, &flat, Some(&size), &mut outcomes);
        send(codec, &size, Some(&flat), &mut outcomes);
        assert_eq!(outcomes.right, 2);
    }
}

#[test]
fn a_struct_is_like_a_tuple_where_there_are_no_names() {
    cell(
        sizes(),
        |Size { width, height }| Some((*width, *height)),
        &size(),
        &plain(Type::Tuple(vec![Type::U32, Type::U32])),
        [Equal, Equal, Incompatible, Incompatible],
    );
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Pair(u32, u32);
    cell(
        any::<(u32, u32)>().prop_map(|(a, b)| Pair(a, b)),
        |pair| Some((pair.0, pair.1)),
        &named("Pair", Shape::Tuple(vec![Type::U32, Type::U32])),
        &plain(Type::Tuple(vec![Type::U32, Type::U32])),
        [Equal; 4],
    );
}

#[test]
fn a_struct_without_fields_is_nothing_where_there_are_no_names() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Empty {}
    cell(
        proptest::strategy::Just(Empty {}),
        |_| Some(()),
        &fields("Empty", vec![]),
        &plain(Type::Unit),
        [Equal, Equal, Incompatible, Incompatible],
    );
}
