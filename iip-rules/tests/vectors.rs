//! The recorded outcomes of the Go reference in `vectors.json`: one rule group each, with the values
//! before and after.
//!
//! Where the reference is defective, `expect` has the right outcome. A vector is *plain*, or shows
//! one of the two users of the language: `http_route` and `balance`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use iip_rules::{
    Context, Environment, EvaluationError, LocalTime, Object, Query, RequestUri, Rules, Value,
};
use serde_json::{Map, Value as Json, json};

const NOW: LocalTime = LocalTime {
    year: 2026,
    month: 2,
    day: 28,
    hour: 9,
    minute: 5,
    second: 0,
};

/// The number of draws of a random outcome. The probability of missing one of two is negligible,
/// and the seeds are always the same.
const DRAWS: u64 = 40;

/// The outcome, in the form of the file.
type Outcome = Json;

fn value(json: &Json) -> Value {
    let Some((kind, content)) = json.as_object().and_then(|map| map.iter().next()) else {
        return match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Boolean(*value),
            Json::String(text) => Value::from(text.as_str()),
            Json::Array(members) => members.iter().map(value).collect::<Vec<_>>().into(),
            other => panic!("{other} has no type"),
        };
    };
    match (kind.as_str(), content) {
        ("int" | "int64", content) => Value::Integer(content.as_i64().expect("an integer")),
        ("uint64", content) => Value::Unsigned(content.as_u64().expect("an integer")),
        ("float", Json::String(text)) => Value::Float(text.parse().expect("a float")),
        ("float", content) => Value::Float(content.as_f64().expect("a float")),
        ("map", Json::Object(map)) => {
            let members = map.iter().map(|(name, json)| (name.clone(), value(json)));
            Value::Object(Arc::new(members.collect::<BTreeMap<_, _>>()))
        }
        (other, _) => panic!("unknown type {other}"),
    }
}

/// The value in the form of the file. Floats are written so that equal ones are equal texts.
fn written(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Text(text) => json!(&**text),
        Value::Integer(value) => json!({ "int": value }),
        Value::Unsigned(value) => json!({ "uint64": value }),
        Value::Float(value) => json!({ "float": format!("{value:?}") }),
        Value::Boolean(value) => json!(value),
        Value::List(members) => members.iter().map(written).collect(),
        Value::Object(members) => {
            let members = members.iter();
            let members = members.map(|(name, value)| (name.clone(), written(value)));
            json!({ "map": Map::from_iter(members) })
        }
        other => panic!("{other:?} is not known"),
    }
}

fn rules(vector: &Json, environment: &Environment, group: &str) -> Result<Rules, Outcome> {
    let document = match vector.get("document") {
        Some(document) => document.as_str().expect("a text").to_owned(),
        None => json!({ group: vector["config"] }).to_string(),
    };
    let rules = environment.parse(&document);
    let rules = rules.map_err(|_| json!({ "load_error": true, "scope": "document" }))?;
    match rules.group(group) {
        Ok(_) => Ok(rules),
        Err(_) => Err(json!({ "load_error": true, "scope": "group" })),
    }
}

fn evaluate(rules: &Rules, group: &str, context: &mut Context<'_>) -> Result<(), EvaluationError> {
    rules.group(group).expect("a group").evaluate(context)
}

fn members(json: &Json) -> impl Iterator<Item = (&String, &Json)> {
    json.as_object().into_iter().flatten()
}

fn plain(vector: &Json, seed: u64) -> Outcome {
    let mut environment = Environment::new().object("$query").object("$REQUEST_URI");
    for name in vector["declared"].as_array().into_iter().flatten() {
        environment = environment.variable(name.as_str().expect("a name"));
    }
    for (name, _) in members(&vector["vars"]) {
        environment = environment.variable(name);
    }
    let group = vector["group"].as_str().unwrap_or("g");
    let rules = match rules(vector, &environment, group) {
        Ok(rules) => rules,
        Err(outcome) => return outcome,
    };
    let mut query: Query = members(&vector["query"])
        .map(|(name, value)| (name.clone(), value.as_str().expect("a text")))
        .collect();
    let query_before = query.clone();
    let uri = vector["uri"].as_str().unwrap_or("/");
    let mut uri = RequestUri::parse(uri).expect("a URI");
    let mut context = Context::new(&environment, NOW, seed);
    context
        .set_object("$REQUEST_URI", &mut uri)
        .expect("registered");
    if vector.get("query").is_some() {
        context
            .set_object("$query", &mut query)
            .expect("registered");
    }
    for (name, json) in members(&vector["vars"]) {
        context.set(name, value(json)).expect("registered");
    }
    let before = stored(&context);
    let error = evaluate(&rules, group, &mut context).is_err();
    let after = stored(&context);
    drop(context);
    let mut changed = Map::new();
    for (name, value) in after {
        let drawn = name == "$rand" && !before.contains_key(&name) && value.get("int").is_some();
        if before.get(&name) != Some(&value) && !drawn {
            changed.insert(name, value);
        }
    }
    let mut outcome = json!({ "result": changed });
    if error {
        outcome["eval_error"] = json!(true);
    }
    if query != query_before {
        outcome["query_after"] = query
            .iter()
            .map(|(name, text)| (name, json!(text)))
            .collect();
    }
    outcome
}

fn stored(context: &Context<'_>) -> BTreeMap<String, Json> {
    let values = context.values();
    values
        .map(|(name, value)| (name.to_owned(), written(value)))
        .collect()
}

