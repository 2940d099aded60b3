//! Saved descriptions.

use iip_schema::compat::Encoding;
use iip_schema::file::{
    Check, Limits, assert_compatible, check_compatible, from_text, parse_description, sorted,
    to_text,
};
use iip_schema::{Argument, Description, Field, Method, Type};
use proptest::prelude::ProptestConfig;
use proptest::proptest;

use crate::common::{changed, descriptions, fields, orders, variants};

#[test]
fn a_saved_description_reads_well() {
    let text = to_text([&orders()]);
    assert_eq!(text, include_str!("file/orders.schema.json"));
}

#[test]
fn the_order_of_services_and_methods_does_not_change_the_text() {
    let other = changed(|orders| orders.methods.reverse());
    assert_eq!(to_text([&other]), to_text([&orders()]));
    let empty = Description::new("Empty");
    assert_eq!(to_text([&empty, &orders()]), to_text([&orders(), &empty]));
    assert_eq!(sorted([&other, &empty]), sorted([&empty, &orders()]));
    assert_eq!(
        to_text([]),
        "{\n  \"iip_schema\": 1,\n  \"services\": []\n}\n"
    );
}

#[test]
fn documentation_is_saved_and_does_not_matter_in_checks() {
    let documented = changed(|orders| {
        orders.doc = "Documented.".into();
        orders.methods[0].doc = "Documented.".into();
        let mut field = Field::new("number", Type::U64);
        field.doc = "Documented.".into();
        let receipt = iip_schema::Shape::Struct {
            fields: vec![field],
            deny_unknown_fields: false,
        };
        orders
            .types
            .insert("Receipt", iip_schema::Definition::new(receipt));
    });
    let saved = to_text([&documented]);
    assert_eq!(from_text(&saved).unwrap(), sorted([&documented]));
    let strict = Check::strict().deny_warnings();
    strict.run(&orders(), &saved).unwrap();
    strict.run(&documented, &to_text([&orders()])).unwrap();
}

#[test]
fn what_cannot_be_read_is_told_with_its_place() {
    let of = |text: &str| from_text(text).unwrap_err().to_string();
    assert_eq!(
        of("{\n  \"iip_schema\": 1,\n  services\n}"),
        "the saved schema cannot be read: key must be a string at line 3 column 3; save it by \
         `schema::file::to_text`"
    );
    assert_eq!(
        of("{ \"iip_schema\": 1 }"),
        "the saved schema cannot be read: missing field `services` at line 1 column 19; save it by \
         `schema::file::to_text`"
    );
    assert_eq!(
        of("{ \"iip_schema\": 2, \"services\": 5 }"),
        "the saved schema has version 2, and this build reads version 1; use the version of \
         iip-schema that wrote it, or a newer one"
    );
    assert_eq!(
        of("{}"),
        "the saved schema has no key `iip_schema` with its version, which is 1"
    );
    assert!(of(&" ".repeat(17 << 20)).contains("17825792 bytes"));
}

#[test]
fn what_old_programs_understand_is_no_error() {
    let saved = to_text([&orders()]);
    assert_compatible(&orders(), &saved);
    for new in [
        changed(|orders| orders.methods.push(Method::new("count", "/orders/count"))),
        changed(|orders| {
            let receipt = [("number", Type::U64), ("printed", Type::option(Type::Bool))];
            orders.types.insert("Receipt", fields(&receipt));
        }),
        changed(|orders| {
            let size = [("height", Type::U32), ("width", Type::U32)];
            orders.types.insert("Size", fields(&size));
        }),
        // A warning: what is new fails only when it is used.
        changed(|orders| {
            orders
                .types
                .insert("Colour", variants(&["Red", "Green", "Blue", "Black"]));
        }),
    ] {
        check_compatible(&new, &saved).unwrap();
    }
}

#[test]
fn what_old_programs_do_not_understand_is_an_error_with_all_differences() {
    let saved = to_text([&orders()]);
    let new = changed(|orders| {
        orders.methods.pop();
        orders
            .types
            .insert("Receipt", fields(&[("id", Type::Text)]));
    });
    let error = check_compatible(&new, &saved).unwrap_err().to_string();
    let expected = "`Orders` does not go with its saved schema:\n\
        - `Orders.cancel` with the path `/orders/cancel` is no longer there; old clients call it\n\
        - MessagePack, JSON: `Orders.place`, result: the new server does not write the field \
        `number`, which `Receipt` of the old client requires\n\
        - MessagePack, JSON: `Orders.place`, result: the old server does not write the field `id`, \
        which `Receipt` of the new client requires; make it an `Option`, or give it \
        `#[serde(default)]`\n";
    assert!(error.starts_with(expected), "{error}");
    assert!(
        error.ends_with("again by `schema::file::to_text`"),
        "{error}"
    );
    let other = to_text([&Description::new("Other")]);
    let error = check_compatible(&orders(), &other).unwrap_err().to_string();
    assert!(
        error.starts_with("`Orders` is not in the saved schema, which has `Other`; "),
        "{error}"
    );
}

