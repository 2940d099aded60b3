//! The rules of the Go client as a policy: the outcomes that were recorded of it.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use iip_core::balance::{
    BackendInfo, BalanceOptions, Balancer, CallView, PickError, PickHint, Policy,
};
use iip_core::rules::Rules;
use serde_json::{Value as Json, json};

/// The number of calls. The probability of missing one of two random outcomes is negligible, and
/// the seeds are always the same.
const CALLS: u64 = 40;

fn vectors() -> Vec<Json> {
    let text = include_str!("../iip-rules/tests/vectors.json");
    let all: Vec<Json> = serde_json::from_str(text).unwrap();
    let all = all.into_iter();
    all.filter(|vector| vector["use"] == "balance").collect()
}

fn document(vector: &Json) -> String {
    match vector.get("document") {
        Some(document) => document.as_str().unwrap().to_owned(),
        None => json!({ "LB_TARGET": vector["config"] }).to_string(),
    }
}

fn backends(vector: &Json) -> Vec<BackendInfo> {
    let aliases = vector["backends"].as_array().unwrap().iter();
    let endpoint = |number: usize| format!("10.0.0.1:{}", 7000 + number).parse().unwrap();
    let infos = aliases
        .enumerate()
        .map(|(number, alias)| BackendInfo::new(endpoint(number)).id(alias.as_str().unwrap()));
    infos.collect()
}

/// The outcomes of calls of a client with these rules and backends, in the form of the file.
fn outcomes(vector: &Json) -> BTreeSet<String> {
    let Ok(rules) = Rules::parse(&document(vector)) else {
        return [json!({ "load_error": true }).to_string()].into();
    };
    let now = Instant::now();
    let policy = Policy::Choose(Arc::new(rules));
    let options = BalanceOptions::new().policy(policy.clone());
    let mut balancer = Balancer::new(options, now, 7).unwrap();
    let _ = balancer.apply(&backends(vector), now, |_, info| info.id.clone());
    balancer.refresh(now);
    let call = |random| {
        let view = CallView::new(vector["uri"].as_str().unwrap()).with_random(random);
        let choice = policy.chooser().unwrap().choose(&view);
        let hint = PickHint::new().choice(Some(&choice));
        let outcome = match balancer.picker().pick(&hint, now, random) {
            Ok(picked) => json!({ "target": &**picked.backend.data() }),
            Err(PickError::NotFound) => json!({ "target_error": "no target" }),
            Err(PickError::Rejected) => {
                match choice.to_string().starts_with("rules: /LB_TARGET/") {
                    true => json!({ "target_error": "evaluation" }),
                    false => json!({ "target_error": "invalid uri" }),
                }
            }
            Err(other) => panic!("{other}"),
        };
        outcome.to_string()
    };
    (0..CALLS).map(call).collect()
}

fn wanted(outcome: &Json) -> String {
    let keys = ["target", "target_error", "load_error"];
    let entries = keys
        .into_iter()
        .filter_map(|key| Some((key, outcome.get(key)?)));
    json!(entries.collect::<std::collections::BTreeMap<_, _>>()).to_string()
}

#[test]
fn every_recorded_choice_of_the_go_client_is_made() {
    let vectors = vectors();
    assert!(vectors.len() >= 28, "{} vectors", vectors.len());
    for vector in vectors {
        let expected = vector.get("expect").unwrap_or(&vector);
        let wanted: BTreeSet<_> = match expected["one_of"].as_array() {
            Some(random) => random.iter().map(wanted).collect(),
            None => [wanted(expected)].into(),
        };
        assert_eq!(outcomes(&vector), wanted, "{}", vector["name"]);
    }
}
