//! A service with every type, whose schemas are compared with what serde reads and writes.

mod enums;
mod flatten;
mod structs;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt::Debug;
use std::net::Ipv4Addr;

use iip_schema::openapi::OpenApi;
use iip_schema::{Argument, Definition, Description, Field, Method, Shape, Type};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{golden, golden_document};

/// Types with their definitions, and values of them.
#[derive(Default)]
struct Everything {
    description: Description,
    values: String,
}

impl Everything {
    fn new() -> Self {
        Self {
            description: Description::new("test.Everything"),
            ..Self::default()
        }
    }

    /// Adds a type. `written` are values of it, `read` are texts that serde reads though it does
    /// not write them, `refused` are texts that it does not read.
    fn add<T: Serialize + DeserializeOwned + Debug>(
        &mut self,
        name: &str,
        shape: Shape,
        written: &[T],
        read: &[&str],
        refused: &[&str],
    ) {
        let mut definition = Definition::new(shape);
        definition.doc = format!("The type {name}.");
        let before = self.description.types.insert(name, definition);
        assert_eq!(before, None);
        let written = written
            .iter()
            .map(|v| serde_json::to_string(v).expect("text"));
        for text in written.chain(read.iter().map(|text| (*text).to_owned())) {
            assert!(serde_json::from_str::<T>(&text).is_ok(), "{name}: {text}");
            self.value(name, &text, true);
        }
        for text in refused {
            assert!(serde_json::from_str::<T>(text).is_err(), "{name}: {text}");
            self.value(name, text, false);
        }
    }

    fn value(&mut self, name: &str, text: &str, valid: bool) {
        let line = format!("{{\"schema\":\"{name}\",\"valid\":{valid},\"value\":{text}}}\n");
        self.values.push_str(&line);
    }

    /// Adds a newtype around a type without a name.
    fn inline<T: Serialize + DeserializeOwned + Debug>(
        &mut self,
        name: &str,
        ty: Type,
        written: &[T],
        refused: &[&str],
    ) {
        self.add(name, Shape::Newtype(ty), written, &[], refused);
    }
}

fn named(name: &str) -> Type {
    Type::Named(name.to_owned())
}

fn fields(fields: Vec<Field>) -> Shape {
    Shape::Struct {
        fields,
        deny_unknown_fields: false,
    }
}

fn flattened(name: &str, ty: Type) -> Field {
    let mut field = Field::new(name, ty);
    field.flatten = true;
    field
}

fn numbers(all: &mut Everything) {
    all.inline(
        "Bool",
        Type::Bool,
        &[true, false],
        &["1", "\"true\"", "null"],
    );
    all.inline(
        "U8",
        Type::U8,
        &[0, u8::MAX],
        &["256", "-1", "1.5", "\"1\""],
    );
    all.inline("U16", Type::U16, &[0, u16::MAX], &["65536", "-1"]);
    all.inline("U32", Type::U32, &[0, u32::MAX], &["4294967296", "-1"]);
    all.inline(
        "U64",
        Type::U64,
        &[0, u64::MAX],
        &["18446744073709551616", "-1"],
    );
    all.inline("U128", Type::U128, &[0, u128::MAX], &["-1", "\"1\""]);
    all.inline("I8", Type::I8, &[i8::MIN, i8::MAX], &["128", "-129"]);
    all.inline("I16", Type::I16, &[i16::MIN, i16::MAX], &["32768"]);
    all.inline("I32", Type::I32, &[i32::MIN, i32::MAX], &["2147483648"]);
    all.inline(
        "I64",
        Type::I64,
        &[i64::MIN, i64::MAX],
        &["9223372036854775808"],
    );
    all.inline("I128", Type::I128, &[i128::MIN, i128::MAX], &["1.5"]);
    all.inline("F32", Type::F32, &[-1.5_f32, f32::MAX], &["\"1\"", "null"]);
    all.inline("F64", Type::F64, &[0.1_f64, f64::MIN], &["\"1\"", "null"]);
}

