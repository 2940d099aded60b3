//! The HTTP requests that call a method.

use std::fmt::Write;

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
