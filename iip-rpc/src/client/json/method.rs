//! The descriptors of methods that are called by path.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::codec::CodecId;
use crate::method::MethodDescriptor;
use crate::status::Status;

/// The number of paths that a process can call by name. A path that is called in several ways
/// counts once for each.
const MAX_PATHS: usize = 16_384;

/// The settings of a call that its descriptor has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Manner {
    pub(super) codec: CodecId,
    pub(super) idempotent: bool,
    pub(super) one_way: bool,
}

/// Returns the descriptor of the method at a path. It lives as long as the process, as those of
/// generated clients do.
pub(super) fn method_at(path: &str, manner: Manner) -> Result<&'static MethodDescriptor, Status> {
    type Known = HashMap<(&'static str, Manner), &'static MethodDescriptor>;
    static KNOWN: Mutex<Option<Known>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    // The lifetime of the key is shortened for the lookup.
    let found: &HashMap<(&str, Manner), &'static MethodDescriptor> = known;
    if let Some(method) = found.get(&(path, manner)) {
        return Ok(method);
    }
    if known.len() >= MAX_PATHS {
        let text = format!("this process has called {MAX_PATHS} paths by name already");
        return Err(Status::resource_exhausted(text));
    }
    check(path)?;
    let path: &'static str = Box::leak(path.into());
    let (service, name) = path.rsplit_once('/').unwrap_or(("", path));
    let service = service.trim_start_matches('/');
    let mut method = MethodDescriptor::new(service, name, path, &[]).codec(manner.codec);
    if manner.idempotent {
        method = method.idempotent();
    }
    if manner.one_way {
        method = method.one_way();
    }
    let method: &'static MethodDescriptor = Box::leak(Box::new(method));
    known.insert((path, manner), method);
    Ok(method)
}

/// Refuses a path that cannot be sent.
fn check(path: &str) -> Result<(), Status> {
    let checked = iip_core::path::check_label(path.as_bytes()).map_err(|error| error.to_string());
    let checked = checked.and_then(|()| match path.contains("%00") {
        true => Err("a path has no NUL, not even as %00".to_owned()),
        false => Ok(()),
    });
    checked.map_err(|error| {
        Status::invalid_argument(format!("the path {path:?} is not valid: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Manner = Manner {
        codec: CodecId::JSON,
        idempotent: false,
        one_way: false,
    };

    #[test]
    fn a_path_has_one_descriptor_for_each_manner() {
        let method = method_at("/shop.Orders/place", PLAIN).unwrap();
        assert_eq!(method.to_string(), "shop.Orders.place");
        let again = method_at("/shop.Orders/place", PLAIN).unwrap();
        assert!(std::ptr::eq(method, again));
        let idempotent = Manner {
            idempotent: true,
            ..PLAIN
        };
        let other = method_at("/shop.Orders/place", idempotent).unwrap();
        assert!(other.is_idempotent() && !method.is_idempotent());
    }

    #[test]
    fn a_path_that_cannot_be_sent_is_refused() {
        for path in ["", "/a\0b", "/a%00b", &"x".repeat(3000)] {
            assert!(method_at(path, PLAIN).is_err(), "{path:?}");
        }
    }
}
