//! Several types in one registry, and comparisons of descriptions.

use iip_schema::__private::{ByProbing as _, Describe};
use iip_schema::{Definition, Field, Registry, Schema, Shape, Source, Type, probe, same_types};
use serde::Deserialize;

use super::{describe, fits};

#[derive(Deserialize)]
#[expect(dead_code, reason = "it is only described")]
struct Order {
    id: u64,
    lines: Vec<Line>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "it is only described")]
struct Line {
    article: String,
}

#[test]
fn types_are_shared_within_a_registry() {
    let mut registry = Registry::new();
    let line = probe::<Line>(&mut registry);
    let order = probe::<Order>(&mut registry);
    assert_eq!(probe::<Line>(&mut registry), line);
    assert_eq!(probe::<Vec<Order>>(&mut registry), Type::seq(order.clone()));
    let (types, names) = registry.finish();
    let mut order = order;
    names.apply(&mut order);
    assert_eq!(order, Type::Named("Order".to_owned()));
    assert_eq!(types.len(), 2);
    assert_eq!(types.get("Order").unwrap().source, Source::Probed);
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "it is only described")]
struct Described {
    a: u8,
}

impl Schema for Described {
    fn describe(registry: &mut Registry) -> Type {
        registry.define::<Self>("Described", |_| {
            let mut definition = Definition::new(Shape::Struct {
                fields: vec![Field::new("a", Type::U8)],
                deny_unknown_fields: false,
            });
            definition.doc = "documented".to_owned();
            definition
        })
    }
}

#[test]
fn a_type_that_describes_itself_keeps_its_description() {
    let mut registry = Registry::new();
    let described = Described::describe(&mut registry);
    assert_eq!(probe::<Described>(&mut registry), described);
    assert_eq!(
        probe::<std::collections::VecDeque<Described>>(&mut registry),
        Type::seq(described)
    );
    let (types, _) = registry.finish();
    assert_eq!(types.len(), 1);
    assert_eq!(types.get("Described").unwrap().doc, "documented");
}

#[test]
fn a_type_without_schema_is_chosen_for_probing() {
    let mut registry = Registry::new();
    let ty = (&&Describe::<Vec<u8>>::new()).describe(&mut registry);
    assert_eq!(ty, Type::seq(Type::U8));
}

#[test]
fn equal_forms_under_other_names_are_the_same() {
    mod renamed {
        #[derive(serde::Deserialize)]
        #[expect(dead_code, reason = "it is only described")]
        pub(super) struct Purchase {
            id: u64,
            lines: Vec<Item>,
        }

        #[derive(serde::Deserialize)]
        #[expect(dead_code, reason = "it is only described")]
        pub(super) struct Item {
            article: String,
        }
    }

    let (order, order_types) = describe::<Order>();
    let (purchase, purchase_types) = describe::<renamed::Purchase>();
    let (line, line_types) = describe::<Line>();
    assert_eq!(
        same_types(&order, &order_types, &purchase, &purchase_types),
        Ok(())
    );
    let problem = same_types(&order, &order_types, &line, &line_types).unwrap_err();
    assert!(problem.contains("article"), "{problem}");
}

#[test]
fn values_of_other_types_do_not_fit() {
    let (ty, types) = describe::<Order>();
    let fits = |json: serde_json::Value| fits::json(&json, &ty, &types);
    assert_eq!(
        fits(serde_json::json!({"id": 1, "lines": [{"article": "x"}]})),
        Ok(())
    );
    assert!(fits(serde_json::json!({"id": "1", "lines": []})).is_err());
    assert!(fits(serde_json::json!({"id": 1})).is_err());
    assert!(fits(serde_json::json!({"id": 1, "lines": [{"article": 2}]})).is_err());
    assert_eq!(fits::bincode(&[1, 0], &ty, &types), Ok(()));
    assert!(fits::bincode(&[1, 0, 0], &ty, &types).is_err());
    assert!(fits::postcard(&[1, 1, 5, b'x'], &ty, &types).is_err());
}
