//! Descriptions of hostile peers: they are bounded in memory, but nothing else is true of them.

use iip_schema::openapi::OpenApi;
use iip_schema::{
    Argument, Definition, Description, Enum, Field, Method, Shape, Tagging, Type, Variant,
    VariantShape,
};
use serde_json::{Value, json};

use super::{assert_refers_to_what_is_there, golden_document, read_back, schema};

/// Less than by default, so that the tests reach it soon.
const MAX_NODES: usize = 5_000;

fn named(name: impl Into<String>) -> Type {
    Type::Named(name.into())
}

fn newtype(of: Type) -> Definition {
    Definition::new(Shape::Newtype(of))
}

fn fields(fields: Vec<Field>) -> Definition {
    Definition::new(Shape::Struct {
        fields,
        deny_unknown_fields: false,
    })
}

fn flattened(ty: Type) -> Field {
    let mut field = Field::new("flattened", ty);
    field.flatten = true;
    field
}

fn enumeration(tagging: Tagging, variants: &[Type]) -> Definition {
    let variants = variants.iter().enumerate().map(|(index, ty)| {
        let shape = VariantShape::Newtype(ty.clone());
        Variant::new(format!("V{index}"), 0, shape)
    });
    Definition::new(Shape::Enum(Enum::new(tagging, variants.collect())))
}

/// A service with these types and a method that takes the first.
fn with_types(types: Vec<(String, Definition)>) -> Description {
    let mut description = Description::new("Hostile");
    let mut method = Method::new("m", "/hostile/m");
    let first = types.first().map(|(name, _)| name.clone());
    method.args = vec![Argument::new("a", named(first.unwrap_or_default()))];
    for (name, definition) in types {
        description.types.insert(name, definition);
    }
    description.methods = vec![method];
    description
}

/// Builds the document, and reads its text back.
fn built(description: &Description) -> Value {
    let document = OpenApi::new("Hostile", "0").max_nodes(MAX_NODES);
    let document = document.service(description).build();
    assert_refers_to_what_is_there(&document);
    assert_eq!(read_back(&document), document);
    document
}

#[test]
fn names_may_be_any_text() {
    let names = [
        "",
        "a/b~c",
        "a b",
        "\"{}\\\u{0}\n",
        "..",
        "é",
        "e",
        "IipProblem",
        "#/x",
    ];
    let types = names.map(|name| {
        let mut field = Field::new(name, named(name));
        field.aliases = vec![name.to_owned()];
        field.doc = name.to_owned();
        (name.to_owned(), fields(vec![field, flattened(named(name))]))
    });
    let mut description = with_types(types.into());
    let methods = names.iter().chain(&names).map(|name| {
        let mut method = Method::new(*name, *name);
        method.args = vec![Argument::new(*name, named(*name))];
        method.error = Some(named(*name));
        method.priority = Some((*name).to_owned());
        method
    });
    description.service = "a/{b}".to_owned();
    description.methods = methods.collect();
    let document = OpenApi::new("\"", "").service(&description).build();
    // The names of no path, and the second method of each other name.
    let left_out = document["x-iip-left-out"].as_array().unwrap();
    assert_eq!(left_out.len(), names.len() + 2);
    assert_eq!(
        document["paths"].as_object().unwrap().len(),
        names.len() - 2
    );
    let keys = document["components"]["schemas"]
        .as_object()
        .unwrap()
        .keys();
    assert_eq!(keys.len(), names.len() + 1);
    for key in keys {
        let valid = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!(!key.is_empty() && key.chars().all(valid), "{key}");
    }
    golden_document("hostile.json", &document);
}

#[test]
fn types_that_contain_themselves_end() {
    let tag = || Tagging::Internal {
        tag: "t".to_owned(),
    };
    let deep = VariantShape::Struct(vec![flattened(named("Deep"))]);
    let deep = Enum::new(Tagging::External, vec![Variant::new("V", 0, deep)]);
    let types = vec![
        ("Same".to_owned(), newtype(named("Same"))),
        ("A".to_owned(), newtype(Type::option(named("B")))),
        ("B".to_owned(), newtype(named("A"))),
        ("Flat".to_owned(), fields(vec![flattened(named("Flat"))])),
        ("Tagged".to_owned(), enumeration(tag(), &[named("Tagged")])),
        (
            "Bare".to_owned(),
            enumeration(
                Tagging::Untagged,
                &[named("Bare"), Type::seq(named("Bare"))],
            ),
        ),
        ("Deep".to_owned(), Definition::new(Shape::Enum(deep))),
        ("Key".to_owned(), newtype(Type::map(named("Key"), Type::U8))),
    ];
    let document = built(&with_types(types));
    let text = json!({"description": "The type `Same` contains itself."});
    assert_eq!(*schema(&document, "Same"), text);
    // A recursion below an index is no circle.
    let items = json!({"type": "array", "items": {"$ref": "#/components/schemas/Bare"}});
    assert_eq!(schema(&document, "Bare")["anyOf"][1], items);
    // One of the two is cut.
    assert_eq!(
        schema(&document, "A")["anyOf"][0]["$ref"],
        "#/components/schemas/B"
    );
    assert_eq!(schema(&document, "B").get("$ref"), None);
}

