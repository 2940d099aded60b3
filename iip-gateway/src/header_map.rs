//! The headers of a request in the form in which Go's HTTP adapter sends them to its backends:
//! base64 of a JSON object with a list of values for each name. Pure.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use hyper::HeaderMap;
use hyper::header::HeaderName;

/// Appends the value of `__http_hdr__` for the headers whose names `keep` accepts.
///
/// Names are canonical (`User-Agent`) and sorted. The base64 is URL-safe, padded, and not escaped.
/// Source of the format: recording `http_adapter`.
pub(crate) fn append_packed(
    headers: &HeaderMap,
    keep: impl Fn(&HeaderName) -> bool,
    path: &mut String,
) {
    let mut names: Vec<&HeaderName> = headers.keys().filter(|name| keep(name)).collect();
    names.sort_unstable_by(|a, b| canonical(a).cmp(canonical(b)));
    let mut json = Vec::with_capacity(256);
    json.push(b'{');
    for (index, name) in names.into_iter().enumerate() {
        json.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
        json.extend(canonical(name));
        json.extend_from_slice(b"\":[");
        if name == hyper::header::COOKIE {
            append_cookies(headers, &mut json);
        } else {
            for (index, value) in headers.get_all(name).iter().enumerate() {
                json.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
                append_escaped(value.as_bytes(), &mut json);
                json.push(b'"');
            }
        }
        json.push(b']');
    }
    json.push(b'}');
    URL_SAFE.encode_string(&json, path);
}

/// Appends the cookies as one value: HTTP/2 clients may split them. Source: RFC 9113, 8.2.3.
fn append_cookies(headers: &HeaderMap, json: &mut Vec<u8>) {
    json.push(b'"');
    for (index, value) in headers.get_all(hyper::header::COOKIE).iter().enumerate() {
        if index > 0 {
            json.extend_from_slice(b"; ");
        }
        append_escaped(value.as_bytes(), json);
    }
    json.push(b'"');
}

/// Returns the bytes of a name with capital letters at the beginning and after each hyphen.
fn canonical(name: &HeaderName) -> impl Iterator<Item = u8> {
    let mut starts = true;
    name.as_str().bytes().map(move |byte| {
        let shown = if starts {
            byte.to_ascii_uppercase()
        } else {
            byte
        };
        starts = byte == b'-';
        shown
    })
}

/// Appends a text as Go's JSON encoder does: with escapes for `<`, `>`, `&` and the line
/// separators, and `\ufffd` for each byte that is not UTF-8.
fn append_escaped(value: &[u8], json: &mut Vec<u8>) {
    for chunk in value.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => json.extend([b'\\', c as u8]),
                '\t' => json.extend_from_slice(b"\\t"),
                '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    let mut escape = String::new();
                    // Writing to a `String` cannot fail.
                    let _ = write!(escape, "\\u{:04x}", u32::from(c));
                    json.extend_from_slice(escape.as_bytes());
                }
                _ => json.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for _ in chunk.invalid() {
            json.extend_from_slice(b"\\ufffd");
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn packed(headers: &[(&str, &[u8])]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        let mut path = String::new();
        append_packed(&map, |name| name != "host", &mut path);
        String::from_utf8(URL_SAFE.decode(&path).unwrap()).unwrap()
    }

    #[test]
    fn names_are_canonical_and_sorted_as_go_sorts_them() {
        let headers: [(&str, &[u8]); 6] = [
            ("x-two", b"a"),
            ("x-_b", b"1"),
            ("host", b"hidden"),
            ("x-ab", b"2"),
            ("accept", b"*/*"),
            ("x-two", b"b"),
        ];
        let expected = r#"{"Accept":["*/*"],"X-Ab":["2"],"X-_b":["1"],"X-Two":["a","b"]}"#;
        // `T` is before `_` in ASCII.
        let expected = expected.replace(
            r#""X-_b":["1"],"X-Two":["a","b"]"#,
            r#""X-Two":["a","b"],"X-_b":["1"]"#,
        );
        assert_eq!(packed(&headers), expected);
        assert_eq!(packed(&[]), "{}");
    }

    #[test]
    fn values_are_escaped_as_go_escapes_them() {
        let value = "<a>&\"\\\tü\u{2028}".as_bytes();
        let expected = r#"{"X":["\u003ca\u003e\u0026\"\\\tü\u2028"]}"#;
        assert_eq!(packed(&[("x", value)]), expected);
        assert_eq!(
            packed(&[("x", b"\xff\xe2\x82 ")]),
            r#"{"X":["\ufffd\ufffd\ufffd "]}"#
        );
    }

    #[test]
    fn cookies_are_one_value() {
        let headers: [(&str, &[u8]); 2] = [("cookie", b"a=1"), ("cookie", b"b=2")];
        assert_eq!(packed(&headers), r#"{"Cookie":["a=1; b=2"]}"#);
    }
}
