//! Random rules: no text makes loading or evaluation panic or take long.

use std::sync::OnceLock;
use std::thread;

use fastrand::Rng;
use iip_rules::{Context, Environment, LocalTime, Object, Query, RequestUri, Rules, Value};
use proptest::prelude::*;
use serde_json::Value as Json;

/// The number of random documents that are loaded and evaluated.
const DOCUMENTS: usize = 100_000;

const VARIABLES: [&str; 8] = [
    "$a", "$b", "$rand", "$break", "$ihour", "$stime", "$q.p", "$no",
];
const FUNCTIONS: [&str; 9] = [
    "",
    "",
    "",
    "|len",
    "|upper",
    "|md5",
    "|fnv64",
    "|fnv32|lower",
    "|no",
];
const COMPARISONS: [&str; 22] = [
    "=", "!=", "<>", "<", "<=", ">", ">=", "between", "^between", "in", "not in", "has", "any",
    "none", "~", "^~", "~*", "^~*", "*~", "^*~", "cv", "^cv",
];
const ASSIGNMENTS: [&str; 10] = ["=", "=", "=", "+=", "-=", "*=", "/=", "%=", "<", "no"];
const TEXTS: [&str; 16] = [
    "",
    "a",
    "a,b",
    "5",
    "010",
    "0x1p3",
    "1_0",
    "-3,9",
    "x{{$a}}y",
    "{{$q.p}}{{$b}}",
    "{{$no}}",
    "$",
    "北京",
    "1e400",
    "nan",
    ",,",
];
const OTHERS: [&str; 12] = [
    "null",
    "true",
    "0",
    "1",
    "-1.5",
    "1e300",
    "[]",
    "[1]",
    "[\"a\",[\"5\",2]]",
    "{}",
    "{\"k\":[1]}",
    "9223372036854775808",
];

fn environment() -> &'static Environment {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        Environment::new()
            .variable("$a")
            .variable("$b")
            .object("$q")
            .object("$uri")
    })
}

fn one<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.usize(..of.len())]
}

fn operand(rng: &mut Rng, out: &mut String) {
    match rng.u8(..4) {
        0 => out.push_str(one(rng, &OTHERS)),
        1 => {
            let (variable, function) = (one(rng, &VARIABLES), one(rng, &FUNCTIONS));
            out.extend(["\"", variable, function, "\""]);
        }
        _ => out.extend(["\"", one(rng, &TEXTS), "\""]),
    }
}

fn triple(rng: &mut Rng, operators: &[&str], out: &mut String) {
    let pipeline = if rng.u8(..3) == 0 {
        one(rng, &FUNCTIONS)
    } else {
        ""
    };
    let variable = one(rng, &VARIABLES);
    out.extend([
        "[\"",
        variable,
        pipeline,
        "\",\"",
        one(rng, operators),
        "\",",
    ]);
    operand(rng, out);
    out.push(']');
}

/// A document with one group `g`, most of whose rules are well-formed.
fn document(rng: &mut Rng) -> String {
    let mut out = "{\"g\":[".to_owned();
    for rule in 0..rng.usize(1..4) {
        out.push_str(if rule > 0 { ",[" } else { "[" });
        for _ in 0..rng.usize(..2) {
            triple(rng, &COMPARISONS, &mut out);
            out.push(',');
        }
        if rng.u8(..4) > 0 {
            triple(rng, &ASSIGNMENTS, &mut out);
        } else {
            out.push('[');
            triple(rng, &ASSIGNMENTS, &mut out);
            out.push(',');
            triple(rng, &ASSIGNMENTS, &mut out);
            out.push(']');
        }
        out.push(']');
    }
    out.push_str("]}");
    out
}

fn random_value(rng: &mut Rng) -> Value {
    match rng.u8(..9) {
        0 => Value::Null,
        1 => Value::Integer(rng.i64(..)),
        2 => Value::Integer(rng.i64(-2..20)),
        3 => Value::Unsigned(rng.u64(..)),
        4 => Value::Float(f64::from_bits(rng.u64(..))),
        5 => Value::Boolean(true),
        6 => vec![Value::from("a"), Value::Float(2.5)].into(),
        _ => Value::from(one(rng, &TEXTS)),
    }
}