#[test]
fn references_to_nothing_are_any_value() {
    let all = [
        named("Nobody"),
        Type::option(named("Nobody")),
        Type::map(named("Nobody"), named("Nobody")),
    ];
    let of = all.iter().map(|ty| Field::new("a", ty.clone()));
    let flat = all.iter().map(|ty| flattened(ty.clone()));
    let document = built(&with_types(vec![(
        "T".to_owned(),
        fields(of.chain(flat).collect()),
    )]));
    let text = json!({"description": "The description has no type `Nobody`."});
    assert_eq!(schema(&document, "T")["properties"]["a"], text);
}

#[test]
fn types_of_any_depth_are_cut() {
    let nested = |wrap: &dyn Fn(Type) -> Type| (0..120).fold(Type::U8, |ty, _| wrap(ty));
    let types = [
        nested(&Type::option),
        nested(&Type::seq),
        nested(&|ty| Type::Tuple(vec![ty])),
        nested(&|ty| Type::map(Type::Text, ty)),
        nested(&|ty| Type::option(Type::Tuple(vec![ty]))),
        nested(&|ty| Type::ByFormat {
            readable: Box::new(ty),
            compact: Box::new(Type::Unit),
        }),
    ];
    let types = types.into_iter().enumerate();
    let types = types.map(|(n, ty)| (format!("T{n}"), newtype(ty)));
    let document = built(&with_types(types.collect()));
    assert!(document.to_string().contains("nested too deep"));
}

#[test]
fn chains_of_flattened_types_are_cut() {
    let tag = |n: u32| match n % 4 {
        0 => Tagging::External,
        1 => Tagging::Untagged,
        2 => Tagging::Internal {
            tag: "t".to_owned(),
        },
        _ => Tagging::Adjacent {
            tag: "t".to_owned(),
            content: "c".to_owned(),
        },
    };
    let next = |n: u32| named(format!("{:05}", n + 1));
    type Link<'a> = &'a dyn Fn(u32) -> Definition;
    let links: [Link<'_>; 5] = [
        &|n| {
            fields(vec![
                flattened(next(n)),
                flattened(next(n)),
                Field::new("x", Type::U8),
            ])
        },
        &|n| newtype(next(n)),
        &|n| enumeration(tag(n), &[next(n), next(n)]),
        &|n| match n % 2 {
            0 => fields(vec![flattened(next(n)), flattened(Type::option(next(n)))]),
            _ => enumeration(tag(n / 2), &[next(n), next(n)]),
        },
        &|_| {
            let shape = |n: u32| VariantShape::Struct(vec![flattened(next(n)); 3]);
            let variants = (0..3).map(|v| Variant::new(format!("V{v}"), v, shape(v)));
            Definition::new(Shape::Enum(Enum::new(
                Tagging::External,
                variants.collect(),
            )))
        },
    ];
    for link in links {
        let types = (0..2_000).map(|n| (format!("{n:05}"), link(n)));
        built(&with_types(types.collect()));
    }
}

#[test]
fn a_document_has_a_maximum_size() {
    // Each merges the same large struct.
    let large = (0..1_000).map(|n| Field::new(format!("f{n}"), Type::U8));
    let mut types = vec![("Large".to_owned(), fields(large.collect()))];
    for n in 0..1_000 {
        types.push((format!("T{n}"), fields(vec![flattened(named("Large"))])));
    }
    let document = built(&with_types(types));
    let reason = document["x-iip-left-out"][0]["reason"].as_str();
    assert_eq!(reason, Some("there are more than 5000 nodes of schemas"));
    assert!(document.to_string().len() < 4 << 20);
}

#[test]
fn texts_that_are_repeated_count() {
    let long = || "a".repeat(1 << 20);
    let mut field = Field::new("f", Type::opaque(long(), ""));
    field.doc = long();
    let tag = Tagging::Internal { tag: long() };
    let mut unknown = Variant::new("", 0, VariantShape::Unit);
    unknown.other = true;
    let variants = (0..2_000).map(|n| Variant::new(format!("V{n}"), n, VariantShape::Unit));
    let variants = variants.chain(vec![unknown; 2_000]).collect();
    let mut types = vec![
        ("Long".to_owned(), fields(vec![field])),
        (
            "Tags".to_owned(),
            enumeration(tag, &vec![Type::Unit; 1_000]),
        ),
        (
            "Many".to_owned(),
            Definition::new(Shape::Enum(Enum::new(Tagging::External, variants))),
        ),
    ];
    for n in 0..1_000 {
        let all = ["Long", "Many"].map(|name| flattened(named(name)));
        types.push((format!("T{n}"), fields(all.into())));
        types.push((format!("M{n}"), newtype(Type::map(named("Many"), Type::U8))));
    }
    let mut description = with_types(types);
    let method = description.methods[0].clone();
    description.methods = vec![method; 1_000];
    let document = built(&description);
    assert!(document.to_string().len() < 64 << 20);
    description.service = long();
    let document = built(&description);
    assert_eq!(document["x-iip-left-out"][0].get("method"), None);
}

#[test]
fn many_services_with_equal_names_end() {
    let chain = |end: Type| {
        let types = (0..500).map(|n| (format!("{n:05}"), newtype(named(format!("{:05}", n + 1)))));
        with_types(types.chain([("00500".to_owned(), newtype(end))]).collect())
    };
    let services = [Type::U8, Type::U16, Type::U8].map(chain);
    let document = OpenApi::new("", "");
    let document = services.iter().fold(document, OpenApi::service).build();
    assert_refers_to_what_is_there(&document);
    assert_eq!(document["x-iip-left-out"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        document["paths"].as_object().map(serde_json::Map::len),
        Some(1)
    );
}
