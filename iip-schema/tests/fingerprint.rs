//! Fingerprints are a contract between builds.

use iip_schema::compat::{Encoding, Verdict, compare};
use iip_schema::fingerprint::{
    build_fingerprint, method_fingerprint, method_fingerprints, service_fingerprint,
};
use iip_schema::{Definition, Description, Field, Method, Shape, Type, Types};
use proptest::prelude::ProptestConfig;
use proptest::proptest;

use crate::common::{changed, descriptions, fields, named, orders, renamed, variants};

/// The fingerprints of a method with this result.
fn of(result: Type, types: &Types) -> (u64, u64) {
    let mut method = Method::new("get", "/get");
    method.result = result;
    let fingerprint = method_fingerprint(&method, types);
    (fingerprint.positional, fingerprint.named)
}

#[test]
fn the_numbers_do_not_change() {
    let fingerprints = method_fingerprints(&orders());
    let mut numbers: Vec<u64> = fingerprints
        .iter()
        .flat_map(|one| [one.positional, one.named])
        .collect();
    let list = [("value", Type::U8), ("next", Type::option(named("List")))];
    let mut types = Types::new();
    types.insert("List", fields(&list));
    let (positional, by_name) = of(named("List"), &types);
    let (unit_positional, unit_by_name) = of(Type::Unit, &Types::new());
    numbers.extend([positional, by_name, unit_positional, unit_by_name]);
    numbers.extend([
        service_fingerprint(&orders()),
        build_fingerprint([]),
        build_fingerprint([1, 2]),
    ]);
    let expected: [u64; 11] = [
        // place(order), positional
        0x1c54e1ffd4f721ed,
        // place(order), named
        0x50c37802b1fc709d,
        // cancel(id), positional
        0xa3c373296aaeaa26,
        // cancel(id), named
        0x9dbc3cdcb8b87c21,
        // a list, positional
        0x3de83f7e9fe9a7f7,
        // a list, named
        0xd858074e5ad5cb12,
        // a method without anything, positional
        0x0b08a59978a29322,
        // a method without anything, named
        0x59da7b96480ff9a3,
        // the service
        0x6e80025bdc0c8937,
        // no services
        0x34c96acdcadb1bbb,
        // two services
        0x4d242501e2290155,
    ];
    assert_eq!(numbers, expected);
}

#[test]
fn a_name_is_seen_in_the_named_fingerprint_only() {
    let before = method_fingerprints(&orders());
    for new in [
        changed(|orders| {
            let size = [("width", Type::U32), ("tall", Type::U32)];
            orders.types.insert("Size", fields(&size));
        }),
        changed(|orders| {
            let size = [("height", Type::U32), ("width", Type::U32)];
            orders.types.insert("Size", fields(&size));
        }),
        changed(|orders| {
            orders
                .types
                .insert("Colour", variants(&["Green", "Red", "Blue"]));
        }),
        changed(|orders| orders.methods[0].args[0].name = "new".into()),
    ] {
        let after = method_fingerprints(&new);
        assert_eq!(before[0].positional, after[0].positional);
        assert_ne!(before[0].named, after[0].named);
        // The other method does not use it.
        assert_eq!(before[1], after[1]);
        assert_ne!(service_fingerprint(&orders()), service_fingerprint(&new));
    }
}

#[test]
fn a_type_is_seen_in_both_fingerprints() {
    let before = method_fingerprints(&orders());
    for new in [
        changed(|orders| {
            let size = [("width", Type::U32), ("height", Type::U64)];
            orders.types.insert("Size", fields(&size));
        }),
        changed(|orders| {
            orders.types.insert("Colour", variants(&["Red", "Green"]));
        }),
    ] {
        let after = method_fingerprints(&new);
        assert_ne!(before[0].positional, after[0].positional);
        assert_ne!(before[0].named, after[0].named);
    }
}

#[test]
fn newtypes_are_not_seen() {
    let new = changed(|orders| {
        orders
            .types
            .insert("Pixels", Definition::new(Shape::Newtype(Type::U32)));
        let size = [("width", named("Pixels")), ("height", Type::U32)];
        orders.types.insert("Size", fields(&size));
    });
    assert_eq!(service_fingerprint(&new), service_fingerprint(&orders()));
}

