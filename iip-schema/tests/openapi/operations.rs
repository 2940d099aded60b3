//! Operations of methods of every kind.

use iip_schema::openapi::{OpenApi, accepts_get, http_path};
use iip_schema::{
    Argument, Definition, Description, Enum, Field, Format, Method, MethodKind, Shape, Tagging,
    Type, Types, Variant, VariantShape,
};
use serde_json::{Value, json};

use super::{golden_document, schema};

fn named(name: &str) -> Type {
    Type::Named(name.to_owned())
}

fn method(name: &str, args: &[(&str, Type)]) -> Method {
    let mut method = Method::new(name, format!("/shop/{name}"));
    let args = args.iter();
    method.args = args
        .map(|(name, ty)| Argument::new(*name, ty.clone()))
        .collect();
    method
}

fn order() -> Definition {
    let mut token = Field::new("token", Type::Text);
    token.secret = true;
    Definition::new(Shape::Struct {
        fields: vec![Field::new("id", named("OrderId")), token],
        deny_unknown_fields: true,
    })
}

fn shop() -> Description {
    let mut shop = Description::new("shop.v1.Shop");
    shop.doc = "Sells things.".to_owned();
    shop.types.insert("Order", order());
    let id = Definition::new(Shape::Newtype(Type::U64));
    shop.types.insert("OrderId", id);
    let short = VariantShape::Struct(vec![Field::new("missing", Type::U32)]);
    let short = Variant::new("Short", 0, short);
    let error = Shape::Enum(Enum::new(Tagging::External, vec![short]));
    shop.types.insert("shop::Error", Definition::new(error));

    let mut find = method(
        "find",
        &[("id", named("OrderId")), ("deep", Type::option(Type::Bool))],
    );
    find.doc = "Finds an order.\n\nArchived orders are found if `deep` is set.".to_owned();
    find.idempotent = true;
    find.timeout_ms = Some(500);
    find.priority = Some("high".to_owned());
    find.result = Type::option(named("Order"));
    let mut place = method("place", &[("order", named("Order"))]);
    place.doc = "Places an order.".to_owned();
    place.error = Some(named("shop::Error"));
    place.auth = Some("customer".to_owned());
    place.deprecated = Some("use `order`".to_owned());
    let mut ping = method("ping", &[]);
    ping.idempotent = true;
    let mut note = method("note", &[("text", Type::option(Type::Text))]);
    note.kind = MethodKind::OneWay;
    let mut list = method("list", &[("after", Type::option(Type::Text))]);
    (list.kind, list.idempotent) = (MethodKind::ServerStream, true);
    list.result = named("Order");
    list.stream_error = Some(named("shop::Error"));
    let mut upload = method("upload", &[("folder", Type::Text)]);
    upload.kind = MethodKind::ClientStream;
    upload.requests = Some(Type::Bytes);
    upload.result = Type::U64;
    let mut collect = method("collect", &[]);
    collect.kind = MethodKind::ClientStream;
    collect.requests = Some(Type::U8);
    let mut chat = method("chat", &[]);
    chat.kind = MethodKind::Bidirectional;
    (chat.requests, chat.result) = (Some(Type::Text), Type::Text);
    let mut watch = method("watch", &[("article", Type::Text)]);
    (watch.kind, watch.idempotent) = (MethodKind::Subscription, true);
    watch.result = Type::U32;
    let mut echo = method("echo", &[("body", Type::Bytes)]);
    echo.format = Format::Raw;
    let mut total = method("total", &[("request", named("Order"))]);
    total.codec = Some("protobuf".to_owned());
    total.result = Type::opaque("shop::Total", "a protobuf message");
    let mut totals = method("totals", &[]);
    (totals.kind, totals.codec) = (MethodKind::ServerStream, Some("protobuf".to_owned()));
    shop.methods = vec![
        find, place, ping, note, list, upload, collect, chat, watch, echo, total, totals,
    ];
    shop
}

