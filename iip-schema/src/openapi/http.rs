//! The HTTP requests that call a method.

use std::fmt::Write;

use serde_json::{Map, Number, Value};

use crate::description::{Description, Format, Method, MethodKind};
use crate::types::{Definition, Shape, Type, Types};

/// Maximum number of newtypes around a value that are followed.
const MAX_NEWTYPES: usize = 16;

/// The length in bytes of the names of services and methods in HTTP paths.
const MAX_NAME: usize = 1024;

/// The HTTP path of a method: `/{service}/{method}`, each percent-encoded except for letters,
/// digits, `-`, `.`, `_` and `~`.
///
/// Returns `None` if the name of the service or of the method is empty, `.` or `..`, which no HTTP
/// client sends as it is, or longer than 1,024 bytes.
#[must_use]
pub fn http_path(service: &Description, method: &Method) -> Option<String> {
    let mut path = String::new();
    for segment in [&service.service, &method.name] {
        if !fits_path(segment) {
            return None;
        }
        path.push('/');
        for byte in segment.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                path.push(char::from(byte));
            } else {
                // Writing to a string does not fail.
                let _ = write!(path, "%{byte:02X}");
            }
        }
    }
    Some(path)
}

pub(super) fn fits_path(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= MAX_NAME
}

/// Returns `true` if the method can be called by `GET` with its arguments as query parameters.
///
/// That is so for an idempotent method with at most one request and with a reply, if its arguments
/// in JSON are numbers, booleans or texts, `Option`s of them, or newtypes around them. It is never
/// so for raw and protobuf methods.
#[must_use]
pub fn accepts_get(method: &Method, types: &Types) -> bool {
    let one_request = matches!(
        method.kind,
        MethodKind::Unary | MethodKind::ServerStream | MethodKind::Subscription
    );
    method.idempotent
        && one_request
        && method.format != Format::Raw
        && !is_protobuf(method)
        && method.args.iter().all(|arg| {
            let (value, _) = query_value(&arg.ty);
            is_plain(value, types)
        })
}

/// The reason why query parameters are not the arguments of a method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// No argument has this name.
    #[error("{method} has no argument `{name}`")]
    Unknown {
        /// The name of the method.
        method: String,
        /// The name of the parameter.
        name: String,
    },
    /// A parameter occurs twice.
    #[error("the parameter `{name}` occurs twice")]
    Twice {
        /// The name of the parameter.
        name: String,
    },
    /// The value of a parameter is not of the type of the argument.
    #[error("the parameter `{name}` is not {expected}")]
    Value {
        /// The name of the parameter.
        name: String,
        /// The form that it should have.
        expected: &'static str,
    },
    /// The arguments are not all numbers, booleans or texts.
    #[error("the argument `{name}` has no form as a query parameter")]
    Argument {
        /// The name of the argument.
        name: String,
    },
}

/// Reads the arguments of a method from decoded query parameters, as the JSON object of a call by
/// `POST`. Arguments that are missing are left out: they may be `Option`s.
///
/// Integers have at most 64 bits.
///
/// # Errors
///
/// A parameter is not an argument, occurs twice, or is not of its type.
pub fn query_arguments<'a>(
    method: &Method,
    types: &Types,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Value, QueryError> {
    let mut object = Map::new();
    for (name, text) in parameters {
        let Some(arg) = method.args.iter().find(|arg| arg.name == name) else {
            return Err(QueryError::Unknown {
                method: method.name.clone(),
                name: name.to_owned(),
            });
        };
        let (ty, _) = query_value(&arg.ty);
        let value = query_scalar(unwrapped(ty, types), name, text)?;
        if object.insert(name.to_owned(), value).is_some() {
            let name = name.to_owned();
            return Err(QueryError::Twice { name });
        }
    }
    Ok(object.into())
}

/// The value of a parameter.
fn query_scalar(ty: &Type, name: &str, text: &str) -> Result<Value, QueryError> {
    let (value, expected) = match ty {
        Type::Bool => (text.parse().ok().map(Value::Bool), "`true` or `false`"),
        Type::F32 | Type::F64 => {
            let number = text.parse().ok().and_then(Number::from_f64);
            (number.map(Value::Number), "a number")
        }
        Type::Char | Type::Text => (Some(Value::from(text)), "a text"),
        ty if ty.integer().is_some() => {
            let positive = text.parse::<u64>().ok().map(Value::from);
            let number = positive.or_else(|| text.parse::<i64>().ok().map(Value::from));
            (number, "an integer")
        }
        _ => {
            let name = name.to_owned();
            return Err(QueryError::Argument { name });
        }
    };
    value.ok_or_else(|| QueryError::Value {
        name: name.to_owned(),
        expected,
    })
}

pub(super) fn is_protobuf(method: &Method) -> bool {
    method.codec.as_deref() == Some("protobuf")
}

/// The type of a query parameter without the `Option` around it, and whether there was one.
pub(super) fn query_value(ty: &Type) -> (&Type, bool) {
    match ty {
        Type::Option(of) => (of, true),
        ty => (ty, false),
    }
}

fn is_plain(ty: &Type, types: &Types) -> bool {
    let ty = unwrapped(ty, types);
    ty.integer().is_some()
        || matches!(
            ty,
            Type::Bool | Type::F32 | Type::F64 | Type::Char | Type::Text
        )
}

/// The type in JSON without the newtypes around it. A type that is not at the end after
/// [`MAX_NEWTYPES`] steps is returned as it is then.
pub(super) fn unwrapped<'a>(mut ty: &'a Type, types: &'a Types) -> &'a Type {
    for _ in 0..MAX_NEWTYPES {
        ty = match ty {
            Type::ByFormat { readable, .. } => readable,
            Type::Named(name) => match types.get(name) {
                Some(Definition {
                    shape: Shape::Newtype(of),
                    ..
                }) => of,
                _ => return ty,
            },
            _ => return ty,
        };
    }
    ty
}