#[test]
fn types_in_a_cycle_are_told_apart_by_everything_in_it() {
    let cycle = |last: Type| {
        let mut types = Types::new();
        for place in 0..20 {
            let next = Type::option(named(&format!("T{}", (place + 1) % 20)));
            let value = if place == 19 { last.clone() } else { Type::U32 };
            types.insert(
                format!("T{place}"),
                fields(&[("value", value), ("next", next)]),
            );
        }
        types
    };
    let (one, other) = (cycle(Type::U64), cycle(Type::Text));
    let start = named("T0");
    let (a, b) = (of(start.clone(), &one), of(start.clone(), &other));
    assert!(a.0 != b.0 && a.1 != b.1);
    // Every type of the cycle has another distance to the last one.
    assert_ne!(a, of(named("T1"), &one));
    // A cycle of equal types is like a type that refers to itself.
    let mut alone = Types::new();
    let next = Type::option(named("T0"));
    alone.insert("T0", fields(&[("value", Type::U32), ("next", next)]));
    assert_eq!(of(start.clone(), &cycle(Type::U32)), of(start, &alone));
}

#[test]
fn services_are_covered_in_any_order() {
    let (a, b) = (
        service_fingerprint(&orders()),
        service_fingerprint(&Description::new("Empty")),
    );
    assert_eq!(build_fingerprint([a]), a);
    assert_eq!(build_fingerprint([a, b]), build_fingerprint([b, a]));
    assert_ne!(build_fingerprint([a, b]), build_fingerprint([a]));
    let turned = changed(|orders| orders.methods.reverse());
    assert_eq!(service_fingerprint(&turned), a);
    let moved = changed(|orders| orders.methods[0].path = "/other".into());
    assert_ne!(service_fingerprint(&moved), a);
}

/// 100 methods over 300 types of ten fields, each of which leads to all later ones.
fn large() -> Description {
    let mut large = Description::new("Large");
    for place in 0..300 {
        let of_field = |at: usize| match place + at + 1 {
            next if next < 300 && at < 4 => named(&format!("Type{next}")),
            _ if place % 30 == 29 && at == 9 => Type::option(named(&format!("Type{}", place - 29))),
            _ => Type::seq(Type::U32),
        };
        let fields = (0..10).map(|at| Field::new(format!("field{at}"), of_field(at)));
        let fields = fields.collect();
        let deny_unknown_fields = false;
        let shape = Shape::Struct {
            fields,
            deny_unknown_fields,
        };
        large
            .types
            .insert(format!("Type{place}"), Definition::new(shape));
    }
    for place in 0..100 {
        let mut method = Method::new(format!("method{place}"), format!("/large/method{place}"));
        method.result = named(&format!("Type{place}"));
        large.methods.push(method);
    }
    large
}

#[test]
fn types_that_are_used_many_times_are_hashed_once() {
    let large = large();
    // Without that there would be more steps than anybody can wait for.
    assert_eq!(method_fingerprints(&large).len(), 100);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn names_of_types_and_documentation_are_not_seen(description in descriptions()) {
        let other = renamed(&description);
        assert_eq!(method_fingerprints(&description), method_fingerprints(&other));
    }

    #[test]
    fn equal_fingerprints_are_equal_to_a_comparison(one in descriptions(), other in descriptions()) {
        let mut other = other;
        // The types of the two are alike except for some.
        for (name, definition) in one.types.iter().take(4) {
            other.types.insert(name, definition.clone());
        }
        other.methods.clone_from(&one.methods);
        let pairs = method_fingerprints(&one).into_iter().zip(method_fingerprints(&other));
        let differ = pairs.clone().any(|(a, b)| a.named != b.named);
        let by_place = pairs.clone().any(|(a, b)| a.positional != b.positional);
        // What differs by place differs by name too.
        let mut pairs = pairs;
        assert!(pairs.all(|(a, b)| a.named != b.named || a.positional == b.positional));
        for encoding in Encoding::ALL {
            let verdict = compare(&one, &other, encoding).verdict();
            if !differ {
                assert_eq!(verdict, Verdict::Equal);
            }
            if verdict != Verdict::Equal && encoding.is_positional() && !by_place {
                // Only names differ.
                assert!(differ);
            }
        }
    }
}
