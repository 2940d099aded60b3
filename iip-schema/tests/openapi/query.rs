//! Arguments as query parameters, and integers as texts.

use iip_schema::openapi::{OpenApi, QueryError, query_arguments};
use iip_schema::{Argument, Definition, Description, Method, Shape, Type, Types};
use serde_json::{Value, json};

use super::schema;

fn method() -> (Method, Types) {
    let mut types = Types::new();
    types.insert("Id", Definition::new(Shape::Newtype(Type::U64)));
    let mut method = Method::new("find", "/users/find");
    method.args = vec![
        Argument::new("id", Type::Named("Id".to_owned())),
        Argument::new("name", Type::option(Type::Text)),
        Argument::new("ratio", Type::F64),
        Argument::new("deep", Type::Bool),
        Argument::new("tags", Type::seq(Type::Text)),
    ];
    (method, types)
}

fn arguments(parameters: &[(&str, &str)]) -> Result<Value, QueryError> {
    let (method, types) = method();
    query_arguments(&method, &types, parameters.iter().copied())
}

#[test]
fn parameters_are_read_by_the_types_of_the_arguments() {
    let read = arguments(&[
        ("id", "18446744073709551615"),
        ("name", "7"),
        ("ratio", "1.5"),
        ("deep", "true"),
    ]);
    let expected = json!({"id": u64::MAX, "name": "7", "ratio": 1.5, "deep": true});
    assert_eq!(read, Ok(expected));
    assert_eq!(arguments(&[("id", "-7")]), Ok(json!({"id": -7})));
    assert_eq!(arguments(&[]), Ok(json!({})));
}

#[test]
fn parameters_that_do_not_fit_are_named() {
    for (parameters, text) in [
        (&[("age", "7")][..], "find has no argument `age`"),
        (
            &[("id", "1"), ("id", "2")],
            "the parameter `id` occurs twice",
        ),
        (&[("id", "")], "the parameter `id` is not an integer"),
        (&[("id", "1e3")], "the parameter `id` is not an integer"),
        (
            &[("deep", "1")],
            "the parameter `deep` is not `true` or `false`",
        ),
        (&[("ratio", "NaN")], "the parameter `ratio` is not a number"),
        (
            &[("tags", "a")],
            "the argument `tags` has no form as a query parameter",
        ),
    ] {
        let error = arguments(parameters).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn wide_integers_are_texts_if_asked_for() {
    let (method, types) = method();
    let mut users = Description::new("Users");
    users.methods = vec![method];
    users.types = types;
    let document = OpenApi::new("Users", "1")
        .service(&users)
        .int64_as_text(true)
        .build();
    let id = schema(&document, "Id");
    assert_eq!(
        *id,
        json!({"type": "string", "pattern": "^(0|[1-9][0-9]*)$"})
    );
    // The warning about lost digits does not apply.
    assert_eq!(document["info"]["description"], Value::Null);
    let document = OpenApi::new("Users", "1").service(&users).build();
    assert_eq!(schema(&document, "Id")["type"], "integer");
}
