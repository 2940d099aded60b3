//! Verdicts and their texts. What the codecs do is tested in `iip-rpc/tests/compatibility`.

use iip_schema::compat::{Encoding, Rule, Verdict, compare, compare_types};
use iip_schema::fingerprint::method_fingerprints;
use iip_schema::{Argument, Description, MethodKind, Shape, Type, Types};
use proptest::prelude::ProptestConfig;
use proptest::proptest;

use crate::common::{changed, descriptions, fields, named, orders, renamed, variants};

/// The first of the worst differences between two builds.
#[track_caller]
fn worst(
    client: &Description,
    server: &Description,
    encoding: Encoding,
) -> (Rule, Verdict, String) {
    let report = compare(client, server, encoding);
    let worst = report.worst().expect("a difference");
    assert_eq!(worst.verdict, report.verdict());
    (worst.rule, worst.verdict, worst.text.clone())
}

#[track_caller]
fn says(
    client: &Description,
    server: &Description,
    encoding: Encoding,
    (rule, verdict, text): (Rule, Verdict, &str),
) {
    let expected = (rule, verdict, text.to_owned());
    assert_eq!(worst(client, server, encoding), expected);
}

#[test]
fn fields_that_changed_places_are_named_with_their_places() {
    let new = changed(|orders| {
        let size = [("height", Type::U32), ("width", Type::U32)];
        orders.types.insert("Size", fields(&size));
    });
    let report = compare(&orders(), &new, Encoding::Bincode);
    assert_eq!(report.verdict(), Verdict::Incompatible);
    assert_eq!(report.differences.len(), 2);
    assert_eq!(
        report.differences[0].place,
        "Orders.place(order).items[].size"
    );
    assert_eq!(report.differences[0].client, "place 0");
    assert_eq!(report.differences[0].server, "place 1");
    assert_eq!(
        report.to_string(),
        "incompatible: `Orders.place`, argument `order` at `items[].size`: field `width` of `Size` \
         is at place 0 in the client and at place 1 in the server; bincode writes fields by place\n\
         incompatible: `Orders.place`, argument `order` at `items[].size`: field `height` of `Size` \
         is at place 1 in the client and at place 0 in the server; bincode writes fields by place"
    );
    assert_eq!(
        compare(&orders(), &new, Encoding::Json).verdict(),
        Verdict::Equal
    );
}

#[test]
fn a_removed_variant_is_named_with_what_the_reader_does() {
    let new = changed(|orders| {
        orders.types.insert("Colour", variants(&["Red", "Green"]));
    });
    says(
        &orders(),
        &new,
        Encoding::Json,
        (
            Rule::VariantRemoved,
            Verdict::Warn,
            "`Orders.place`, argument `order` at `items[].colour`: variant `Blue` of `Colour` is \
             only in the client; the server rejects values of it",
        ),
    );
    let first = changed(|orders| {
        orders.types.insert("Colour", variants(&["Green", "Blue"]));
    });
    says(
        &orders(),
        &first,
        Encoding::Postcard,
        (
            Rule::VariantsReordered,
            Verdict::Incompatible,
            "`Orders.place`, argument `order` at `items[].colour`: variant `Green` of `Colour` is \
             number 1 in the client and number 0 in the server; postcard writes variants by number",
        ),
    );
}

#[test]
fn a_narrowed_integer_is_named_with_both_types() {
    let new = changed(|orders| {
        orders
            .types
            .insert("Receipt", fields(&[("number", Type::U32)]));
    });
    let text = "`Orders.place`, result at `number`: the client writes `u64`, and the server reads \
                `u32`; numbers outside its range are rejected";
    let text = text
        .replace("client", "CLIENT")
        .replace("server", "client")
        .replace("CLIENT", "server");
    // The server writes the result.
    let verdict = (Rule::NumberNarrowed, Verdict::Warn, &*text);
    says(&new, &orders(), Encoding::Bincode, verdict);
    let report = compare(&orders(), &new, Encoding::Bincode);
    assert_eq!(report.verdict(), Verdict::Compatible, "{report}");
    assert_eq!(report.differences[0].rule, Rule::NumberWidened);
}

