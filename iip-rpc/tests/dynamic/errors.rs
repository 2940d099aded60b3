//! The texts of errors.

use iip_rpc::codec::{Bincode, Json};
use iip_schema::dynamic::{ArgumentsSeed, DynamicValue, Layout, MethodArguments, Options};
use iip_schema::{Argument, Definition, Field, Method, Shape, Type, Types};
use serde::de::DeserializeSeed;
use serde_json::{Value, json};

use super::described::Described;
use super::types::{Color, Exact, External, Internal, Order, Point, Skipped};
use super::{decode, encode};

fn error_in<T: Described>(layout: Layout, value: Value) -> String {
    let mut types = Types::new();
    let ty = T::ty(&mut types);
    let value = DynamicValue::new(&ty, &types, &value, Options::new(layout));
    value
        .check(layout == Layout::Named)
        .unwrap_err()
        .to_string()
}

#[test]
fn errors_name_the_place_and_the_closest_name() {
    for layout in [Layout::Named, Layout::Positional] {
        let error = |value| error_in::<Vec<Color>>(layout, value);
        assert_eq!(
            error(json!(["Red", "Gren"])),
            "`/1`: `Color` has no variant `Gren`; the closest is `Green`; its variants are `Red`, \
             `Green`, `blau`"
        );
        let error = |value| error_in::<Vec<(u8, Order)>>(layout, value);
        assert_eq!(
            error(json!([[1, {"#": 1, "itemName": "a", "prize": 1.0}]])),
            "`/0/1`: the field `price` of `Order` is missing"
        );
        assert_eq!(
            error(json!([[1, {"#": 1, "itemName": 2}]])),
            "`/0/1/itemName`: expected a text, found the number 2"
        );
        assert_eq!(
            error(json!([[256, null]])),
            "`/0/0`: expected an integer of the type u8, found the number 256"
        );
        assert_eq!(
            error(json!([[1]])),
            "`/0`: expected a list of 2, found one of 1"
        );
        assert_eq!(error(json!({})), "expected a list, found an object");
    }
}

#[test]
fn names_that_a_type_does_not_have_are_errors_unless_they_are_allowed() {
    let mut types = Types::new();
    let ty = Point::ty(&mut types);
    let value = json!({"x": 1, "y": 2, "zoom/1": 3});
    for layout in [Layout::Named, Layout::Positional] {
        let options = Options::new(layout);
        let error = DynamicValue::new(&ty, &types, &value, options)
            .check(true)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`Point` has no field `zoom/1`; its fields are `x`, `y`"
        );
        let allowed = DynamicValue::new(&ty, &types, &value, options.allow_unknown(true));
        allowed.check(true).unwrap();
    }
}

#[test]
fn what_a_codec_without_names_cannot_have_is_named() {
    let error = error_in::<Internal>(Layout::Positional, json!({"type": "Closed"}));
    assert_eq!(
        error,
        "`Internal` has its variant in a field, so it cannot travel in a codec without field \
         names; choose json or msgpack"
    );
    let mut types = Types::new();
    let opaque = Type::opaque("my::Secret", "");
    let error = encode::<Bincode>(&opaque, &types, &json!(1))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("`my::Secret` is not described"),
        "{error}"
    );
    let error = decode::<Bincode>(&opaque, &types, &[1])
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("`my::Secret` is not described"),
        "{error}"
    );
    assert_eq!(encode::<Json>(&opaque, &types, &json!([1])).unwrap(), "[1]");

    let mut field = Field::new("size", Type::U8);
    field.default = true;
    let fields = vec![field, Field::new("name", Type::option(Type::Text))];
    let deny_unknown_fields = true;
    types.insert(
        "Box",
        Definition::new(Shape::Struct {
            fields,
            deny_unknown_fields,
        }),
    );
    let ty = Type::Named("Box".to_owned());
    let error = encode::<Bincode>(&ty, &types, &json!({}))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("the field `size` of `Box` is missing; it has a default"),
        "{error}"
    );
    assert_eq!(
        encode::<Json>(&ty, &types, &json!({})).unwrap(),
        r#"{"name":null}"#
    );
    assert_eq!(
        &encode::<Bincode>(&ty, &types, &json!({"size": 3})).unwrap()[..],
        [3, 0]
    );
    let error = decode::<Json>(&ty, &types, br#"{"sizes":1}"#)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("`Box` has no field `sizes`; the closest is `size`"),
        "{error}"
    );
}

