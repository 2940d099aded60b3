//! Descriptions that a hostile peer could send.

use iip_schema::compat::{Encoding, Verdict, compare, compare_types};
use iip_schema::file::{DescriptionError, Limits, parse_description};
use iip_schema::fingerprint::service_fingerprint;
use iip_schema::{Definition, Description, Field, Method, Shape, Type, Types};

use crate::common::{fields, named, orders, variants};

fn method(result: Type) -> Description {
    let mut description = Description::new("Hostile");
    let mut method = Method::new("get", "/get");
    method.result = result;
    description.methods.push(method);
    description
}

#[track_caller]
fn verdict_is(description: &Description, expected: Verdict) {
    for encoding in Encoding::ALL {
        let report = compare(description, description, encoding);
        assert_eq!(report.verdict(), expected, "{encoding}: {report}");
    }
    // It ends, whatever the number is.
    let _ = service_fingerprint(description);
}

#[test]
fn a_name_that_refers_to_nothing_is_unknown() {
    verdict_is(&method(named("Nobody")), Verdict::Unknown);
}

#[test]
fn newtypes_around_each_other_have_no_form() {
    let mut description = method(named("A"));
    description
        .types
        .insert("A", Definition::new(Shape::Newtype(named("B"))));
    description
        .types
        .insert("B", Definition::new(Shape::Newtype(named("A"))));
    verdict_is(&description, Verdict::Unknown);
}

#[test]
fn a_chain_of_types_is_not_followed_to_its_end() {
    let mut description = method(named("T0"));
    for place in 0..20_000 {
        let next = named(&format!("T{}", place + 1));
        description
            .types
            .insert(format!("T{place}"), fields(&[("next", next)]));
    }
    verdict_is(&description, Verdict::Unknown);
}

#[test]
fn types_that_use_the_next_one_twice_are_compared_once() {
    let mut description = method(named("T0"));
    for place in 0..100 {
        let next = || named(&format!("T{}", place + 1));
        let pair = [("a", next()), ("b", Type::option(next()))];
        description.types.insert(format!("T{place}"), fields(&pair));
    }
    description.types.insert("T100", variants(&["A"]));
    verdict_is(&description, Verdict::Equal);
}

#[test]
fn the_number_of_steps_is_limited() {
    // Every type of one side meets every type of the other.
    let many = |count: usize| {
        let mut types = Types::new();
        for place in 0..count {
            let next = named(&format!("T{}", (place + 1) % count));
            let shape = Shape::Tuple(vec![Type::option(next), Type::U8]);
            types.insert(format!("T{place}"), Definition::new(shape));
        }
        types
    };
    let start = named("T0");
    let (one, other) = (many(3), many(5));
    let report = compare_types((&start, &one), (&start, &other), Encoding::Json);
    assert_eq!(report.verdict(), Verdict::Equal);
    let wide = |name: &str| {
        let fields = (0..60_000).map(|at| Field::new(format!("{name}{at}"), Type::U8));
        let fields = fields.collect();
        let mut types = Types::new();
        let deny_unknown_fields = false;
        types.insert(
            "T0",
            Definition::new(Shape::Struct {
                fields,
                deny_unknown_fields,
            }),
        );
        types
    };
    let (one, other) = (wide("a"), wide("b"));
    let report = compare_types((&start, &one), (&start, &other), Encoding::Json);
    assert_eq!(report.verdict(), Verdict::Unknown);
    assert_eq!(
        report.to_string(),
        "unknown: the descriptions are too large to compare"
    );
}

#[test]
fn further_methods_are_not_equal_when_the_steps_of_a_service_are_used_up() {
    let fields = (0..40_000)
        .map(|at| Field::new(format!("f{at}"), Type::U8))
        .collect();
    let mut description = Description::new("Hostile");
    let deny_unknown_fields = false;
    let shape = Shape::Struct {
        fields,
        deny_unknown_fields,
    };
    description.types.insert("T", Definition::new(shape));
    for place in 0..20 {
        let mut method = Method::new("get", format!("/{place}"));
        method.result = named("T");
        description.methods.push(method);
    }
    let report = compare(&description, &description, Encoding::Bincode);
    assert_eq!(report.verdict(), Verdict::Unknown);
}

#[test]
fn a_report_holds_some_differences_and_counts_the_rest() {
    let types = |ty: Type| {
        let fields = (0..1000)
            .map(|at| Field::new(format!("f{at}"), ty.clone()))
            .collect();
        let mut types = Types::new();
        let deny_unknown_fields = false;
        types.insert(
            "T",
            Definition::new(Shape::Struct {
                fields,
                deny_unknown_fields,
            }),
        );
        types
    };
    let (one, other) = (types(Type::U8), types(Type::U64));
    let ty = named("T");
    let report = compare_types((&ty, &one), (&ty, &other), Encoding::Bincode);
    assert_eq!((report.differences.len(), report.omitted), (256, 744));
    assert!(report.to_string().ends_with("and 744 further differences"));
}

#[test]
fn what_exceeds_a_limit_is_rejected_by_name() {
    let json = serde_json::to_vec(&orders()).unwrap();
    assert_eq!(
        parse_description(&json, &Limits::default()).unwrap(),
        orders()
    );
    let of = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        parse_description(&json, &limits).unwrap_err().to_string()
    };
    assert!(of(|limits| limits.bytes = 10).ends_with("bytes, and the limit is 10"));
    assert_eq!(
        of(|limits| limits.types = 4),
        "the description has 5 types, and the limit is 4"
    );
    assert_eq!(
        of(|limits| limits.methods = 1),
        "the description has 2 methods, and the limit is 1"
    );
    assert!(of(|limits| limits.members = 3).contains("fields, variants and arguments"));
    assert!(of(|limits| limits.nodes = 3).contains("types within types"));
    assert!(of(|limits| limits.name_bytes = 5).contains("the name `Orders` has 6 bytes"));
}

#[test]
fn deep_nesting_is_rejected_before_it_takes_the_stack() {
    let levels = 100_000;
    let deep = format!(
        "{}\"u8\"{}",
        "{\"option\":".repeat(levels),
        "}".repeat(levels)
    );
    let json =
        format!(r#"{{"service":"S","methods":[{{"name":"m","path":"/m","result":{deep}}}]}}"#);
    let error = parse_description(json.as_bytes(), &Limits::default()).unwrap_err();
    assert!(matches!(error, DescriptionError::Json(_)));
    // As deep as it may be, it can be compared.
    let levels = 50;
    let deep = format!(
        "{}\"u8\"{}",
        "{\"option\":".repeat(levels),
        "}".repeat(levels)
    );
    let json =
        format!(r#"{{"service":"S","methods":[{{"name":"m","path":"/m","result":{deep}}}]}}"#);
    let description = parse_description(json.as_bytes(), &Limits::default()).unwrap();
    verdict_is(&description, Verdict::Equal);
}