#[test]
#[should_panic(expected = "`Orders` does not go with its saved schema:")]
fn an_assertion_fails_with_the_differences() {
    assert_compatible(&Description::new("Orders"), &to_text([&orders()]));
}

#[test]
fn an_argument_may_be_appended_if_servers_are_updated_first() {
    let saved = to_text([&orders()]);
    let with = |ty: Type| changed(|orders| orders.methods[1].args.push(Argument::new("why", ty)));
    let appended = with(Type::option(Type::Text));
    Check::new().servers_first().run(&appended, &saved).unwrap();
    let error = check_compatible(&appended, &saved).unwrap_err().to_string();
    let text = "- MessagePack, JSON: `Orders.cancel`, argument `why`: the argument is only in the new \
                client, and the old server rejects it\n";
    assert!(error.contains(text), "{error}");
    assert!(error.contains("use `Check::servers_first`"), "{error}");
    let required = with(Type::Text);
    let check = Check::new().servers_first();
    check.run(&required, &saved).unwrap_err();
}

#[test]
fn a_moved_method_is_told_with_both_paths() {
    let moved = changed(|orders| orders.methods[1].path = "/v2/cancel".into());
    let error = check_compatible(&moved, &to_text([&orders()])).unwrap_err();
    let text = "`Orders.cancel` has the path `/v2/cancel` now; old clients call `/orders/cancel`";
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn a_check_can_be_stricter() {
    let saved = to_text([&orders()]);
    let swapped = changed(|orders| {
        let size = [("height", Type::U32), ("width", Type::U32)];
        orders.types.insert("Size", fields(&size));
    });
    let error = Check::strict()
        .run(&swapped, &saved)
        .unwrap_err()
        .to_string();
    assert!(error.contains("at place 0 in the old client and at place 1 in the new server"));
    let black = changed(|orders| {
        orders
            .types
            .insert("Colour", variants(&["Red", "Green", "Blue", "Black"]));
    });
    let error = Check::new()
        .deny_warnings()
        .run(&black, &saved)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("variant `Black` of `Colour` is only in the new client"),
        "{error}"
    );
    let renamed =
        changed(|orders| orders.methods[1].args = vec![Argument::new("order", Type::U64)]);
    Check::new()
        .encodings([Encoding::Bincode])
        .run(&renamed, &saved)
        .unwrap();
    Check::new().run(&renamed, &saved).unwrap_err();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_saved_is_read_again(description in descriptions()) {
        let text = to_text([&description]);
        let read = from_text(&text).unwrap();
        assert_eq!(to_text(&read), text);
        check_compatible(&description, &text).unwrap();
        assert!(text.lines().all(|line| line.len() <= 140), "{text}");
    }
}

/// 100 methods, and 300 structs with six fields each.
fn large() -> Description {
    let mut large = Description::new("shop.v1.Warehouse");
    for place in 0..300 {
        let next = Type::Named(format!("Record{}", (place + 1) % 300));
        let definition = fields(&[
            ("identifier", Type::U64),
            ("display_name", Type::Text),
            ("created_at", Type::I64),
            ("labels", Type::map(Type::Text, Type::Text)),
            ("parent", Type::option(next)),
            ("amounts", Type::seq(Type::F64)),
        ]);
        large.types.insert(format!("Record{place}"), definition);
    }
    for place in 0..100 {
        let name = format!("operation_{place}");
        let mut method = Method::new(&*name, format!("/shop.v1.Warehouse/{name}"));
        let record = |offset| Type::Named(format!("Record{}", place * 3 + offset));
        method.args = vec![
            Argument::new("record", record(0)),
            Argument::new("options", Type::option(record(1))),
        ];
        method.result = Type::seq(record(2));
        method.doc = "Changes a record, and returns the records that depend on it.".to_owned();
        large.methods.push(method);
    }
    large
}

#[test]
fn a_large_service_fits_into_200_kb_of_json_and_is_read_back() {
    let large = large();
    let json = serde_json::to_vec(&large).unwrap();
    assert!(json.len() < 200_000, "{} bytes", json.len());
    let read = parse_description(&json, &Limits::default()).unwrap();
    assert_eq!(read, large);
}
