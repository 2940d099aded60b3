//! Values by description: what serde_json alone shows.

use iip_schema::dynamic::{DynamicSeed, DynamicValue, Layout, Options, variant_name};
use iip_schema::{Definition, Enum, Field, Shape, Tagging, Type, Types, Variant, VariantShape};
use serde::de::DeserializeSeed;
use serde_json::{Value, json};

fn named(name: &str) -> Type {
    Type::Named(name.to_owned())
}

fn types() -> Types {
    let mut types = Types::new();
    let fields = vec![
        Field::new("id", Type::U64),
        Field::new("small", Type::U32),
        Field::new("by_id", Type::map(Type::U64, Type::option(Type::I128))),
    ];
    let wide = Shape::Struct {
        fields,
        deny_unknown_fields: false,
    };
    types.insert("Wide", Definition::new(wide));
    let tagged = |tagging| {
        let until = vec![Field::new("until", Type::U32)];
        let variants = vec![
            Variant::new("Gone", 0, VariantShape::Unit),
            Variant::new("SoldOut", 1, VariantShape::Struct(until)),
        ];
        Definition::new(Shape::Enum(Enum::new(tagging, variants)))
    };
    let (tag, content) = ("kind".to_owned(), "content".to_owned());
    types.insert("External", tagged(Tagging::External));
    types.insert("Internal", tagged(Tagging::Internal { tag: tag.clone() }));
    types.insert("Adjacent", tagged(Tagging::Adjacent { tag, content }));
    types.insert("Untagged", tagged(Tagging::Untagged));
    types
}

#[test]
fn wide_integers_are_shown_as_texts_and_read_from_them() {
    let (types, ty) = (types(), named("Wide"));
    let options = Options::new(Layout::Named).wide_as_text(true);
    let plain = r#"{"id":9007199254740993,"small":7,"by_id":{"5":-1}}"#;
    let mut json = serde_json::Deserializer::from_str(plain);
    let shown = DynamicSeed::new(&ty, &types, options)
        .deserialize(&mut json)
        .unwrap();
    let expected = json!({"id": "9007199254740993", "small": 7, "by_id": {"5": "-1"}});
    assert_eq!(shown, expected);
    let written = DynamicValue::new(&ty, &types, &shown, options);
    assert_eq!(serde_json::to_string(&written).unwrap(), plain);
}

#[test]
fn the_variant_of_a_value_is_named() {
    let types = types();
    let name = |ty: &str, value: Value| {
        let found = variant_name(&named(ty), &types, &value);
        found.map(str::to_owned)
    };
    for (ty, value, expected) in [
        ("External", json!("Gone"), Some("Gone")),
        (
            "External",
            json!({"SoldOut": {"until": 1}}),
            Some("SoldOut"),
        ),
        ("External", json!({"SoldOut": 1, "Gone": 2}), None),
        ("External", json!("Other"), None),
        (
            "Internal",
            json!({"kind": "SoldOut", "until": 1}),
            Some("SoldOut"),
        ),
        ("Adjacent", json!({"kind": "Gone"}), Some("Gone")),
        ("Adjacent", json!({"kind": 7}), None),
        ("Untagged", json!({"until": 1}), None),
        ("Wide", json!({"id": 1}), None),
        ("Missing", json!("Gone"), None),
    ] {
        assert_eq!(name(ty, value.clone()).as_deref(), expected, "{ty} {value}");
    }
}

/// A struct whose field `secret` has this type, beside a field that everybody may see.
fn with_secret(types: &mut Types, ty: Type) {
    let mut secret = Field::new("secret", ty);
    secret.secret = true;
    let fields = vec![Field::new("open", Type::U32), secret];
    let shape = Shape::Struct {
        fields,
        deny_unknown_fields: false,
    };
    types.insert("Login", Definition::new(shape));
}

#[test]
fn errors_do_not_show_secrets() {
    let mut types = types();
    with_secret(&mut types, Type::seq(Type::U8));
    let (login, options) = (named("Login"), Options::new(Layout::Named));
    let value = json!({"open": 1, "secret": [1, "hunter2"]});
    let error = DynamicValue::new(&login, &types, &value, options)
        .check(true)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "`/secret`: the value is not of its type; it is secret, so it is not shown"
    );
}

#[test]
fn secrets_are_replaced_by_blank_values_of_their_type() {
    let uuid = Type::ByFormat {
        readable: Box::new(Type::Text),
        compact: Box::new(Type::Bytes),
    };
    let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let wide = json!({"id": 5, "small": 7, "by_id": {}});
    let blank_wide = json!({"id": 0, "small": 0, "by_id": {}});
    for (ty, value, blank) in [
        (Type::Text, json!("hunter2"), json!("***")),
        (Type::U64, json!(77), json!(0)),
        (Type::F32, json!(7.5), json!(0.0)),
        (Type::Bool, json!(true), json!(false)),
        (Type::Char, json!("x"), json!("*")),
        (Type::Bytes, json!([1, 2]), json!([])),
        (Type::option(Type::Text), json!("hunter2"), Value::Null),
        (Type::seq(Type::U8), json!([1]), json!([])),
        (Type::array(Type::U8, 2), json!([1, 2]), json!([0, 0])),
        (
            Type::Tuple(vec![Type::U8, Type::Text]),
            json!([1, "x"]),
            json!([0, "***"]),
        ),
        (Type::map(Type::Text, Type::U8), json!({"a": 1}), json!({})),
        (
            uuid,
            json!(id),
            json!("00000000-0000-0000-0000-000000000000"),
        ),
        (named("Wide"), wide, blank_wide),
        (
            named("External"),
            json!({"SoldOut": {"until": 9}}),
            json!("Gone"),
        ),
        (
            named("Internal"),
            json!({"kind": "SoldOut", "until": 9}),
            json!({"kind": "Gone"}),
        ),
        (
            named("Adjacent"),
            json!({"kind": "Gone"}),
            json!({"kind": "Gone"}),
        ),
        (named("Untagged"), json!({"until": 9}), Value::Null),
    ] {
        let mut types = types();
        with_secret(&mut types, ty);
        let login = named("Login");
        assert!(types.has_secrets(&Type::seq(login.clone())));
        let value = json!({"open": 1, "secret": value}).to_string();
        let read = |options| {
            let mut json = serde_json::Deserializer::from_str(&value);
            let seed = DynamicSeed::new(&login, &types, options);
            seed.deserialize(&mut json).unwrap()
        };
        let options = Options::new(Layout::Named);
        assert_eq!(
            read(options),
            serde_json::from_str::<Value>(&value).unwrap()
        );
        let blanked = read(options.blank_secrets(true));
        assert_eq!(blanked, json!({"open": 1, "secret": blank}));
        let written = DynamicValue::new(&login, &types, &blanked, options);
        assert_eq!(written.check(true), Ok(()), "{blanked}");
    }
    assert!(!types().has_secrets(&named("Wide")));
}