/// Evaluates all groups, and returns how many ended without an error.
fn evaluate(rules: &Rules, rng: &mut Rng) -> usize {
    let mut query: Query = [("p", "7"), ("list", "a,b")].into_iter().collect();
    let mut ended = 0;
    for name in rules.groups() {
        let now = LocalTime::from_unix(rng.i64(..4_000_000_000), 0);
        let mut context = Context::new(environment(), now, rng.u64(..));
        context.set_object("$q", &mut query).expect("registered");
        for name in ["$a", "$b"] {
            context.set(name, random_value(rng)).expect("registered");
        }
        let group = rules.group(name).expect("a group");
        ended += usize::from(group.evaluate(&mut context).is_ok());
        let _ = context.text("$a");
    }
    ended
}

/// Loads and evaluates random documents, and returns how many ended without an error.
fn run_documents(seed: u64, count: usize) -> usize {
    let mut rng = Rng::with_seed(seed);
    let mut ended = 0;
    for _ in 0..count {
        let text = document(&mut rng);
        let rules = environment().parse(&text);
        let rules = rules.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(rules.groups().count(), 1, "{text}");
        ended += evaluate(&rules, &mut rng);
    }
    ended
}

#[test]
fn a_hundred_thousand_random_documents_are_loaded_and_evaluated() {
    let threads = (0..4).map(|seed| thread::spawn(move || run_documents(seed, DOCUMENTS / 4)));
    let threads: Vec<_> = threads.collect();
    let ended = threads
        .into_iter()
        .map(|thread| thread.join().expect("no panic"));
    let ended: usize = ended.sum();
    // Otherwise the documents would test little.
    assert!((DOCUMENTS / 3..DOCUMENTS).contains(&ended), "{ended}");
}

/// The documents of the vectors, which are mutated below.
fn seeds() -> &'static [String] {
    static SEEDS: OnceLock<Vec<String>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let vectors: Vec<Json> = serde_json::from_str(include_str!("vectors.json")).expect("JSON");
        let document = |vector: &Json| match vector["document"].as_str() {
            Some(document) => document.to_owned(),
            None => serde_json::json!({ "g": vector["config"] }).to_string(),
        };
        vectors.iter().map(document).collect()
    })
}

fn load_and_evaluate(text: &str) {
    for strict in [false, true] {
        if let Ok(rules) = environment().clone().strict(strict).parse(text) {
            evaluate(&rules, &mut Rng::with_seed(3));
        }
    }
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        proptest::sample::select(TEXTS.as_slice()).prop_map(Json::from),
        proptest::sample::select(VARIABLES.as_slice()).prop_map(Json::from),
        proptest::sample::select(COMPARISONS.as_slice()).prop_map(Json::from),
        "\\PC{0,8}".prop_map(Json::from),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            proptest::collection::btree_map("[a-z/~]{0,2}", inner, 0..3)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_loaded_or_refused(text in "\\PC{0,200}") {
        load_and_evaluate(&text);
    }

    #[test]
    fn any_json_is_loaded_or_refused(json in any_json()) {
        load_and_evaluate(&serde_json::json!({ "g": json }).to_string());
        load_and_evaluate(&json.to_string());
    }

    #[test]
    fn a_mutated_document_is_loaded_or_refused(
        seed in 0..800_usize,
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..6),
    ) {
        let mut text: Vec<char> = seeds()[seed].chars().collect();
        for (place, mutation) in places {
            let place = place.index(text.len().max(1));
            match u32::from(mutation) % 4 {
                0 => text.insert(place, mutation),
                1 if place < text.len() => drop(text.remove(place)),
                2 if place < text.len() => {
                    let end = text.len().min(place + 9);
                    text.extend_from_within(place..end);
                }
                _ => text.insert(place, *[',', '"', '[', ']', '$', '0'].get(place % 6).unwrap_or(&'{')),
            }
        }
        load_and_evaluate(&text.into_iter().collect::<String>());
    }

    #[test]
    fn any_uri_and_any_query_is_read_or_refused(text in "[/a%2=&;+:*?.\\PC]{0,40}") {
        let _ = Query::parse(&text).get("a");
        if let Ok(uri) = RequestUri::parse(&text) {
            let _ = uri.get("a");
        }
    }
}
