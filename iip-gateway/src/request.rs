//! The checks that every request must pass, and its parts for routes and handlers. Pure.

use std::borrow::Cow;
use std::net::IpAddr;

use hyper::header::{
    CONNECTION, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};
use iip_core::path::Query;

use crate::failure::Failure;

/// The parameter that carries the headers to backends.
pub(crate) const HEADERS_PARAMETER: &str = "__http_hdr__";

/// The parameter that carries the method to backends of this project.
pub(crate) const METHOD_PARAMETER: &str = "__http_method__";

/// Headers that identify the client, and are accepted only from trusted networks.
const FORWARDED_NAMES: [&str; 6] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-real-ip",
];

/// A request that passed the checks.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The host without its port, in lower case; empty if an HTTP/1.0 client named none.
    pub(crate) host: String,
    /// The normalized path with the query, for routes.
    pub(crate) target: String,
}

/// Checks a request.
pub(crate) fn check(parts: &Parts) -> Result<Checked, Failure> {
    if parts.method == Method::CONNECT {
        return Err(Failure::refused(
            StatusCode::NOT_IMPLEMENTED,
            "UNIMPLEMENTED",
            "the method CONNECT is not supported",
        ));
    }
    let host = host(parts)?;
    let path = parts.uri.path();
    if !path.starts_with('/') {
        return Err(Failure::bad_request("the target is not a path"));
    }
    if path.starts_with("//") {
        // Backends skip the host of such a reference, so they would see another path than routes.
        return Err(Failure::bad_request("the path begins with //"));
    }
    let mut target = normalized(path)?;
    if let Some(query) = parts.uri.query() {
        check_query(query)?;
        if !query.is_empty() {
            target.push('?');
            target.push_str(query);
        }
    }
    Ok(Checked { host, target })
}

fn host(parts: &Parts) -> Result<String, Failure> {
    let mut values = parts.headers.get_all(HOST).iter();
    let header = match (values.next(), values.next()) {
        (_, Some(_)) => return Err(Failure::bad_request("Host occurs more than once")),
        (Some(value), None) => {
            let text = value.to_str();
            Some(text.map_err(|_| Failure::bad_request("Host is malformed"))?)
        }
        (None, None) => None,
    };
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    let host = match (authority, header) {
        (Some(authority), Some(header)) if !authority.eq_ignore_ascii_case(header) => {
            return Err(Failure::bad_request(
                "Host differs from the host of the target",
            ));
        }
        (Some(host), _) | (None, Some(host)) => host,
        (None, None) if parts.version < Version::HTTP_11 => return Ok(String::new()),
        (None, None) => return Err(Failure::bad_request("Host is missing")),
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => {
            if !port.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(Failure::bad_request("the port in Host is malformed"));
            }
            name
        }
        _ => host,
    };
    let is_plain = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'.' | b'-' | b'_' | b'~' | b':' | b'[' | b']')
    };
    if name.is_empty() || !name.bytes().all(is_plain) {
        return Err(Failure::bad_request("Host is malformed"));
    }
    Ok(name.to_ascii_lowercase())
}

/// Rejects a query that a backend could take for parameters that the gateway adds, or that contains
/// a NUL.
fn check_query(query: &str) -> Result<(), Failure> {
    if query.contains("%00") {
        return Err(Failure::bad_request("the target contains a NUL"));
    }
    // All reserved names have an underscore, which may be escaped.
    if !query.contains('_') && !query.contains('%') {
        return Ok(());
    }
    for (name, _) in Query::new(query.as_bytes()).iter() {
        // Go's adapter sends `?__http_hdr__` for targets that end in `?`.
        let name = name.trim_start_matches('?');
        if name == HEADERS_PARAMETER || name == METHOD_PARAMETER {
            let detail = format!("the query parameter {name} is reserved");
            return Err(Failure::bad_request(detail));
        }
    }
    Ok(())
}

/// Returns the path for routes: without dot segments and unnecessary escapes, so that no spelling
/// of a path evades a route.
fn normalized(path: &str) -> Result<String, Failure> {
    if !path.contains('%') && !path.contains("/.") {
        return Ok(path.to_owned());
    }
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        plain.push_str(rest.get(..at).unwrap_or_default());
        let escape = rest.get(at..at + 3).filter(|escape| {
            let digits = escape.bytes().skip(1);
            digits.clone().count() == 2 && digits.into_iter().all(|byte| byte.is_ascii_hexdigit())
        });
        let Some(escape) = escape else {
            return Err(Failure::bad_request("the path has a malformed escape"));
        };
        let byte = u8::from_str_radix(escape.get(1..).unwrap_or_default(), 16).unwrap_or(0);
        match byte {
            0 => return Err(Failure::bad_request("the target contains a NUL")),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                plain.push(char::from(byte));
            }
            _ => plain.push_str(&escape.to_ascii_uppercase()),
        }
        rest = rest.get(at + 3..).unwrap_or_default();
    }
    plain.push_str(rest);
    if !plain.contains("/.") {
        return Ok(plain);
    }
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_folder = false;
    for segment in plain.split('/').skip(1) {
        ends_in_folder = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    let mut normal = String::with_capacity(plain.len());
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if ends_in_folder || normal.is_empty() {
        normal.push('/');
    }
    Ok(normal)
}