#[test]
fn a_renamed_argument_is_named_with_both_names() {
    let new = changed(|orders| orders.methods[1].args[0].name = "order".into());
    says(
        &orders(),
        &new,
        Encoding::MessagePack,
        (
            Rule::ArgumentRenamed,
            Verdict::Incompatible,
            "`Orders.cancel`, argument `id`: `id` in the client is `order` in the server; \
             MessagePack writes arguments by name",
        ),
    );
    let report = compare(&orders(), &new, Encoding::Bincode);
    assert_eq!(report.verdict(), Verdict::Compatible);
}

#[test]
fn an_appended_argument_is_named_with_what_would_help() {
    let with =
        |ty: Type| changed(|orders| orders.methods[1].args.push(Argument::new("reason", ty)));
    let required = with(Type::Text);
    says(
        &orders(),
        &required,
        Encoding::Json,
        (
            Rule::ArgumentAdded,
            Verdict::Incompatible,
            "`Orders.cancel`, argument `reason`: the argument is only in the server; make it an \
             `Option`",
        ),
    );
    let optional = with(Type::option(Type::Text));
    says(
        &orders(),
        &optional,
        Encoding::Json,
        (
            Rule::ArgumentAdded,
            Verdict::Compatible,
            "`Orders.cancel`, argument `reason`: the argument is only in the server; it is `None` \
             for the client",
        ),
    );
    says(
        &orders(),
        &optional,
        Encoding::Bincode,
        (
            Rule::ArgumentAdded,
            Verdict::Incompatible,
            "`Orders.cancel`, argument `reason`: the argument is only in the server; bincode writes \
             arguments by place",
        ),
    );
}

#[test]
fn a_changed_kind_is_named_with_both_kinds() {
    let new = changed(|orders| orders.methods[0].kind = MethodKind::ServerStream);
    for encoding in Encoding::ALL {
        says(
            &orders(),
            &new,
            encoding,
            (
                Rule::KindChanged,
                Verdict::Incompatible,
                "`Orders.place`: unary in the client, server streaming in the server",
            ),
        );
    }
}

#[test]
fn errors_before_a_stream_and_at_its_end_are_compared_each() {
    let watch = |error: Option<Type>, at_end: Option<Type>| {
        changed(|orders| {
            let watch = &mut orders.methods[0];
            watch.kind = MethodKind::ServerStream;
            (watch.error, watch.stream_error) = (error, at_end);
        })
    };
    let (none, both) = (
        watch(None, None),
        watch(Some(Type::U8), Some(named("Colour"))),
    );
    let text = "`Orders.place`, error of the stream: the method has an error type in the server \
                only; the client cannot read it";
    let added = watch(None, Some(Type::U8));
    let expected = (Rule::ErrorChanged, Verdict::Warn, text);
    says(&none, &added, Encoding::Json, expected);
    let report = compare(
        &both,
        &watch(Some(Type::U8), Some(Type::U64)),
        Encoding::Bincode,
    );
    assert_eq!(report.verdict(), Verdict::Incompatible, "{report}");
    assert_eq!(report.differences.len(), 1, "{report}");
    assert_eq!(report.differences[0].place, "Orders.place -> stream error");
    assert_ne!(
        method_fingerprints(&none)[0].positional,
        method_fingerprints(&added)[0].positional
    );
}

