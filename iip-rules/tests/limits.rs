//! Limits: results and work are bounded, and evaluation is linear.

use iip_rules::{
    Context, Environment, EvaluationError, EvaluationErrorKind, LocalTime, MAX_RESULT_BYTES, Value,
};

fn environment() -> Environment {
    Environment::new().variable("$x").variable("$y")
}

/// Evaluates a group with `$x` and `$y`, and returns `$x`.
fn evaluate(group: &str, x: Value, y: Value) -> Result<Value, EvaluationError> {
    let environment = environment();
    let rules = environment
        .parse(&format!("{{\"g\": {group}}}"))
        .expect("rules");
    let mut context = Context::new(&environment, LocalTime::from_unix(0, 0), 1);
    context.set("$x", x).expect("registered");
    context.set("$y", y).expect("registered");
    rules.group("g").expect("a group").evaluate(&mut context)?;
    Ok(context.get("$x").cloned().unwrap_or_default())
}

fn text(length: usize) -> Value {
    Value::from("a".repeat(length))
}

#[test]
fn a_result_beyond_the_limit_is_an_error() {
    let doubled = format!("[{}]", vec![r#"[["$x", "+=", "$x"]]"#; 21].join(","));
    let error = evaluate(&doubled, "a".into(), Value::Null).expect_err("2 MiB");
    assert_eq!(error.kind(), &EvaluationErrorKind::ResultTooLarge);
    assert_eq!(error.place(), "/g/20/0");
    for group in [
        r#"[[["$x", "=", "{{$x}}{{$x}}"]]]"#,
        r#"[[["$x", "*=", "$y"]]]"#,
    ] {
        let half = text(MAX_RESULT_BYTES / 2);
        assert!(evaluate(group, half, 2.into()).is_ok(), "{group}");
        let more = text(MAX_RESULT_BYTES / 2 + 1);
        let error = evaluate(group, more, 2.into()).expect_err(group);
        assert_eq!(
            error.kind(),
            &EvaluationErrorKind::ResultTooLarge,
            "{group}"
        );
    }
    // The capital of this letter takes three bytes instead of two.
    let small = "ɐ".repeat(MAX_RESULT_BYTES / 2);
    let error = evaluate(r#"[[["$x", "=", "$x|upper"]]]"#, small.into(), Value::Null);
    assert_eq!(
        error.expect_err("1.5 MiB").kind(),
        &EvaluationErrorKind::ResultTooLarge
    );
}

#[test]
fn a_number_of_copies_that_is_negative_or_huge_is_an_error() {
    let kind = |count: Value| {
        let error = evaluate(r#"[[["$x", "*=", "$y"]]]"#, "ab".into(), count);
        error.expect_err("an error").kind().clone()
    };
    assert_eq!(kind((-1).into()), EvaluationErrorKind::NegativeCount(-1));
    assert_eq!(kind(i64::MAX.into()), EvaluationErrorKind::ResultTooLarge);
    assert_eq!(kind(u64::MAX.into()), EvaluationErrorKind::ResultTooLarge);
    let none = evaluate(r#"[[["$x", "*=", "$y"]]]"#, "".into(), u64::MAX.into());
    assert_eq!(none, Ok("".into()));
}

#[test]
fn work_beyond_the_limit_is_an_error() {
    let copies = format!("[{}]", vec![r#"[["$x", "=", "{{$y}}"]]"#; 40].join(","));
    let error = evaluate(&copies, Value::Null, text(MAX_RESULT_BYTES)).expect_err("80 MiB");
    assert_eq!(error.kind(), &EvaluationErrorKind::WorkTooLarge);
    let searches = format!(
        r#"[[["$y", "cv", "{}"], ["$x", "=", "found"]]]"#,
        vec!["b"; 100].join(",")
    );
    let error = evaluate(&searches, Value::Null, text(MAX_RESULT_BYTES)).expect_err("100 MiB");
    assert_eq!(error.place(), "/g/0/0");
}

#[test]
fn a_list_of_many_members_is_searched_in_linear_time() {
    let members = |from: u32| {
        let members: Vec<String> = (from..from + 100_000).map(|it| it.to_string()).collect();
        Value::from(members.join(","))
    };
    for (operator, from) in [("has", 0), ("any", 200_000), ("in", 0)] {
        let group = format!(r#"[[["$x", "{operator}", "$y"], ["$x", "=", "yes"]]]"#);
        let result = evaluate(&group, members(0), members(from)).expect("no error");
        assert_eq!(
            result == Value::from("yes"),
            operator == "has",
            "{operator}"
        );
    }
}

#[test]
fn values_are_shared_and_not_copied() {
    let list = Value::from(vec![Value::from("a"); 1_000_000]);
    let group = format!("[{}]", vec![r#"[["$x", "=", "$y"]]"#; 1000].join(","));
    assert!(evaluate(&group, Value::Null, list).is_ok());
}

#[test]
fn a_context_of_another_environment_is_refused() {
    let rules = environment().parse(r#"{"g": []}"#).expect("rules");
    let group = rules.group("g").expect("a group");
    let other = Environment::new().variable("$y");
    let mut context = Context::new(&other, LocalTime::from_unix(0, 0), 1);
    let error = group.evaluate(&mut context).expect_err("other names");
    assert_eq!(error.kind(), &EvaluationErrorKind::OtherEnvironment);
    assert!(context.set("$x", 1).is_err());
    // One with the same names is accepted.
    let mut context = Context::new(&environment(), LocalTime::from_unix(0, 0), 1);
    assert_eq!(group.evaluate(&mut context), Ok(()));
}

#[test]
fn equal_seeds_make_equal_choices() {
    let environment = environment();
    let text = r#"{"g": [[["$x", "=", "{{$y}}-{{$rand}}"]]]}"#;
    let rules = environment.parse(text).expect("rules");
    let run = |seed| {
        let mut context = Context::new(&environment, LocalTime::from_unix(0, 0), seed);
        let members: Vec<Value> = (0..1000).map(Value::Integer).collect();
        context.set("$y", members).expect("registered");
        rules
            .group("g")
            .expect("a group")
            .evaluate(&mut context)
            .expect("no error");
        context.text("$x")
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn a_remainder_of_unsigned_integers_is_exact() {
    let remainder = |x: Value, y: Value| evaluate(r#"[[["$x", "%=", "$y"]]]"#, x, y);
    let max = || Value::Unsigned(u64::MAX);
    assert_eq!(remainder(max(), 10.into()), Ok(5.into()));
    assert_eq!(remainder(max(), max()), Ok(0.into()));
    assert_eq!(
        remainder((u64::MAX - 1).into(), max()),
        Ok((u64::MAX - 1).into())
    );
    assert_eq!(remainder(i64::MIN.into(), (-1).into()), Ok(0.into()));
}
