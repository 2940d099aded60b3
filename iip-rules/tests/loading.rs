//! Loading: places and messages of errors and warnings, and the strict mode.

use iip_rules::{Environment, ProblemKind, Rules, RulesError};

fn environment() -> Environment {
    Environment::new()
        .variable("$host")
        .variable("$backend")
        .object("$query")
}

fn load(group: &str) -> Rules {
    let text = format!("{{\"g\": {group}}}");
    environment().parse(&text).expect("rules")
}

/// The only warning about a group, as a text.
fn warning(group: &str) -> String {
    let rules = load(group);
    assert!(rules.group("g").is_ok(), "{group}");
    let [warning] = rules.warnings() else {
        panic!("{group}: {:?}", rules.warnings());
    };
    warning.to_string()
}

/// The error of a malformed group, as a text.
fn error(group: &str) -> String {
    load(group).group("g").expect_err(group).to_string()
}

#[test]
fn an_error_names_the_place_and_what_is_accepted() {
    let triple = "is a list of a variable, an operator and an operand";
    let cases = [
        (
            "5",
            "/g: a group is a list of rules, not a number".to_owned(),
        ),
        (
            "[[], {}]",
            "/g/1: a rule is a list of conditions and an action, not an object".to_owned(),
        ),
        (
            r#"[[["$host", "="], ["$backend", "=", "a"]]]"#,
            format!("/g/0/0: a condition {triple}, not of 2 members"),
        ),
        (
            r#"[[["$host", "=", "a"], ["backend", "=", "a"]]]"#,
            "/g/0/1/0: an assignment begins with a variable, such as \"$name\", not \"backend\""
                .to_owned(),
        ),
        (
            r#"[[["$host", 5, "a"], ["$backend", "=", "a"]]]"#,
            "/g/0/0/1: an operator is a text, not a number".to_owned(),
        ),
        (
            r#"[[[["$backend", "=", "a"], ["$backend", "="]]]]"#,
            format!("/g/0/0/1: an assignment {triple}, not of 2 members"),
        ),
        (
            r#"[["$backend", "=", "a"]]"#,
            format!("/g/0/0: a condition {triple}, not a text"),
        ),
    ];
    for (group, message) in cases {
        assert_eq!(error(group), message, "{group}");
    }
}

#[test]
fn a_missing_group_is_an_error_of_its_name() {
    let rules = load("[]");
    let error = rules.group("G/~").expect_err("no group");
    assert_eq!(error.problems()[0].kind(), ProblemKind::Missing);
    assert_eq!(
        error.to_string(),
        "/G~1~0: there is no group with this name"
    );
}

#[test]
fn a_text_that_is_not_an_object_of_groups_is_an_error() {
    let problem = |text: &str| {
        let error = Rules::parse(text).expect_err(text);
        assert_eq!(error.problems()[0].kind(), ProblemKind::Document);
        error.to_string()
    };
    assert_eq!(problem("[]"), "rules are an object of groups, not a list");
    assert_eq!(
        problem("{\"g\": [\n 1,]}"),
        "the rules are not JSON: trailing comma at line 2 column 4"
    );
    assert!(Rules::parse("null").is_ok_and(|rules| rules.groups().next().is_none()));
}