/// Returns a service with two types whose names are those of types of the other service.
fn stock() -> Description {
    let mut stock = Description::new("Stock");
    stock.deprecated = Some(String::new());
    stock.types.insert("Order", order());
    let id = Definition::new(Shape::Newtype(Type::Text));
    stock.types.insert("OrderId", id);
    stock
        .types
        .insert("shop::Error", Definition::new(Shape::Unit));
    let mut count = method("count", &[("order", named("Order"))]);
    count.error = Some(named("shop::Error"));
    stock.methods = vec![count];
    stock
}

fn document() -> Value {
    let (shop, stock) = (shop(), stock());
    let document = OpenApi::new("Shop", "1.2").description("All of it.");
    let document = document.server("https://api.example.com/v1").service(&shop);
    document.service(&stock).build()
}

#[test]
fn methods_of_every_kind_have_their_operations() {
    golden_document("operations.json", &document());
}

#[test]
fn each_kind_has_its_media_types() {
    let document = document();
    let post = |name: &str| document["paths"][format!("/shop.v1.Shop/{name}")]["post"].clone();
    let types = |content: &Value| {
        let keys = content["content"].as_object().into_iter().flatten();
        keys.map(|(key, _)| key.clone())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let json = "application/json";
    let stream = "application/x-ndjson text/event-stream";
    for (name, request, status, response) in [
        ("find", json, "200", json),
        ("ping", "", "200", json),
        ("note", json, "202", ""),
        ("list", json, "200", stream),
        ("upload", "application/x-ndjson", "200", json),
        ("chat", "application/x-ndjson", "200", stream),
        ("watch", json, "200", stream),
        (
            "echo",
            "application/octet-stream",
            "200",
            "application/octet-stream",
        ),
        (
            "total",
            "application/x-protobuf",
            "200",
            "application/x-protobuf",
        ),
    ] {
        let post = post(name);
        assert_eq!(types(&post["requestBody"]), request, "{name}");
        let answer = &post["responses"][status];
        assert!(answer.is_object(), "{name}");
        assert_eq!(types(answer), response, "{name}");
    }
    let left_out = &document["x-iip-left-out"];
    assert_eq!(left_out.as_array().map(Vec::len), Some(1));
    assert_eq!(left_out[0]["method"], "totals");
}

#[test]
fn idempotent_methods_with_plain_arguments_have_a_query() {
    let document = document();
    let with_get = |(_, item): &(&String, &Value)| item.get("get").is_some();
    let paths = document["paths"].as_object().unwrap().iter();
    let paths: Vec<_> = paths.filter(with_get).map(|(path, _)| &**path).collect();
    let expected = ["find", "list", "ping", "watch"].map(|name| format!("/shop.v1.Shop/{name}"));
    assert_eq!(paths, expected);
    let parameters = &document["paths"]["/shop.v1.Shop/find"]["get"]["parameters"];
    assert_eq!(parameters[0]["name"], "id");
    assert_eq!(parameters[0]["required"], true);
    let deep = json!({
        "name": "deep", "in": "query", "required": false, "schema": {"type": "boolean"},
    });
    assert_eq!(parameters[1], deep);
}

#[test]
fn only_plain_values_fit_into_a_query() {
    let mut types = Types::new();
    types.insert("Id", Definition::new(Shape::Newtype(Type::U64)));
    types.insert("Loop", Definition::new(Shape::Newtype(named("Loop"))));
    types.insert("Order", order());
    let uuid = Type::ByFormat {
        readable: Box::new(Type::Text),
        compact: Box::new(Type::Bytes),
    };
    let accepts = |ty: Type| {
        let mut method = method("m", &[("a", ty)]);
        method.idempotent = true;
        accepts_get(&method, &types)
    };
    for ty in [
        Type::U128,
        Type::F32,
        Type::Char,
        Type::option(uuid),
        named("Id"),
    ] {
        assert!(accepts(ty.clone()), "{ty:?}");
    }
    for ty in [
        Type::Unit,
        Type::Bytes,
        Type::Any,
        Type::seq(Type::U8),
        Type::option(Type::option(Type::U8)),
        named("Loop"),
        named("Order"),
        named("Nobody"),
    ] {
        assert!(!accepts(ty.clone()), "{ty:?}");
    }
    assert!(!accepts_get(&method("m", &[]), &types), "not idempotent");
}

#[test]
fn errors_of_a_method_are_part_of_its_problems() {
    let document = document();
    let responses = &document["paths"]["/shop.v1.Shop/place"]["post"]["responses"];
    let error = json!({"$ref": "#/components/schemas/shop.Error"});
    let schema = json!({
        "allOf": [
            {"$ref": "#/components/schemas/IipProblem"},
            {"type": "object", "properties": {"error": error}},
        ],
    });
    for status in ["500", "default"] {
        let content = &responses[status]["content"];
        assert_eq!(content["application/problem+json"]["schema"], schema);
    }
    let reference = json!({"$ref": "#/components/responses/NotFound"});
    assert_eq!(responses["404"], reference);
}

#[test]
fn errors_with_a_status_of_http_have_a_response_of_their_own() {
    let mut shop = Description::new("Shop");
    // A peer may send any number, and may use a status that statuses of calls have too.
    let variants = [
        ("Short", Some(422)),
        ("Gone", Some(404)),
        ("Lost", Some(404)),
    ];
    let others = [
        ("Plain", None),
        ("Fine", Some(200)),
        ("Beyond", Some(60_000)),
    ];
    let variants = variants.into_iter().chain(others).zip(0..);
    let variants = variants.map(|((name, http), index)| {
        let mut variant = Variant::new(name, index, VariantShape::Unit);
        variant.http = http;
        variant
    });
    let error = Shape::Enum(Enum::new(Tagging::External, variants.collect()));
    shop.types.insert("Error", Definition::new(error));
    let mut buy = method("buy", &[]);
    buy.error = Some(named("Error"));
    shop.methods = vec![buy];
    let document = serde_json::to_value(&shop).unwrap();
    assert_eq!(
        serde_json::from_value::<Description>(document).unwrap(),
        shop
    );
    let document = OpenApi::new("Shop", "1").service(&shop).build();
    let responses = &document["paths"]["/Shop/buy"]["post"]["responses"];
    for (status, text) in [
        ("422", "The error `Short` of the method itself, in `error`."),
        (
            "404",
            "The error `Gone` or `Lost` of the method itself, in `error`; or NOT_FOUND.",
        ),
    ] {
        assert_eq!(responses[status]["description"], text);
        assert_eq!(responses[status]["content"], responses["500"]["content"]);
    }
    for status in ["200", "60000"] {
        assert!(
            !responses[status]["description"]
                .to_string()
                .contains("error")
        );
    }
}

#[test]
fn types_that_differ_between_services_have_keys_of_their_own() {
    let document = document();
    // Alike itself, but with another `OrderId` within.
    let id = &schema(&document, "Stock.Order")["properties"]["id"];
    assert_eq!(*id, json!({"$ref": "#/components/schemas/Stock.OrderId"}));
    let id = &schema(&document, "Order")["properties"]["id"];
    assert_eq!(*id, json!({"$ref": "#/components/schemas/OrderId"}));

    let (one, mut two) = (shop(), shop());
    two.service = "Copy".to_owned();
    let together = OpenApi::new("", "").service(&one).service(&two).build();
    let alone = OpenApi::new("", "").service(&one).build();
    assert_eq!(
        together["components"]["schemas"],
        alone["components"]["schemas"]
    );
}

#[test]
fn paths_are_percent_encoded() {
    let path =
        |service: &str, name: &str| http_path(&Description::new(service), &Method::new(name, "/x"));
    assert_eq!(path("a.B", "c_d").as_deref(), Some("/a.B/c_d"));
    assert_eq!(path("é{", "/%").as_deref(), Some("/%C3%A9%7B/%2F%25"));
    assert_eq!(path("", "m"), None);
    assert_eq!(path("S", ".."), None);
}

#[test]
fn keys_are_sorted_and_the_document_is_the_same_each_time() {
    fn assert_sorted(value: &Value) {
        match value {
            Value::Object(members) => {
                assert!(members.keys().is_sorted());
                members.values().for_each(assert_sorted);
            }
            Value::Array(items) => items.iter().for_each(assert_sorted),
            _ => {}
        }
    }
    assert_eq!(document().to_string(), document().to_string());
    assert_sorted(&document());
}
