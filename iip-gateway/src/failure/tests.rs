//! Failures from replies, and their form.

use std::collections::BTreeMap;

use iip_rpc::schema::openapi::OpenApi;
use iip_rpc::schema::{Description, Method};

use super::*;

#[test]
fn errors_in_replies_are_statuses() {
    for (reply, status, code, executed) in [
        (
            r#"{"code":102,"message":"handle error"}"#,
            404,
            "NOT_FOUND",
            Executed::No,
        ),
        (
            r#"{"code":-1,"message":"handler fail:boom"}"#,
            500,
            "INTERNAL",
            Executed::Yes,
        ),
        (
            r#"{"code":101,"message":"handle no response"}"#,
            500,
            "INTERNAL",
            Executed::Yes,
        ),
        (r#"{"code":106}"#, 503, "UNAVAILABLE", Executed::No),
        (
            r#"{"code":5,"message":"no user"}"#,
            404,
            "NOT_FOUND",
            Executed::Maybe,
        ),
        (
            r#"{"code":2,"message":"m","error":"Empty"}"#,
            500,
            "UNKNOWN",
            Executed::Yes,
        ),
    ] {
        let failure = Failure::of_reply(reply.as_bytes()).expect(reply);
        let found = (failure.status.as_u16(), failure.code, failure.executed);
        assert_eq!(found, (status, code, executed), "{reply}");
    }
}

#[test]
fn other_replies_are_not_errors() {
    for reply in [
        "",
        "{}",
        r#"{"code":0,"message":"fine"}"#,
        r#"{"code":5,"message":"m","more":1}"#,
        r#"{"code":5,"message":7}"#,
        r#"{"code":200,"message":"m"}"#,
        r#"{"code":"5"}"#,
        r#"{"code":5"#,
    ] {
        assert_eq!(Failure::of_reply(reply.as_bytes()), None, "{reply}");
    }
}

#[test]
fn the_time_to_retry_is_rounded_up() {
    let mut failure = Failure::no_route();
    failure.retry_after = Some(Duration::from_millis(1_001));
    let response = failure.into_response(Statuses::Http, Version::HTTP_11);
    assert_eq!(response.headers()[RETRY_AFTER], "2");
}

#[test]
fn the_openapi_document_has_the_codes_of_failures_and_their_statuses() {
    let mut service = Description::new("Users");
    service.methods = vec![Method::new("find", "/users/find")];
    let document = OpenApi::new("Users", "1").service(&service).build();
    let components = &document["components"];
    let codes = &components["schemas"]["IipProblem"]["properties"]["code"]["enum"];
    assert_eq!(*codes, json!(CODE_NAMES[1..]));

    let mut described: BTreeMap<String, u16> = BTreeMap::new();
    let responses = &document["paths"]["/Users/find"]["post"]["responses"];
    for (status, response) in responses.as_object().expect("an object") {
        let Some(reference) = response["$ref"].as_str() else {
            continue;
        };
        let pointer = reference.trim_start_matches('#');
        let response = document.pointer(pointer).expect(reference);
        let text = response["description"].as_str().expect("a text");
        let words = text.split([' ', ',', '.']);
        let names = words.filter(|word| CODE_NAMES.contains(word));
        described.extend(names.map(|name| (name.to_owned(), status.parse().expect("a number"))));
    }
    let own = (1..=16).filter_map(status_of);
    let own = own.map(|(status, name)| (name.to_owned(), status.as_u16()));
    assert_eq!(described, own.collect());
}