#[test]
fn a_warning_names_the_place_and_the_effect() {
    let begins = [
        (
            r#"[[["$host", "==", "a"], ["$backend", "=", "a"]]]"#,
            "/g/0/0/1: unknown comparison operator \"==\": the condition never holds; accepted are =, ",
        ),
        (
            r#"[[], [["$backend", ">", "a"]]]"#,
            "/g/1/0/1: unknown assignment operator \">\": the evaluation fails here; the last \
             member of a rule is an assignment; accepted are =, +=, ",
        ),
        (
            r#"[[["$hots", "=", "a"], ["$backend", "=", "a"]]]"#,
            "/g/0/0/0: unknown variable \"$hots\": it has no value; registered are $host, $backend, \
             $query.PROPERTY, the predefined ones",
        ),
        (
            r#"[[["$host|trim", "=", "a"], ["$backend", "=", "a"]]]"#,
            "/g/0/0/0: unknown function \"trim\": the result has no value; accepted are len, ",
        ),
        (
            r#"[[["$backend", "=", "$5.00"]]]"#,
            "/g/0/0/2: unknown variable \"$5.00\"",
        ),
        (
            r#"[[["$backend", "=", "a{{$hots}}"]]]"#,
            "/g/0/0/2: unknown variable \"$hots\": the macro is not replaced",
        ),
        (
            r#"[[[["$backend", "=", "a"], ["$bakend", "=", "a"]]]]"#,
            "/g/0/0/1/0: \"$bakend\" is not registered: rules cannot read the result",
        ),
        (
            r#"[[["$query.a", "+=", "a"]]]"#,
            "/g/0/0/0: only = assigns to a property",
        ),
        (
            r#"[[["$host|len", "=", "a"]]]"#,
            "/g/0/0/0: a pipeline cannot be assigned to",
        ),
        (
            r#"[[["$host", "!=", true], ["$backend", "=", "a"]]]"#,
            "/g/0/0/2: != does not accept a boolean like this: the condition never holds",
        ),
        (
            r#"[[["$host", "between", "a"], ["$backend", "=", "a"]]]"#,
            "/g/0/0/2: between does not accept a text like this",
        ),
        (
            r#"[[["$backend", "-=", "1"]]]"#,
            "/g/0/0/2: -= does not accept a text like this: the evaluation fails here",
        ),
        (
            r#"[[["$backend", "/=", 0]]]"#,
            "/g/0/0/2: /= does not accept a float like this: the evaluation fails here",
        ),
        (
            r#"[[["$backend", "+=", {}]]]"#,
            "/g/0/0/2: += does not accept an object like this: it counts as no value",
        ),
    ];
    for (group, message) in begins {
        let warning = warning(group);
        assert!(warning.starts_with(message), "{warning}");
    }
}

#[test]
fn a_rule_without_mistakes_has_no_warnings() {
    let rules = load(
        r#"[
            [["$host|lower", "in", "a,b"], ["$query.u", "~*", "{{$date}}"],
                [["$backend", "=", ["a", "b"]], ["$query.v", "=", null], ["$break", "=", 1]]],
            [["$ihour", "between", "8,17"], ["$backend", "%=", "3"]],
            [["$rand", "<=", 30], ["$backend", "*=", "$host|len"]]
        ]"#,
    );
    assert_eq!(rules.warnings(), []);
}

#[test]
fn the_strict_mode_refuses_what_would_be_a_warning() {
    let text =
        r#"{"g": [[["$hots", "==", "a"], ["$backend", "=", "a"]]], "h": [["x"]], "i": ["x"]}"#;
    let warnings = environment()
        .parse(text)
        .expect("rules")
        .warnings()
        .to_vec();
    let error: RulesError = environment()
        .strict(true)
        .parse(text)
        .expect_err("three mistakes");
    assert_eq!(error.problems(), warnings);
    let places = error.problems().iter().map(|problem| problem.place());
    assert_eq!(
        places.collect::<Vec<_>>(),
        ["/g/0/0/1", "/g/0/0/0", "/h/0/0"]
    );
    assert!(error.to_string().ends_with(" (and 2 more)"), "{error}");
    let correct = r#"{"g": [[["$backend", "=", "a"]]], "text": "a", "list": ["a"], "number": 1}"#;
    assert!(environment().strict(true).parse(correct).is_ok());
}

#[test]
fn a_long_name_is_cut_in_messages() {
    let name = "ä".repeat(100_000);
    let warning = warning(&format!(r#"[[["$backend", "{name}", "a"]]]"#));
    assert!(warning.len() < 400, "{} bytes", warning.len());
}
