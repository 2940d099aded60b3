//! Descriptions for tests.

use iip_schema::{
    Argument, Definition, Description, Enum, Field, Method, Shape, Tagging, Type, Types, Variant,
    VariantShape,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, any};
use proptest::prop_oneof;
use proptest::strategy::Strategy;

pub(crate) fn named(name: &str) -> Type {
    Type::Named(name.to_owned())
}

pub(crate) fn fields(fields: &[(&str, Type)]) -> Definition {
    let fields = fields
        .iter()
        .map(|(name, ty)| Field::new(*name, ty.clone()));
    Definition::new(Shape::Struct {
        fields: fields.collect(),
        deny_unknown_fields: false,
    })
}

pub(crate) fn variants(variants: &[&str]) -> Definition {
    let variants = variants.iter().zip(0..);
    let variants = variants.map(|(name, index)| Variant::new(*name, index, VariantShape::Unit));
    Definition::new(Shape::Enum(Enum::new(
        Tagging::External,
        variants.collect(),
    )))
}

/// `Orders` with `place(order: Order) -> Receipt`, `cancel(id)` and the stream `changes`.
pub(crate) fn orders() -> Description {
    let mut orders = Description::new("Orders");
    let mut place = Method::new("place", "/orders/place");
    place.args = vec![Argument::new("order", named("Order"))];
    place.result = named("Receipt");
    let mut cancel = Method::new("cancel", "/orders/cancel");
    cancel.args = vec![Argument::new("id", Type::U64)];
    cancel.idempotent = true;
    orders.methods = vec![place, cancel];
    let order = [
        ("items", Type::seq(named("Item"))),
        ("note", Type::option(Type::Text)),
    ];
    orders.types.insert("Order", fields(&order));
    let item = [
        ("size", named("Size")),
        ("colour", named("Colour")),
        ("count", Type::U32),
    ];
    orders.types.insert("Item", fields(&item));
    let size = [("width", Type::U32), ("height", Type::U32)];
    orders.types.insert("Size", fields(&size));
    orders
        .types
        .insert("Colour", variants(&["Red", "Green", "Blue"]));
    orders
        .types
        .insert("Receipt", fields(&[("number", Type::U64)]));
    orders
}

/// `orders` after a change.
pub(crate) fn changed(change: impl FnOnce(&mut Description)) -> Description {
    let mut orders = orders();
    change(&mut orders);
    orders
}

pub(crate) const TYPES: usize = 6;

/// Any description of few types, which refer to each other and to themselves.
pub(crate) fn descriptions() -> impl Strategy<Value = Description> {
    let definitions: Vec<_> = (0..TYPES).map(definition).collect();
    (definitions, vec(method(), 0..4)).prop_map(|(definitions, methods)| {
        let mut description = Description::new("Any");
        description.methods = methods;
        for (at, method) in description.methods.iter_mut().enumerate() {
            method.path = format!("/any/{at}");
        }
        for (place, definition) in definitions.into_iter().enumerate() {
            description.types.insert(format!("T{place}"), definition);
        }
        description
    })
}

fn method() -> impl Strategy<Value = Method> {
    let error = || option::of(ty(0));
    (vec(ty(0), 0..3), ty(0), error(), error(), any::<bool>()).prop_map(
        |(args, result, error, stream_error, idempotent)| {
            let mut method = Method::new("method", "");
            let args = args.into_iter().enumerate();
            let args = args.map(|(place, ty)| Argument::new(format!("a{place}"), ty));
            method.args = args.collect();
            method.result = result;
            method.error = error;
            method.stream_error = stream_error;
            method.idempotent = idempotent;
            method
        },
    )
}

fn definition(place: usize) -> impl Strategy<Value = Definition> {
    let of_fields = any::<bool>().prop_flat_map(|deny_unknown_fields| {
        vec((ty(0), any::<bool>()), 0..4).prop_map(move |types| {
            let fields = fields_of(types);
            Shape::Struct {
                fields,
                deny_unknown_fields,
            }
        })
    });
    let content = prop_oneof![
        Just(VariantShape::Unit),
        ty(0).prop_map(VariantShape::Newtype),
        vec(ty(0), 2..4).prop_map(VariantShape::Tuple),
        vec((ty(0), any::<bool>()), 0..3).prop_map(|types| VariantShape::Struct(fields_of(types))),
    ];
    let of_variants = vec(content, 1..4).prop_map(|contents| {
        let all = contents.into_iter().zip(0..);
        let all = all.map(|(shape, index)| Variant::new(format!("V{index}"), index, shape));
        Shape::Enum(Enum::new(Tagging::External, all.collect()))
    });
    prop_oneof![
        3 => of_fields,
        3 => of_variants,
        // A newtype around itself would have no form.
        1 => ty(place + 1).prop_map(Shape::Newtype),
        1 => vec(ty(0), 2..4).prop_map(Shape::Tuple),
        1 => Just(Shape::Unit),
    ]
    .prop_map(Definition::new)
}

fn fields_of(types: Vec<(Type, bool)>) -> Vec<Field> {
    let types = types.into_iter().enumerate();
    let fields = types.map(|(place, (ty, default))| {
        let mut field = Field::new(format!("f{place}"), ty);
        field.default = default;
        field
    });
    fields.collect()
}

/// Any type that can be read from every format. It refers to types from `first` on.
fn ty(first: usize) -> impl Strategy<Value = Type> {
    let plain = prop_oneof![
        Just(Type::Bool),
        Just(Type::U8),
        Just(Type::U32),
        Just(Type::I64),
        Just(Type::F64),
        Just(Type::Text),
        Just(Type::Bytes),
        Just(Type::Unit),
    ];
    let leaf = match first < TYPES {
        true => prop_oneof![
            plain,
            (first..TYPES).prop_map(|place| named(&format!("T{place}")))
        ]
        .boxed(),
        false => plain.boxed(),
    };
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(Type::option),
            inner.clone().prop_map(Type::seq),
            (inner.clone(), 0u64..3).prop_map(|(of, len)| Type::array(of, len)),
            vec(inner.clone(), 1..3).prop_map(Type::Tuple),
            inner.clone().prop_map(|of| Type::map(Type::Text, of)),
            (inner.clone(), inner).prop_map(|(readable, compact)| Type::ByFormat {
                readable: Box::new(readable),
                compact: Box::new(compact),
            }),
        ]
    })
}

/// The same types under other names, with documentation.
pub(crate) fn renamed(description: &Description) -> Description {
    fn rename(ty: &mut Type) {
        if let Type::Named(name) = ty {
            name.insert_str(0, "Other");
        }
        ty.parts_mut().for_each(rename);
    }
    let mut other = description.clone();
    other.doc = "Documented.".into();
    let mut types = Types::new();
    for (name, definition) in description.types.iter() {
        let mut definition = definition.clone();
        definition.doc = "Documented.".into();
        definition.parts_mut().into_iter().for_each(rename);
        types.insert(format!("Other{name}"), definition);
    }
    other.types = types;
    for method in &mut other.methods {
        method.doc = "Documented.".into();
        method.timeout_ms = Some(1);
        method.parts_mut().into_iter().for_each(rename);
    }
    other
}