fn plain(all: &mut Everything) {
    all.inline(
        "Char",
        Type::Char,
        &['a', '\u{1F600}'],
        &["\"\"", "\"ab\"", "1"],
    );
    all.inline(
        "Text",
        Type::Text,
        &["", "t\u{0}\"é"].map(str::to_owned),
        &["1", "null"],
    );
    let bytes = [
        CString::new([1, 255]).expect("no zero byte"),
        CString::default(),
    ];
    all.inline("Bytes", Type::Bytes, &bytes, &["[256]", "[-1]", "{}"]);
    all.inline("Unit", Type::Unit, &[()], &["0", "{}"]);
    all.inline(
        "Optional",
        Type::option(Type::U8),
        &[None, Some(1_u8)],
        &["256", "\"\""],
    );
    let ty = Type::option(Type::option(Type::Text));
    all.inline("Twice", ty, &[None, Some(Some(String::new()))], &["1"]);
    let ty = Type::option(named("Level"));
    all.inline(
        "MaybeLevel",
        ty,
        &[None, Some(Level::Low)],
        &["\"medium\"", "1"],
    );
    all.inline(
        "Seq",
        Type::seq(Type::Bool),
        &[vec![], vec![true]],
        &["[1]", "{}"],
    );
    all.inline(
        "Array",
        Type::array(Type::U8, 3),
        &[[1_u8, 2, 3]],
        &["[1,2]", "[1,2,3,4]"],
    );
    let ty = Type::Tuple(vec![Type::U8, Type::Text]);
    all.inline(
        "Pair",
        ty,
        &[(1_u8, String::new())],
        &["[1]", "[1,\"\",2]", "[\"\",1]"],
    );
    all.inline(
        "Single",
        Type::Tuple(vec![Type::U8]),
        &[(1_u8,)],
        &["1", "[]", "[1,2]"],
    );
    let ty = Type::ByFormat {
        readable: Box::new(Type::Text),
        compact: Box::new(Type::array(Type::U8, 4)),
    };
    all.inline(
        "Ipv4Addr",
        ty,
        &[Ipv4Addr::LOCALHOST],
        &["[127,0,0,1]", "\"localhost\""],
    );
    let any = [Value::Null, serde_json::json!({"a": [1, "b"]})];
    all.inline("Any", Type::Any, &any, &[]);
    let ty = Type::opaque("clock::Moment", "it does not derive `Schema`");
    all.inline("Opaque", ty, &any, &[]);
}

fn maps(all: &mut Everything) {
    fn one<K: Ord>(key: K) -> [BTreeMap<K, u8>; 2] {
        [BTreeMap::new(), BTreeMap::from([(key, 1)])]
    }
    let map = |key| Type::map(key, Type::U8);
    all.inline(
        "ByText",
        map(Type::Text),
        &one("a".to_owned()),
        &["{\"a\":256}", "[]"],
    );
    all.inline(
        "ByU32",
        map(Type::U32),
        &one(7_u32),
        &["{\"a\":1}", "{\"-1\":1}", "{\"01\":1}"],
    );
    all.inline(
        "ByI8",
        map(Type::I8),
        &one(-7_i8),
        &["{\"a\":1}", "{\"1.5\":1}"],
    );
    all.inline("ByBool", map(Type::Bool), &one(true), &["{\"yes\":1}"]);
    all.inline(
        "ByChar",
        map(Type::Char),
        &one('é'),
        &["{\"ab\":1}", "{\"\":1}"],
    );
    all.inline(
        "ByLevel",
        map(named("Level")),
        &one(Level::Low),
        &["{\"medium\":1}"],
    );
    all.inline("ById", map(named("Id")), &one(Id(7)), &["{\"a\":1}"]);
}

/// A level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Low,
    High,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Id(u64);

#[test]
fn schemas_accept_what_serde_reads_and_refuse_what_it_refuses() {
    let mut all = Everything::new();
    numbers(&mut all);
    plain(&mut all);
    maps(&mut all);
    structs::structs(&mut all);
    enums::enums(&mut all);
    flatten::flatten(&mut all);
    let types = all.description.types.iter();
    let args = types.map(|(name, _)| Argument::new(name.to_lowercase(), named(name)));
    let mut method = Method::new("all", "/everything/all");
    method.args = args.collect();
    method.result = Type::Tuple(vec![Type::U8, Type::option(named("Tree"))]);
    all.description.methods = vec![method];
    let document = OpenApi::new("Everything", "1.0").service(&all.description);
    golden_document("everything.json", &document.build());
    golden("values.ndjson", &all.values);
}
