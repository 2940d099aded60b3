//! Failures from replies, and their form.

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
