//! Structs.

use iip_schema::{Field, Shape, Type};
use serde::{Deserialize, Serialize};

use super::{Everything, Id, Level, fields, named};

#[derive(Debug, Serialize, Deserialize)]
struct Ping;

#[derive(Debug, Serialize, Deserialize)]
struct Point(i32, i32);

#[derive(Debug, Serialize, Deserialize)]
struct Nothing();

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    #[serde(rename = "article-no", alias = "article")]
    article: String,
    note: Option<String>,
    #[serde(default)]
    count: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Level>,
    password: String,
    #[serde(default, skip_serializing)]
    #[expect(dead_code, reason = "only read from JSON")]
    draft: bool,
    #[serde(skip_deserializing)]
    total: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Strict {
    a: u8,
    #[serde(default)]
    b: u8,
}

#[derive(Debug, Serialize, Deserialize)]
struct Tree {
    name: String,
    children: Vec<Self>,
    parent: Option<Box<Self>>,
}

pub(super) fn structs(all: &mut Everything) {
    all.add("Ping", Shape::Unit, &[Ping], &[], &["{}", "1"]);
    all.add(
        "Id",
        Shape::Newtype(Type::U64),
        &[Id(1)],
        &[],
        &["[\"1\"]", "\"1\""],
    );
    let point = Shape::Tuple(vec![Type::I32, Type::I32]);
    all.add(
        "Point",
        point,
        &[Point(1, -1)],
        &[],
        &["[1]", "[1,2,3]", "{}"],
    );
    all.add(
        "Nothing",
        Shape::Tuple(vec![]),
        &[Nothing()],
        &[],
        &["[1]", "null"],
    );

    let mut article = Field::new("article-no", Type::Text);
    article.aliases = vec!["article".to_owned()];
    article.doc = "The number of the article.".to_owned();
    let mut count = Field::new("count", Type::U32);
    count.default = true;
    let mut tags = Field::new("tags", Type::seq(named("Level")));
    (tags.default, tags.may_be_skipped) = (true, true);
    tags.doc = "How urgent it is.".to_owned();
    let mut password = Field::new("password", Type::Text);
    password.secret = true;
    let mut draft = Field::new("draft", Type::Bool);
    (draft.default, draft.read_only) = (true, true);
    let mut total = Field::new("total", Type::U64);
    total.write_only = true;
    let note = Field::new("note", Type::option(Type::Text));
    let order = Order {
        article: "7".to_owned(),
        note: None,
        count: 1,
        tags: vec![Level::High],
        password: String::new(),
        draft: true,
        total: 9,
    };
    all.add(
        "Order",
        fields(vec![article, note, count, tags, password, draft, total]),
        &[order],
        &[
            "{\"article-no\":\"\",\"password\":\"\"}",
            "{\"article-no\":\"\",\"password\":\"\",\"draft\":true,\"unknown\":1}",
        ],
        &[
            "{}",
            "{\"article-no\":\"\"}",
            "{\"article-no\":\"\",\"password\":\"\",\"count\":-1}",
            "{\"article-no\":\"\",\"password\":\"\",\"tags\":[\"medium\"]}",
        ],
    );
    let mut b = Field::new("b", Type::U8);
    b.default = true;
    let strict = Shape::Struct {
        fields: vec![Field::new("a", Type::U8), b],
        deny_unknown_fields: true,
    };
    let refused = ["{}", "{\"a\":1,\"c\":1}", "1"];
    all.add(
        "Strict",
        strict,
        &[Strict::default()],
        &["{\"a\":1}"],
        &refused,
    );

    let tree = fields(vec![
        Field::new("name", Type::Text),
        Field::new("children", Type::seq(named("Tree"))),
        Field::new("parent", Type::option(named("Tree"))),
    ]);
    let leaf = |parent| Tree {
        name: String::new(),
        children: Vec::new(),
        parent,
    };
    let mut root = leaf(Some(Box::new(leaf(None))));
    root.children.push(leaf(None));
    let refused = ["{\"name\":\"\",\"children\":[{\"name\":1,\"children\":[]}]}"];
    all.add(
        "Tree",
        tree,
        &[root],
        &["{\"name\":\"\",\"children\":[]}"],
        &refused,
    );
}