/// The route of an HTTP request, as the gateway finds it.
fn http_route(vector: &Json, seed: u64) -> Outcome {
    let environment = Environment::new()
        .variable("$host")
        .variable("$uri")
        .variable("$iip_backend")
        .object("$query");
    let group = vector["group"].as_str().unwrap_or("route");
    let Ok(rules) = rules(vector, &environment, group) else {
        return json!({ "load_error": true });
    };
    let route = |uri: &str| {
        let mut query = Query::parse(uri.split_once('?').unwrap_or_default().1);
        let mut context = Context::new(&environment, NOW, seed);
        let host = vector["host"].as_str().expect("a host");
        context.set("$host", host).expect("registered");
        context.set("$uri", uri).expect("registered");
        context
            .set_object("$query", &mut query)
            .expect("registered");
        match evaluate(&rules, group, &mut context) {
            Ok(()) => context.text("$iip_backend").unwrap_or_default(),
            Err(_) => Arc::default(),
        }
    };
    for earlier in vector["before"].as_array().into_iter().flatten() {
        let _ = route(earlier.as_str().expect("a URI"));
    }
    json!({ "target": &*route(vector["uri"].as_str().expect("a URI")) })
}

/// The backend of a call, as the balancer of a client finds it.
fn balance(vector: &Json, seed: u64) -> Outcome {
    let environment = Environment::new()
        .variable("$LB_TARGET_SERVER")
        .object("$REQUEST_URI");
    let group = vector["group"].as_str().unwrap_or("LB_TARGET");
    let Ok(rules) = rules(vector, &environment, group) else {
        return json!({ "load_error": true });
    };
    let Ok(mut uri) = RequestUri::parse(vector["uri"].as_str().expect("a URI")) else {
        return json!({ "target_error": "invalid uri" });
    };
    let mut context = Context::new(&environment, NOW, seed);
    context
        .set_object("$REQUEST_URI", &mut uri)
        .expect("registered");
    if evaluate(&rules, group, &mut context).is_err() {
        return json!({ "target_error": "evaluation" });
    }
    let target = context.text("$LB_TARGET_SERVER");
    let backends = vector["backends"].as_array().expect("the backends");
    match target.filter(|target| backends.iter().any(|backend| *backend == **target)) {
        Some(target) => json!({ "target": &*target }),
        None => json!({ "target_error": "no target" }),
    }
}

/// The outcome that a vector wants, in the form of [`plain`], [`http_route`] and [`balance`].
fn wanted(outcome: &Json) -> Json {
    let mut wanted = Map::new();
    for key in [
        "target",
        "target_error",
        "query_after",
        "load_error",
        "scope",
        "eval_error",
    ] {
        if let Some(value) = outcome.get(key) {
            wanted.insert(key.to_owned(), value.clone());
        }
    }
    if let Some(result) = outcome.get("result") {
        let result = members(result);
        let result = result.map(|(name, json)| (name.clone(), written(&value(json))));
        wanted.insert("result".to_owned(), result.collect());
    }
    wanted.into()
}

/// Returns what is wrong with the outcome of a vector.
fn mistake(vector: &Json) -> Option<String> {
    let run = match vector["use"].as_str() {
        None => plain,
        Some("http_route") => http_route,
        Some("balance") => balance,
        Some(other) => panic!("unknown use {other}"),
    };
    if let Some(random) = vector["one_of"].as_array() {
        let wanted: BTreeSet<String> = random.iter().map(|it| wanted(it).to_string()).collect();
        let found = (0..DRAWS).map(|seed| run(vector, seed).to_string());
        let found: BTreeSet<String> = found.collect();
        return (found != wanted).then(|| format!("{found:?} instead of {wanted:?}"));
    }
    let mut wanted = wanted(vector.get("expect").unwrap_or(vector));
    let mut found = run(vector, 7);
    // A vector with `expect` does not say which part of the document is refused.
    if wanted.get("scope").is_none() && wanted.get("load_error").is_some() {
        wanted = json!({ "load_error": true });
        if let Some(found) = found.as_object_mut() {
            found.remove("scope");
        }
    }
    (found != wanted).then(|| format!("{found} instead of {wanted}"))
}

#[test]
fn every_vector_has_its_outcome() {
    let vectors: Vec<Json> = serde_json::from_str(include_str!("vectors.json")).expect("JSON");
    assert!(vectors.len() > 800, "{} vectors", vectors.len());
    let mut failures: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for vector in &vectors {
        if let Some(mistake) = mistake(vector) {
            let name = vector["name"].as_str().unwrap_or_default();
            let kind = vector["use"].as_str().unwrap_or("plain");
            failures
                .entry(kind)
                .or_default()
                .push(format!("{name}: {mistake}"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// An object that a rule may read and not write.
struct Peer;

impl Object for Peer {
    fn get(&self, property: &str) -> Value {
        match property {
            "port" => Value::Integer(8080),
            _ => Value::Null,
        }
    }
}

#[test]
fn a_property_that_is_only_read_ignores_assignments() {
    let environment = Environment::new().object("$peer").variable("$x");
    let text =
        r#"{"g": [[["$peer.port", "=", 1]], [["$peer.port", "=", 8080], ["$x", "=", "yes"]]]}"#;
    let rules = environment.parse(text).expect("rules");
    let mut peer = Peer;
    let mut context = Context::new(&environment, NOW, 0);
    context.set_object("$peer", &mut peer).expect("registered");
    evaluate(&rules, "g", &mut context).expect("no error");
    assert_eq!(context.get("$x"), Some(&Value::from("yes")));
}
