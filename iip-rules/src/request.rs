//! Objects that show a request to rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use crate::context::Object;
use crate::value::Value;

/// The query parameters of an HTTP request: for each name its first value.
///
/// A parameter that is missing has no value. Rules can write parameters; that changes this object
/// alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    parameters: BTreeMap<String, Arc<str>>,
}

impl Query {
    /// Reads a query, the part of a URI after the `?`. A query with a malformed pair, which has a
    /// bad escape or a semicolon, has no parameters at all.
    ///
    /// Bytes that are not UTF-8 become U+FFFD.
    #[must_use]
    pub fn parse(query: &str) -> Self {
        let mut parameters = BTreeMap::new();
        for pair in pairs(query) {
            let Some((name, value)) = pair else {
                return Self::default();
            };
            parameters.entry(name).or_insert_with(|| value.into());
        }
        Self { parameters }
    }

    /// Returns the parameters, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters
            .iter()
            .map(|(name, value)| (name.as_str(), &**value))
    }
}

impl<N: Into<String>, V: Into<Arc<str>>> FromIterator<(N, V)> for Query {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(parameters: T) -> Self {
        let parameters = parameters.into_iter();
        let parameters = parameters
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Self { parameters }
    }
}

impl Object for Query {
    fn get(&self, property: &str) -> Value {
        self.parameters
            .get(property)
            .map_or(Value::Null, |value| Value::Text(value.clone()))
    }

    fn set(&mut self, property: &str, text: Arc<str>) {
        self.parameters.insert(property.to_owned(), text);
    }
}

/// The path and the query parameters of a request, as the balancer shows them.
///
/// The property `__PATH__` is the decoded path. Every other one is the first value of the query
/// parameter with this name, and an empty text if it is missing. Malformed pairs are skipped. Rules
/// cannot write properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestUri {
    path: Arc<str>,
    parameters: BTreeMap<String, Arc<str>>,
    empty: Arc<str>,
}

/// The error of a request whose URI is not a path or an absolute URI, or has a bad escape.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid request URI")]
#[non_exhaustive]
pub struct InvalidUri;

impl RequestUri {
    /// Reads a request URI: a path that begins with `/`, an absolute URI, or `*`, with an optional
    /// query. A `#` has no special meaning.
    ///
    /// # Errors
    ///
    /// Fails if it is something else, if it has control characters, or if its path has a bad
    /// escape. A bad escape in the query only loses that parameter.
    pub fn parse(uri: &str) -> Result<Self, InvalidUri> {
        if uri.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return Err(InvalidUri);
        }
        let (rest, query) = uri.split_once('?').unwrap_or((uri, ""));
        let (absolute, rest) = match scheme_end(rest)? {
            Some(end) => (true, &rest[end + 1..]),
            None => (false, rest),
        };
        let path = if let Some(authority) = rest.strip_prefix("//").filter(|_| absolute) {
            authority.find('/').map_or("", |at| &authority[at..])
        } else if rest.starts_with('/') || (!absolute && uri == "*") {
            rest
        } else if absolute {
            // What follows the scheme has no structure.
            ""
        } else {
            return Err(InvalidUri);
        };
        let mut parameters = BTreeMap::new();
        for (name, value) in pairs(query).flatten() {
            parameters.entry(name).or_insert_with(|| value.into());
        }
        let path = unescaped(path, false).ok_or(InvalidUri)?.into();
        Ok(Self {
            path,
            parameters,
            empty: "".into(),
        })
    }

    /// Returns the decoded path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Object for RequestUri {
    fn get(&self, property: &str) -> Value {
        let text = match property {
            "__PATH__" => &self.path,
            name => self.parameters.get(name).unwrap_or(&self.empty),
        };
        Value::Text(text.clone())
    }
}

/// Returns the place of the colon that ends a scheme, if there is one.
fn scheme_end(uri: &str) -> Result<Option<usize>, InvalidUri> {
    for (at, byte) in uri.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err(InvalidUri),
            b':' => return Ok(Some(at)),
            _ => break,
        }
    }
    Ok(None)
}

/// The decoded pairs of a query. A malformed one is none.
fn pairs(query: &str) -> impl Iterator<Item = Option<(String, String)>> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            if pair.contains(';') {
                return None;
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescaped(name, true)?, unescaped(value, true)?))
        })
}

/// Decodes percent escapes, and in a query plus signs.
fn unescaped(text: &str, query: bool) -> Option<String> {
    if !text.contains(['%', '+']) {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high << 4 | low).ok()?
            }
            b'+' if query => b' ',
            byte => byte,
        });
    }
    Some(match String::from_utf8(out) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_uri_is_a_path_an_absolute_uri_or_a_star() {
        let path = |uri| RequestUri::parse(uri).map(|uri| uri.path().to_owned());
        assert_eq!(path("/a%20b+c?x"), Ok("/a b+c".to_owned()));
        assert_eq!(path("http://h:80/a?u=7"), Ok("/a".to_owned()));
        assert_eq!(path("http://h"), Ok(String::new()));
        assert_eq!(path("mailto:x"), Ok(String::new()));
        assert_eq!(path("//h/a"), Ok("//h/a".to_owned()));
        assert_eq!(path("*"), Ok("*".to_owned()));
        assert_eq!(path("/%ff"), Ok("/\u{fffd}".to_owned()));
        for uri in [
            "", "a", "a?u=7", "?", ":x", "1:x", "/%zz", "/%2", "/\n", "*x",
        ] {
            assert_eq!(path(uri), Err(InvalidUri), "{uri:?}");
        }
    }

    #[test]
    fn a_malformed_pair_loses_itself_or_all_parameters() {
        let uri = RequestUri::parse("/?u=%zz&v=1&w=1;x=2&v=2&&y").expect("a URI");
        let read = ["u", "v", "w", "y"].map(|name| uri.get(name));
        assert_eq!(read, ["", "1", "", ""].map(Value::from));
        assert_eq!(Query::parse("u=%zz&v=1"), Query::default());
        let query = Query::parse("v=a+b%26&v=2&y");
        assert_eq!(query.iter().collect::<Vec<_>>(), [("v", "a b&"), ("y", "")]);
    }
}