#[test]
fn methods_belong_together_by_their_paths() {
    let without = changed(|orders| {
        orders.methods.pop();
    });
    let text = "`Orders.cancel`: the method is only in the client; calls fail with UNIMPLEMENTED";
    let removed = (Rule::MethodRemoved, Verdict::Warn, text);
    says(&orders(), &without, Encoding::Json, removed);
    let text = "`Orders.cancel`: the method is only in the server";
    let added = (Rule::MethodAdded, Verdict::Compatible, text);
    says(&without, &orders(), Encoding::Json, added);
    let moved = changed(|orders| orders.methods[1].path = "/v2/cancel".into());
    let text = "`Orders.cancel`: the path is `/orders/cancel` in the client and `/v2/cancel` in the \
                server; calls fail with UNIMPLEMENTED";
    says(
        &orders(),
        &moved,
        Encoding::Json,
        (Rule::PathChanged, Verdict::Warn, text),
    );
    let again = changed(|orders| orders.methods[1].idempotent = false);
    let text = "`Orders.cancel`: the method is idempotent in the client only, which retries calls \
                that may have run";
    says(
        &orders(),
        &again,
        Encoding::Json,
        (Rule::IdempotentRemoved, Verdict::Warn, text),
    );
    assert_eq!(
        compare(&again, &orders(), Encoding::Json).verdict(),
        Verdict::Equal
    );
}

#[test]
fn what_is_opaque_is_unknown_even_by_the_same_name() {
    let opaque = changed(|orders| {
        orders.types.insert(
            "Size",
            iip_schema::Definition::new(Shape::Newtype(Type::opaque("m::Size", ""))),
        );
    });
    for server in [&opaque, &orders()] {
        let text = "`Orders.place`, argument `order` at `items[].size`: nothing is known about the \
                    type `m::Size`";
        let expected = (Rule::OpaqueType, Verdict::Unknown, text);
        says(&opaque, server, Encoding::Bincode, expected);
    }
    let protobuf = changed(|orders| orders.methods[0].codec = Some("protobuf".into()));
    let report = compare(&protobuf, &protobuf, Encoding::Json);
    assert_eq!(report.verdict(), Verdict::Unknown);
    let report = compare(&protobuf, &orders(), Encoding::Json);
    assert_eq!(report.verdict(), Verdict::Incompatible);
}

#[test]
fn types_that_contain_themselves_are_compared_once() {
    let tree = |leaf: Type| {
        let mut types = Types::new();
        let node = [("children", Type::seq(named("Node"))), ("leaf", leaf)];
        types.insert("Node", fields(&node));
        types
    };
    let (old, new) = (tree(Type::U32), tree(Type::U64));
    let node = named("Node");
    let report = compare_types((&node, &old), (&node, &old), Encoding::Bincode);
    assert_eq!(report.verdict(), Verdict::Equal);
    let report = compare_types((&node, &old), (&node, &new), Encoding::Bincode);
    assert_eq!(report.differences.len(), 1);
    assert_eq!(report.differences[0].place, "leaf");
    assert_eq!(report.verdict(), Verdict::Compatible);
    let report = compare_types((&node, &new), (&node, &old), Encoding::Bincode);
    assert_eq!(report.verdict(), Verdict::Warn);
}

#[test]
fn names_from_a_peer_are_escaped_and_shortened() {
    let hostile = "a\u{1b}[31m\u{202e}`b`".to_owned() + &"x".repeat(1000);
    let new = changed(|orders| orders.methods[1].args[0].name = hostile);
    let (_, _, text) = worst(&orders(), &new, Encoding::Json);
    assert!(
        text.contains("`a\\u{1b}[31m\\u{202e}\\u{60}b\\u{60}xx"),
        "{text}"
    );
    assert!(
        text.len() < 300 && text.chars().all(|c| !c.is_control()),
        "{text}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_description_is_equal_to_itself_under_other_names(description in descriptions()) {
        let other = renamed(&description);
        for encoding in Encoding::ALL {
            let report = compare(&description, &description, encoding);
            assert_eq!(report.verdict(), Verdict::Equal, "{report}");
            let report = compare(&description, &other, encoding);
            assert_eq!(report.verdict(), Verdict::Equal, "{report}");
        }
    }

    #[test]
    fn any_two_descriptions_can_be_compared(one in descriptions(), other in descriptions()) {
        for encoding in Encoding::ALL {
            let report = compare(&one, &other, encoding);
            let worst = report.differences.iter().map(|one| one.verdict).max();
            assert_eq!(report.verdict(), worst.unwrap_or_default());
        }
    }
}