#[test]
fn texts_are_accepted_for_large_integers_and_bytes_and_aliases_for_names() {
    let mut types = Types::new();
    let ty = Type::Tuple(vec![Type::U64, Type::I128, Type::Bytes, Type::U64]);
    let big = u64::MAX.to_string();
    let value = json!([
        big,
        "-170141183460469231731687303715884105728",
        "hé",
        u64::MAX
    ]);
    let bytes = encode::<Bincode>(&ty, &types, &value).unwrap();
    let shown = json!([
        u64::MAX,
        "-170141183460469231731687303715884105728",
        [104, 195, 169],
        u64::MAX
    ]);
    assert_eq!(decode::<Bincode>(&ty, &types, &bytes).unwrap(), shown);

    let ty = <(Color, Order)>::ty(&mut types);
    let point = json!({"x": 1, "y": 2});
    let order = json!({"#": 1, "itemName": "a", "price": 1, "big": 1, "pos": point});
    let bytes = encode::<Json>(&ty, &types, &json!(["Blue", order])).unwrap();
    let text = r##"["blau",{"#":1,"itemName":"a","place":{"x":1,"y":2},"price":1.0,"big":1}]"##;
    assert_eq!(bytes, text);
}

#[test]
fn a_field_that_may_be_skipped_is_always_written_without_names() {
    let mut types = Types::new();
    let ty = Skipped::ty(&mut types);
    assert_eq!(
        &encode::<Bincode>(&ty, &types, &json!({"a": 1})).unwrap()[..],
        [1, 0]
    );
    assert_eq!(
        decode::<Bincode>(&ty, &types, &[1, 0]).unwrap(),
        json!({"a": 1})
    );
    assert_eq!(
        encode::<Json>(&ty, &types, &json!({"a": 1})).unwrap(),
        r#"{"a":1}"#
    );
}

#[test]
fn a_variant_without_its_content_is_an_error() {
    let error = error_in::<External>(Layout::Named, json!("Pair"));
    assert_eq!(
        error,
        "the variant `Pair` of `External` has a content: {\"Pair\": ..}"
    );
    let error = error_in::<External>(Layout::Named, json!({"Pair": [1, "a"], "Closed": null}));
    assert!(
        error.contains("an object with it as the only key"),
        "{error}"
    );
    let error = error_in::<Exact>(Layout::Positional, json!({"letter": "ab"}));
    assert_eq!(error, "the field `flag` of `Exact` is missing");
}

#[test]
fn the_only_argument_may_be_a_bare_value() {
    let mut types = Types::new();
    let mut method = Method::new("draw", "/m/draw");
    method
        .args
        .push(Argument::new("point", Point::ty(&mut types)));
    let options = Options::new(Layout::Named);
    let write = |value: Value| {
        let arguments = MethodArguments::new(&method, &types, &value, options);
        serde_json::to_string(&arguments).map_err(|error| error.to_string())
    };
    let named = r#"{"point":{"x":1,"y":2}}"#;
    assert_eq!(write(json!({"x": 1, "y": 2})).unwrap(), named);
    assert_eq!(write(json!({"point": {"x": 1, "y": 2}})).unwrap(), named);

    let mut maybe = method.clone();
    maybe.args[0].ty = Type::option(maybe.args[0].ty.clone());
    let value = json!({});
    let arguments = MethodArguments::new(&maybe, &types, &value, options);
    let written = serde_json::to_string(&arguments).unwrap();
    assert_eq!(written, r#"{"point":null}"#);
    let seed = ArgumentsSeed::new(&maybe, &types, options);
    let read = seed.deserialize(&mut serde_json::Deserializer::from_str("{}"));
    assert_eq!(read.unwrap(), json!({"point": null}));

    let mut method = Method::new("add", "/m/add");
    method.args.push(Argument::new("left", Type::U8));
    method
        .args
        .push(Argument::new("right", Type::option(Type::U8)));
    let write = |value: Value| {
        let arguments = MethodArguments::new(&method, &types, &value, options);
        serde_json::to_string(&arguments).map_err(|error| error.to_string())
    };
    assert_eq!(
        write(json!({"left": 1})).unwrap(),
        r#"{"left":1,"right":null}"#
    );
    assert_eq!(
        write(json!({"left": 1, "rigt": 2})).unwrap_err(),
        "`add` has no argument `rigt`; the closest is `right`; its arguments are `left`, `right`"
    );
    assert_eq!(
        write(json!({})).unwrap_err(),
        "the argument `left` of `add` is missing"
    );
    assert_eq!(
        write(json!(3)).unwrap_err(),
        "expected an object with the names of the arguments, found the number 3"
    );
}