/// Removes hop-by-hop headers, and those with which a client outside the trusted networks could
/// impersonate another.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap, is_trusted: bool) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            // These determine the meaning of a request, so they cannot be options of a connection.
            .filter(|name: &HeaderName| name != "content-length" && name != "host")
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("http2-settings");
    let proxy: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("proxy-"))
        .cloned()
        .collect();
    for name in proxy {
        headers.remove(name);
    }
    if !is_trusted {
        headers.remove(FORWARDED);
        for name in FORWARDED_NAMES {
            headers.remove(name);
        }
    }
}

/// Adds headers that identify the client to backends: `X-Forwarded-For`, appended to that of a
/// trusted proxy, and the protocol and the host, unless a trusted proxy has set them.
pub(crate) fn add_forwarded(
    headers: &mut HeaderMap,
    client: Option<IpAddr>,
    is_tls: bool,
    host: &str,
) {
    const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
    const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
    if let Some(client) = client {
        let before = headers
            .get_all(FOR)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let mut list: Vec<Cow<'_, str>> = before.map(Cow::Borrowed).collect();
        list.push(Cow::Owned(client.to_canonical().to_string()));
        if let Ok(value) = HeaderValue::try_from(list.join(", ")) {
            headers.insert(FOR, value);
        }
    }
    let proto = HeaderValue::from_static(if is_tls { "https" } else { "http" });
    headers.entry(PROTO).or_insert(proto);
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn checked(target: &str, headers: &[(&str, &str)]) -> Result<Checked, String> {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        check(&parts).map_err(|failure| failure.detail.into_owned())
    }

    #[test]
    fn the_host_is_required_and_unambiguous() {
        for (target, headers, host) in [
            ("/", &[("host", "Example.org:8080")][..], Ok("example.org")),
            ("/", &[("host", "[::1]:80")], Ok("[::1]")),
            ("/", &[("host", "[::1]")], Ok("[::1]")),
            ("http://a.b/", &[("host", "a.b")], Ok("a.b")),
            ("http://a.b/", &[], Ok("a.b")),
            ("/", &[], Err("Host is missing")),
            ("/", &[("host", "")], Err("Host is malformed")),
            ("/", &[("host", "a b")], Err("Host is malformed")),
            ("/", &[("host", "u@a")], Err("Host is malformed")),
            ("/", &[("host", "a/b")], Err("Host is malformed")),
            (
                "/",
                &[("host", "a:b")],
                Err("the port in Host is malformed"),
            ),
            (
                "/",
                &[("host", "a"), ("host", "a")],
                Err("Host occurs more than once"),
            ),
            (
                "http://a.b/",
                &[("host", "c.d")],
                Err("Host differs from the host of the target"),
            ),
        ] {
            let found = checked(target, headers).map(|checked| checked.host);
            let expected = host.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(found, expected, "{target} {headers:?}");
        }
    }

    #[test]
    fn paths_are_normalized_for_routes() {
        for (target, normal) in [
            ("/a/b?x=%20", "/a/b?x=%20"),
            ("/a?", "/a"),
            ("/%61%2Fb%2f%7E", "/a%2Fb%2F~"),
            ("/a/../b", "/b"),
            ("/a/./b/..", "/a/"),
            ("/../../b", "/b"),
            ("/..", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/..b", "/a/..b"),
            ("/a//b", "/a//b"),
        ] {
            let found = checked(target, &[("host", "a")]).unwrap().target;
            assert_eq!(found, normal, "{target}");
        }
    }

    #[test]
    fn hostile_targets_are_refused() {
        for (target, reason) in [
            ("/x%00y", "the target contains a NUL"),
            ("/x?a=%00", "the target contains a NUL"),
            ("/x%0", "the path has a malformed escape"),
            ("/x%zz", "the path has a malformed escape"),
            ("/x%+1", "the path has a malformed escape"),
            ("*", "the target is not a path"),
            ("//a/b", "the path begins with //"),
            (
                "/x?__http_hdr__=e30=",
                "the query parameter __http_hdr__ is reserved",
            ),
            (
                "/x?a=1&__http%5fhdr__=e30=",
                "the query parameter __http_hdr__ is reserved",
            ),
            (
                "/x??__http_hdr__=e30=",
                "the query parameter __http_hdr__ is reserved",
            ),
            (
                "/x?__http_method__=GET",
                "the query parameter __http_method__ is reserved",
            ),
        ] {
            assert_eq!(
                checked(target, &[("host", "a")]).unwrap_err(),
                reason,
                "{target}"
            );
        }
    }

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn headers_of_the_connection_are_removed() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Hop, content-length"),
            ("connection", "te"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "secret"),
            ("upgrade", "h2c"),
            ("x-forwarded-for", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("content-length", "3"),
            ("accept", "*/*"),
        ]);
        remove_hop_by_hop(&mut headers, false);
        assert_eq!(headers, map(&[("content-length", "3"), ("accept", "*/*")]));
    }

    #[test]
    fn a_trusted_proxy_names_the_client() {
        let client = Some("10.0.0.1".parse().unwrap());
        let mut headers = map(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
        ]);
        remove_hop_by_hop(&mut headers, true);
        add_forwarded(&mut headers, client, false, "a");
        let expected = [
            ("x-forwarded-for", "1.2.3.4, 10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "a"),
        ];
        assert_eq!(headers, map(&expected));
    }
}
