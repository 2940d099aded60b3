//! The function of the target `rules`.

use std::collections::BTreeSet;

use iip_rules::{
    Context, Environment, LocalTime, MAX_RESULT_BYTES, Query, RequestUri, Rules, Value,
};
use serde_json::Value as Json;

/// Loads rules from a text and evaluates their groups. The first line is a URI, from which the
/// objects are read.
pub fn rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (uri, text) = text.split_once('\n').unwrap_or(("", text));
    let environment = Environment::new()
        .variable("$x")
        .variable("$l")
        .variable("$m")
        .object("$query")
        .object("$REQUEST_URI");
    let strict = environment.clone().strict(true).parse(text);
    let rules = match environment.parse(text) {
        Ok(rules) => rules,
        Err(error) => {
            assert!(strict.is_err());
            assert_eq!(error.problems().len(), 1);
            return;
        }
    };
    assert_eq!(strict.is_ok(), rules.warnings().is_empty());
    for warning in rules.warnings() {
        assert!(warning.place().starts_with('/'), "{warning}");
    }
    for name in rules.groups() {
        let first = evaluate(&environment, &rules, name, uri);
        assert_eq!(first, evaluate(&environment, &rules, name, uri));
    }
}

/// Evaluates a group, and returns the values as a text, in which those that are not a number are
/// equal.
fn evaluate(environment: &Environment, rules: &Rules, group: &str, uri: &str) -> String {
    let mut query = Query::parse(uri.split_once('?').unwrap_or_default().1);
    let mut request = RequestUri::parse(uri);
    let mut context = Context::new(environment, LocalTime::from_unix(1_772_276_400, 0), 7);
    context
        .set_object("$query", &mut query)
        .expect("registered");
    if let Ok(request) = &mut request {
        context
            .set_object("$REQUEST_URI", request)
            .expect("registered");
    }
    let list = vec![Value::from("a,b"), Value::from(2.5), Value::Null];
    for (name, value) in [
        ("$l", Value::from("abc")),
        ("$m", Value::from(-3)),
        ("$x", Value::from(list)),
    ] {
        context.set(name, value).expect("registered");
    }
    let result = rules.group(group).expect("a group").evaluate(&mut context);
    for (name, value) in context.values() {
        if let Value::Text(text) = value {
            assert!(
                text.len() <= MAX_RESULT_BYTES,
                "{name}: {} bytes",
                text.len()
            );
        }
    }
    format!("{result:?} {context:?}")
}

/// Returns seeds: the documents of the crate's vectors.
pub fn rules_seeds(vectors: &Json) -> BTreeSet<Vec<u8>> {
    let vectors = vectors.as_array().into_iter().flatten();
    let seeds = vectors.map(|vector| {
        let document = match vector["document"].as_str() {
            Some(document) => document.to_owned(),
            None => serde_json::json!({ "g": vector["config"] }).to_string(),
        };
        let uri = vector["uri"].as_str().unwrap_or("/a?u=7&n=10");
        format!("{uri}\n{document}").into_bytes()
    });
    seeds.collect()
}
