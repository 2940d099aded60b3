//! The arguments of a call, from the query or the body of a request.

use bytes::Bytes;
use hyper::http::request::Parts;
use iip_core::path::Query;
use iip_rpc::schema::openapi::query_arguments;

use super::catalog::Found;
use crate::failure::Failure;

/// The arguments of a method without arguments.
pub(super) const NONE: Bytes = Bytes::from_static(b"{}");

/// The parameter with all arguments as JSON.
const WHOLE: &str = "q";

/// Reads arguments from a query: `q` with the JSON of all of them, or a parameter for each.
pub(super) fn of_query(found: &Found, parts: &Parts) -> Result<Bytes, Failure> {
    let method = found.method();
    let raw = parts.uri.query().unwrap_or_default().as_bytes();
    let pairs: Vec<_> = Query::new(raw).iter().collect();
    // Pairs that cannot be read are left out there.
    let sent = raw
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty());
    if sent.count() != pairs.len() {
        let detail = "the query has a malformed escape, or a semicolon";
        return Err(Failure::invalid(detail));
    }
    let has_own = method.args.iter().any(|arg| arg.name == WHOLE);
    if let [(name, whole)] = &*pairs
        && name == WHOLE
        && !has_own
    {
        return Ok(Bytes::from(whole.clone().into_owned()));
    }
    let pairs = pairs.iter().map(|(name, value)| (&**name, &**value));
    match query_arguments(method, found.types(), pairs) {
        Ok(arguments) => Ok(Bytes::from(arguments.to_string())),
        Err(error) => Err(Failure::invalid(error.to_string())),
    }
}
