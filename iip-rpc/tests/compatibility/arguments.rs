//! The arguments of a call, which change between client and server.

use std::fmt::Debug;

use iip_rpc::MethodDescriptor;
use iip_rpc::arguments::{Arguments, FromArguments};
use iip_schema::compat::compare_methods;
use iip_schema::{Argument, Method};
use serde::Deserialize;

use super::*;

/// One side: the descriptor, and the types of the arguments in the order of its names.
struct Side {
    descriptor: MethodDescriptor,
    method: Method,
}

impl Side {
    fn new(names: &'static [&'static str], types: &[Type]) -> Self {
        let mut method = Method::new("place", "/orders/place");
        let named = names.iter().zip(types);
        method.args = named
            .map(|(name, ty)| Argument::new(*name, ty.clone()))
            .collect();
        let descriptor = MethodDescriptor::new("Orders", "place", "/orders/place", names);
        Self { descriptor, method }
    }
}

/// Sends arguments; `expected` has to arrive exactly where the verdict says so.
#[track_caller]
fn call<A: Arguments, T: FromArguments + PartialEq + Debug>(
    (client, arguments): (&Side, A),
    (server, expected): (&Side, Option<T>),
    types: &Types,
    verdicts: [Verdict; 4],
) {
    for ((encoding, codec), verdict) in ENCODINGS.into_iter().zip(verdicts) {
        let mut body = BytesMut::new();
        arguments
            .encode(&client.descriptor, codec, &mut body)
            .unwrap();
        let limits = DecodeLimits::new();
        let got = T::decode(&server.descriptor, codec, &body.freeze(), &limits).ok();
        let arrives = got.is_some() && got == expected;
        let sides = ((&client.method, types), (&server.method, types));
        let report = compare_methods(sides.0, sides.1, encoding);
        assert_eq!(report.verdict(), verdict, "{encoding}: {report}");
        assert_eq!(arrives, verdict <= Compatible, "{encoding}: {got:?}");
    }
}

#[test]
fn an_argument_is_appended_as_an_option_where_arguments_have_names() {
    let old = Side::new(&["a"], &[Type::U32]);
    let new = Side::new(&["a", "b"], &[Type::U32, Type::option(Type::Text)]);
    let types = Types::new();
    let verdicts = [Incompatible, Incompatible, Compatible, Compatible];
    call(
        (&old, (7u32,)),
        (&new, Some((7u32, None::<String>))),
        &types,
        verdicts,
    );
    // A server rejects what it does not know.
    call(
        (&new, (7u32, None::<String>)),
        (&old, Some((7u32,))),
        &types,
        [Incompatible; 4],
    );
    let required = Side::new(&["a", "b"], &[Type::U32, Type::U32]);
    call(
        (&old, (7u32,)),
        (&required, None::<(u32, u32)>),
        &types,
        [Incompatible; 4],
    );
}

#[test]
fn the_first_argument_is_added_as_an_option_of_any_type() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Size {
        #[serde(default)]
        width: u32,
    }
    let none = Side::new(&[], &[]);
    let types = Types::new();
    let new = Side::new(&["a"], &[Type::option(Type::U32)]);
    let verdicts = [Incompatible, Incompatible, Compatible, Compatible];
    call((&none, ()), (&new, Some((None::<u32>,))), &types, verdicts);
    let size = fields(
        "Size",
        vec![with(field("width", Type::U32), |field| {
            field.default = true
        })],
    );
    let new = Side::new(&["a"], &[Type::option(size.0)]);
    call(
        (&none, ()),
        (&new, Some((None::<Size>,))),
        &size.1,
        verdicts,
    );
}

#[test]
fn an_argument_is_renamed_where_arguments_have_no_names() {
    let old = Side::new(&["a", "b"], &[Type::U32, Type::Text]);
    let new = Side::new(&["a", "c"], &[Type::U32, Type::Text]);
    let expected = Some((7u32, "x".to_owned()));
    let verdicts = [Compatible, Compatible, Incompatible, Incompatible];
    call(
        (&old, (7u32, "x")),
        (&new, expected),
        &Types::new(),
        verdicts,
    );
}

#[test]
fn arguments_are_reordered_where_they_have_names() {
    let old = Side::new(&["a", "b"], &[Type::U32, Type::U32]);
    let new = Side::new(&["b", "a"], &[Type::U32, Type::U32]);
    let verdicts = [Incompatible, Incompatible, Compatible, Compatible];
    call(
        (&old, (7u32, 8u32)),
        (&new, Some((8u32, 7u32))),
        &Types::new(),
        verdicts,
    );
}

#[test]
fn an_argument_changes_as_any_value() {
    let old = Side::new(&["a"], &[Type::U16]);
    let new = Side::new(&["a"], &[Type::U64]);
    call(
        (&old, (7u16,)),
        (&new, Some((7u64,))),
        &Types::new(),
        [Compatible; 4],
    );
    call(
        (&old, (7u16,)),
        (&old, Some((7u16,))),
        &Types::new(),
        [Equal; 4],
    );
}
