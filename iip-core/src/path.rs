//! Parsing of the path field of a frame: label, query, escapes. Pure.
//!
//! The path field is a URL reference, and existing servers parse it with Go's `net/url`. This
//! module parses it the same way, byte for byte (checked against the recordings `query_params` and
//! `bad_c2s_path_*`):
//!
//! | path field | label | parameters |
//! |---|---|---|
//! | `/p?x=1&y=a%20b&x=2` | `/p` | x = 1, 2; y = "a b" |
//! | `/p?plus=a+b&empty=&novalue` | `/p` | plus = "a b", empty = "", novalue = "" |
//! | `/p?semi=1;b=2&bad=%zz&ok=3` | `/p` | ok = 3: pairs with `;` or a bad escape are dropped |
//! | `/p%61rams#fragment` | `/params` | none |
//! | `http://host/p?x=1`, `//host/p?x=1` | `/p` | x = 1: scheme and host are ignored |
//! | `/p%zz?x=1`, or a control character | the whole field as it is | none |
//!
//! The *label* is the name that a handler is registered under, and the path of its replies.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]

use std::borrow::Cow;

use crate::error::CallErrorKind;
use crate::frame::MAX_PATH_BYTES;

/// The two significant parts of a path field: the label and the query.
///
/// Both borrow from the field unless an escape had to be decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParsedPath<'a> {
    /// The decoded path without query: the key for finding the handler, and the path of the reply.
    ///
    /// It consists of bytes, because a peer may send any: check it with [`check_label`] before it
    /// is put into a frame.
    pub label: Cow<'a, [u8]>,
    /// The part after the `?`, still escaped; parsed by [`Query`].
    pub query: &'a [u8],
}

impl ParsedPath<'_> {
    /// Returns the label as text, or `None` if it is not UTF-8. No handler can be registered under
    /// such a label.
    pub fn label_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.label).ok()
    }
}

/// Splits a path field into label and query, like Go's `net/url`.
///
/// A field that is not a URL reference (bad escape, control character, malformed host) is its own
/// label and has no parameters, so every field has a label; the label may still be empty or not
/// valid in a reply, see [`check_label`]. A field that starts with one `/` and has no `%`, `?`, `#`
/// or control character costs one scan and no allocation.
///
/// ```
/// use iip_core::path::{Query, label_and_query};
///
/// let parsed = label_and_query(b"/p%61rams?x=1&y=a+b");
/// assert_eq!(&parsed.label[..], b"/params");
/// assert_eq!(Query::new(parsed.query).get("y").as_deref(), Some("a b"));
/// ```
pub fn label_and_query(raw: &[u8]) -> ParsedPath<'_> {
    let one_slash = raw.first() == Some(&b'/') && raw.get(1) != Some(&b'/');
    // The loop has no early exit, so that the compiler vectorises the scan.
    if one_slash
        && !raw
            .iter()
            .fold(false, |found, byte| found | needs_parsing(*byte))
    {
        return ParsedPath {
            label: Cow::Borrowed(raw),
            query: &[],
        };
    }
    parse_reference(raw).unwrap_or(ParsedPath {
        label: Cow::Borrowed(raw),
        query: &[],
    })
}

/// The parameters of a request, parsed from the raw query on access.
///
/// Nothing is stored: each access scans the query, and allocates only for a value with an escape.
/// `+` is a space, a parameter without `=` has the value `""`, and pairs that contain a `;` or a
/// bad escape are dropped, like in Go.
///
/// Bytes that are not UTF-8 after decoding are replaced by U+FFFD; [`iter_bytes`](Self::iter_bytes)
/// returns them unchanged. Keys are compared on the decoded bytes.
///
/// ```
/// use iip_core::path::Query;
///
/// let query = Query::new(b"x=1&y=a%20b&x=2&flag");
/// assert_eq!(query.get("y").as_deref(), Some("a b"));
/// assert_eq!(query.get("flag").as_deref(), Some(""));
/// assert_eq!(query.all("x").collect::<Vec<_>>(), ["1", "2"]);
/// assert!(query.get("absent").is_none());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Query<'a> {
    raw: &'a [u8],
}

impl<'a> Query<'a> {
    /// Creates a query from `raw`, the part after the `?`.
    pub const fn new(raw: &'a [u8]) -> Self {
        Self { raw }
    }

    /// Returns the query as it was sent.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.raw
    }

    /// Returns `true` if no query was sent. A query that consists of dropped pairs is not empty.
    pub const fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Returns the first value of `key`.
    pub fn get(&self, key: &str) -> Option<Cow<'a, str>> {
        self.all(key).next()
    }

    /// Returns every value of `key`, in the order sent.
    pub fn all<'k>(&self, key: &'k str) -> impl Iterator<Item = Cow<'a, str>> + use<'a, 'k> {
        self.pairs()
            .filter(move |(raw_key, _)| decodes_to(raw_key, key.as_bytes()))
            .filter_map(|(_, raw_value)| {
                // The key of this pair is valid; a bad escape in the value drops the pair.
                unescape(raw_value, Plus::IsBlank).map(into_text)
            })
    }

    /// Returns every parameter in the order sent, as text.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        self.iter_bytes()
            .map(|(key, value)| (into_text(key), into_text(value)))
    }

    /// Returns every parameter in the order sent, as decoded bytes.
    pub fn iter_bytes(&self) -> impl Iterator<Item = (Cow<'a, [u8]>, Cow<'a, [u8]>)> + use<'a> {
        self.pairs().filter_map(|(key, value)| {
            Some((
                unescape(key, Plus::IsBlank)?,
                unescape(value, Plus::IsBlank)?,
            ))
        })
    }

    /// Returns the pairs that are not dropped for their form, still escaped.
    fn pairs(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        self.raw
            .split(|byte| *byte == b'&')
            .filter(|pair| !pair.is_empty() && !pair.contains(&b';'))
            .map(|pair| cut(pair, b'='))
    }
}

/// The reason why a path is not valid in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// The path is empty. Only a frame that closes the connection has no path.
    #[error("path is empty")]
    Empty,
    /// The path is too long: the encoder of the other side could not send it back.
    #[error("path has {bytes} bytes, the protocol allows {MAX_PATH_BYTES}")]
    TooLong {
        /// The length of the path.
        bytes: usize,
    },
    /// The path contains a NUL, which ends the path field: the rest would be read as the remainder
    /// of the frame, and as further frames.
    #[error("path contains a NUL byte, literally or as %00")]
    ContainsNul,
}

/// Checks that `label` is valid in the path field of a frame: not empty, at most 2048 bytes, no
/// NUL.
///
/// A decoded label can contain a NUL although the received field did not (`/a%00b`). If it were
/// written into a reply, one caller could forge the replies of others (recording
/// `path_nul_response_splitting`).
///
/// # Errors
///
/// Returns the reason why it is not valid.
pub fn check_label(label: &[u8]) -> Result<(), LabelError> {
    if label.is_empty() {
        Err(LabelError::Empty)
    } else if label.len() > MAX_PATH_BYTES {
        Err(LabelError::TooLong { bytes: label.len() })
    } else if memchr::memchr(0, label).is_some() {
        Err(LabelError::ContainsNul)
    } else {
        Ok(())
    }
}

/// Checks that a request can be sent to `path`: not empty, at most 2048 bytes, no NUL, neither
/// literally nor as `%00`.
///
/// A server that decodes `%00` may put a NUL into its reply, see [`check_label`].
///
/// # Errors
///
/// Returns the reason why it is not valid.
///
/// ```
/// use iip_core::path::{LabelError, check_path};
///
/// assert_eq!(check_path("/greeter/hello"), Ok(()));
/// assert_eq!(check_path("/a%00b"), Err(LabelError::ContainsNul));
/// ```
pub const fn check_path(path: &str) -> Result<(), LabelError> {
    if path.is_empty() {
        return Err(LabelError::Empty);
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(LabelError::TooLong { bytes: path.len() });
    }
    let mut rest = path.as_bytes();
    while let [_, behind @ ..] = rest {
        if matches!(rest, [0, ..] | [b'%', b'0', b'0', ..]) {
            return Err(LabelError::ContainsNul);
        }
        rest = behind;
    }
    Ok(())
}

/// A path that is checked once, when it is created, so that calls need not check it.
///
/// ```
/// use iip_core::path::StaticPath;
///
/// const HELLO: StaticPath = StaticPath::new("/greeter/hello");
/// assert_eq!(HELLO.as_str(), "/greeter/hello");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StaticPath(&'static str);

impl StaticPath {
    /// Checks that `path` can be called.
    ///
    /// # Panics
    ///
    /// Panics if [`check_path`] rejects the path: in a constant, this is a compile error. Check a
    /// path that is not known at compile time with `check_path` first.
    #[must_use]
    pub const fn new(path: &'static str) -> Self {
        match check_path(path) {
            Ok(()) => Self(path),
            Err(LabelError::Empty) => panic!("a path is not empty"),
            Err(LabelError::TooLong { .. }) => panic!("a path has at most 2048 bytes"),
            Err(LabelError::ContainsNul) => panic!("a path has no NUL, not even as %00"),
        }
    }

    /// Returns the path.
    #[inline]
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// Escapes a label, so that [`label_and_query`] returns it unchanged, whatever bytes it contains.
///
/// ```
/// use iip_core::path::encode_path;
///
/// assert_eq!(encode_path("/files/50% off?"), "/files/50%25%20off%3F");
/// assert_eq!(encode_path("/plain"), "/plain");
/// ```
pub fn encode_path<T: AsRef<[u8]> + ?Sized>(label: &T) -> Cow<'_, str> {
    let label = label.as_ref();
    let absolute = label.first() == Some(&b'/');
    // `//h/p` would be parsed as host h and path /p, and `a:b` as scheme a: the characters that
    // cause this are escaped.
    let hides_host = absolute && label.get(1) == Some(&b'/');
    encode(label, |at, byte| match byte {
        b'/' => !(hides_host && at == 1),
        b':' => absolute,
        b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b';' | b'=' | b'@' => true,
        _ => byte.is_ascii_alphanumeric(),
    })
}

/// Escapes a key or a value of a query, so that [`Query`] returns it unchanged, whatever bytes it
/// contains.
///
/// ```
/// use iip_core::path::encode_query;
///
/// let path = format!("/search?q={}", encode_query("a&b = c"));
/// assert_eq!(path, "/search?q=a%26b%20%3D%20c");
/// ```
pub fn encode_query<T: AsRef<[u8]> + ?Sized>(text: &T) -> Cow<'_, str> {
    encode(text.as_ref(), |_, byte| {
        matches!(byte, b'-' | b'_' | b'.' | b'~') || byte.is_ascii_alphanumeric()
    })
}

/// Escapes all bytes that `keep` does not keep. `keep` may only keep ASCII.
fn encode(bytes: &[u8], keep: impl Fn(usize, u8) -> bool) -> Cow<'_, str> {
    if bytes.iter().enumerate().all(|(at, byte)| keep(at, *byte)) {
        return String::from_utf8_lossy(bytes);
    }
    let mut text = String::with_capacity(bytes.len().saturating_mul(3));
    for (at, byte) in bytes.iter().copied().enumerate() {
        if keep(at, byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push(hex_digit(byte >> 4));
            text.push(hex_digit(byte & 15));
        }
    }
    Cow::Owned(text)
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(nibble.into(), 16)
        .unwrap_or('0')
        .to_ascii_uppercase()
}

// Source, in Go: url.go Parse, parse, getScheme, parseAuthority, parseHost, unescape, parseQuery;
// go1.19.

/// Returns `true` if a field with this byte after its first `/` is not just its own label.
const fn needs_parsing(byte: u8) -> bool {
    // `|` avoids branches in the scan.
    (byte < b' ') | (byte == 0x7f) | (byte == b'%') | (byte == b'?') | (byte == b'#')
}

/// Parses a URL reference; returns `None` if it is not one.
fn parse_reference(raw: &[u8]) -> Option<ParsedPath<'_>> {
    let (reference, fragment) = cut(raw, b'#');
    // A control character is only rejected before the `#`, a bad escape in the fragment as well.
    if reference.iter().any(u8::is_ascii_control) || !escapes_are_sound(fragment) {
        return None;
    }
    let (has_scheme, rest) = cut_scheme(reference)?;
    let (rest, query) = cut(rest, b'?');
    if rest.first() != Some(&b'/') {
        if has_scheme {
            // `mailto:x` is opaque and has no path.
            return Some(ParsedPath {
                label: Cow::Borrowed(&[]),
                query,
            });
        }
        if cut(rest, b'/').0.contains(&b':') {
            return None;
        }
    }
    let path = match rest.strip_prefix(b"//") {
        Some(behind) if has_scheme || behind.first() != Some(&b'/') => {
            let end = memchr::memchr(b'/', behind).unwrap_or(behind.len());
            let (authority, path) = behind.split_at_checked(end)?;
            if !authority_is_sound(authority) {
                return None;
            }
            path
        }
        _ => rest,
    };
    Some(ParsedPath {
        label: unescape(path, Plus::IsPlus)?,
        query,
    })
}

/// Cuts off a scheme. Returns a flag for its presence, and the rest; returns `None` if the scheme
/// before the colon is missing.
fn cut_scheme(reference: &[u8]) -> Option<(bool, &[u8])> {
    let end = reference
        .iter()
        .position(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'+' | b'-' | b'.'));
    match end.and_then(|end| reference.split_at_checked(end)) {
        Some(([], [b':', ..])) => None,
        Some(([first, ..], [b':', rest @ ..])) if first.is_ascii_alphabetic() => Some((true, rest)),
        _ => Some((false, reference)),
    }
}

fn authority_is_sound(authority: &[u8]) -> bool {
    let (userinfo, host) = match memchr::memrchr(b'@', authority) {
        Some(at) => (
            authority.get(..at).unwrap_or_default(),
            authority.get(at.saturating_add(1)..).unwrap_or_default(),
        ),
        None => (&[][..], authority),
    };
    host_is_sound(host)
        && escapes_are_sound(userinfo)
        && userinfo
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(byte))
}

fn host_is_sound(host: &[u8]) -> bool {
    if host.first() != Some(&b'[') {
        let port = memchr::memrchr(b':', host)
            .and_then(|at| host.get(at..))
            .unwrap_or_default();
        return port_is_sound(port) && host_part_is_sound(host, HostPart::Name);
    }
    let Some((literal, bracket_and_port)) =
        memchr::memrchr(b']', host).and_then(|bracket| host.split_at_checked(bracket))
    else {
        return false;
    };
    // In RFC 6874, `%25` starts the zone of an IPv6 address.
    let zone = memchr::memmem::find(literal, b"%25").unwrap_or(literal.len());
    let (address, zone) = literal.split_at_checked(zone).unwrap_or((literal, &[]));
    port_is_sound(bracket_and_port.strip_prefix(b"]").unwrap_or_default())
        && host_part_is_sound(address, HostPart::Name)
        && host_part_is_sound(zone, HostPart::Zone)
        && host_part_is_sound(bracket_and_port, HostPart::Name)
}

fn port_is_sound(port: &[u8]) -> bool {
    match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum HostPart {
    Name,
    Zone,
}

fn host_part_is_sound(part: &[u8], kind: HostPart) -> bool {
    let may_stand =
        |byte: u8| byte.is_ascii_alphanumeric() || b"!$&'()*+,;=:[]<>\"-_.~".contains(&byte);
    let mut rest = part;
    while let Some((first, behind)) = rest.split_first() {
        let escape = behind.first_chunk::<2>();
        rest = behind;
        if *first == b'%' {
            let Some(value) = escape.and_then(|digits| unhex(*digits)) else {
                return false;
            };
            // A name may only escape bytes that are not ASCII, a zone only bytes that are allowed
            // unescaped, or a space.
            let sound = value == b'%'
                || match kind {
                    HostPart::Name => value >= 0x80,
                    HostPart::Zone => value == b' ' || may_stand(value),
                };
            if !sound {
                return false;
            }
            rest = behind.get(2..).unwrap_or_default();
        } else if first.is_ascii() && !may_stand(*first) {
            return false;
        }
    }
    true
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    IsPlus,
    IsBlank,
}

/// A bad escape: `%` without two hexadecimal digits after it.
struct BadEscape;

/// An iterator over the decoded bytes.
struct Unescaped<'a> {
    rest: &'a [u8],
    plus: Plus,
}

impl Iterator for Unescaped<'_> {
    type Item = Result<u8, BadEscape>;

    fn next(&mut self) -> Option<Self::Item> {
        let (first, behind) = self.rest.split_first()?;
        self.rest = behind;
        Some(match first {
            b'%' => match behind
                .split_first_chunk::<2>()
                .and_then(|(digits, rest)| Some((unhex(*digits)?, rest)))
            {
                Some((value, rest)) => {
                    self.rest = rest;
                    Ok(value)
                }
                None => Err(BadEscape),
            },
            b'+' if self.plus == Plus::IsBlank => Ok(b' '),
            byte => Ok(*byte),
        })
    }
}

/// Decodes the escapes; returns `None` for a bad escape.
fn unescape(raw: &[u8], plus: Plus) -> Option<Cow<'_, [u8]>> {
    if memchr::memchr(b'%', raw).is_none()
        && (plus == Plus::IsPlus || memchr::memchr(b'+', raw).is_none())
    {
        return Some(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    for byte in (Unescaped { rest: raw, plus }) {
        decoded.push(byte.ok()?);
    }
    Some(Cow::Owned(decoded))
}

fn escapes_are_sound(raw: &[u8]) -> bool {
    memchr::memchr(b'%', raw).is_none()
        || (Unescaped {
            rest: raw,
            plus: Plus::IsPlus,
        })
        .all(|byte| byte.is_ok())
}

/// Returns `true` if the query component `raw` decodes to `wanted`, without decoding it into
/// memory.
fn decodes_to(raw: &[u8], wanted: &[u8]) -> bool {
    let mut wanted = wanted.iter();
    (Unescaped {
        rest: raw,
        plus: Plus::IsBlank,
    })
    .all(|byte| matches!((byte, wanted.next()), (Ok(a), Some(b)) if a == *b))
        && wanted.next().is_none()
}

fn unhex(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| {
        char::from(digit)
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok())
    });
    Some(high? << 4 | low?)
}

/// Returns the parts before and after the first `separator`; all bytes and an empty slice if there
/// is none.
fn cut(bytes: &[u8], separator: u8) -> (&[u8], &[u8]) {
    let at = memchr::memchr(separator, bytes).unwrap_or(bytes.len());
    let (before, behind) = bytes.split_at_checked(at).unwrap_or((bytes, &[]));
    (before, behind.get(1..).unwrap_or_default())
}

fn into_text(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(
            String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        ),
    }
}

/// Checks that a call can be sent to `path`, see [`check_path`]. Takes little time for paths without
/// escapes.
#[inline]
pub(crate) fn callable(path: &str) -> Result<&str, CallErrorKind> {
    let fits = !path.is_empty() && path.len() <= MAX_PATH_BYTES;
    let is_plain = fits && !path.bytes().any(|byte| byte == 0 || byte == b'%');
    if is_plain || check_path(path).is_ok() {
        return Ok(path);
    }
    Err(CallErrorKind::InvalidPath(path.chars().take(128).collect()))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn label(raw: &[u8]) -> Vec<u8> {
        label_and_query(raw).label.into_owned()
    }

    #[test]
    fn recorded_queries_give_the_recorded_parameters() {
        // From the recording query_params: the path field, then the parameters that the Go handler
        // received.
        let table = [
            ("/params?x=1&y=a%20b&x=2", "/params", "x=1,y=a b,x=2"),
            (
                "/params?plus=a+b&empty=&novalue",
                "/params",
                "plus=a b,empty=,novalue=",
            ),
            ("/params?semi=1;b=2&ok=3", "/params", "ok=3"),
            ("/params?bad=%zz&ok=1", "/params", "ok=1"),
            ("/p%61rams?z=1", "/params", "z=1"),
            ("/params#frag", "/params", ""),
            ("/echo?only=query", "/echo", "only=query"),
            // From the recording unknown_path.
            ("/nope?q=1", "/nope", "q=1"),
        ];
        for (raw, expected, pairs) in table {
            let parsed = label_and_query(raw.as_bytes());
            assert_eq!(parsed.label_str(), Some(expected), "{raw}");
            let found: Vec<_> = Query::new(parsed.query)
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            assert_eq!(found.join(","), pairs, "{raw}");
        }
    }

    #[test]
    fn recorded_unusual_paths_give_the_recorded_label() {
        let long_query = format!("/echo?{}", "a".repeat(5000));
        let table: &[(&str, &[u8], &[u8])] = &[
            ("bad_c2s_path_absolute_url", b"http://h/echo?x=1", b"/echo"),
            ("bad_c2s_path_double_slash", b"//h/echo", b"/echo"),
            ("bad_c2s_path_no_slash", b"echo", b"echo"),
            ("bad_c2s_path_bad_escape", b"/echo%zz", b"/echo%zz"),
            (
                "bad_c2s_path_control_char",
                b"/ec\x01ho?x=1",
                b"/ec\x01ho?x=1",
            ),
            ("bad_c2s_path_invalid_utf8", b"/\xff\xfe", b"/\xff\xfe"),
            ("bad_c2s_path_escaped_nul", b"/a%00b", b"/a\0b"),
            ("bad_c2s_path_parses_to_empty", b"?a=1", b""),
            ("bad_c2s_empty_path", b"", b""),
            ("bad_c2s_path_5000_query", long_query.as_bytes(), b"/echo"),
        ];
        for (recording, raw, expected) in table {
            assert_eq!(label(raw), *expected, "{recording}");
        }
        assert!(
            label_and_query(b"/ec\x01ho?x=1").query.is_empty(),
            "a field that is its own label has no parameters"
        );
    }

    #[test]
    fn recorded_labels_that_broke_the_reference_are_refused() {
        let table: &[(&str, Vec<u8>, Result<(), LabelError>)] = &[
            (
                "bad_c2s_path_escaped_nul",
                b"/a%00b".to_vec(),
                Err(LabelError::ContainsNul),
            ),
            (
                "bad_c2s_path_parses_to_empty",
                b"?a=1".to_vec(),
                Err(LabelError::Empty),
            ),
            ("bad_c2s_empty_path", Vec::new(), Err(LabelError::Empty)),
            (
                "bad_c2s_path_2048_unknown",
                [b"/".to_vec(), vec![b'a'; 2047]].concat(),
                Ok(()),
            ),
            (
                "bad_c2s_path_2049_unknown",
                [b"/".to_vec(), vec![b'a'; 2048]].concat(),
                Err(LabelError::TooLong { bytes: 2049 }),
            ),
            (
                "bad_c2s_path_5000_unknown",
                [b"/".to_vec(), vec![b'a'; 4999]].concat(),
                Err(LabelError::TooLong { bytes: 5000 }),
            ),
            ("bad_c2s_path_invalid_utf8", b"/\xff\xfe".to_vec(), Ok(())),
            (
                "path_nul_response_splitting",
                b"/x%00%00%00%00%01%05%2f%79%00".to_vec(),
                Err(LabelError::ContainsNul),
            ),
        ];
        for (recording, raw, expected) in table {
            assert_eq!(
                check_label(&label_and_query(raw).label),
                *expected,
                "{recording}"
            );
        }
    }

    #[test]
    fn calls_and_constants_take_the_same_paths() {
        let longest = "/".repeat(MAX_PATH_BYTES);
        let (valid, too_long) = (["/", "/a%0", "/a%01b%", &longest], "/".repeat(2049));
        for path in valid {
            assert_eq!(check_path(path), Ok(()), "{path}");
            assert_eq!(callable(path).ok(), Some(path));
        }
        let invalid = [
            ("", LabelError::Empty),
            (&*too_long, LabelError::TooLong { bytes: 2049 }),
            ("/a\0", LabelError::ContainsNul),
            ("%00", LabelError::ContainsNul),
            ("/a%0%00", LabelError::ContainsNul),
        ];
        for (path, reason) in invalid {
            assert_eq!(check_path(path), Err(reason), "{path}");
            assert!(callable(path).is_err(), "{path}");
        }
        assert!(std::panic::catch_unwind(|| StaticPath::new("/a%00b")).is_err());
    }

    #[test]
    fn references_are_split_as_go_splits_them() {
        let table: &[(&str, &str, &str)] = &[
            ("/", "/", ""),
            ("*", "*", ""),
            ("/a?", "/a", ""),
            ("/a?b?c", "/a", "b?c"),
            ("/a?b#c?d", "/a", "b"),
            ("/a#b?c", "/a", ""),
            ("/a:b", "/a:b", ""),
            ("a/b:c", "a/b:c", ""),
            ("/a+b", "/a+b", ""),
            ("/a%2Fb%2fc", "/a/b/c", ""),
            ("/a%3Fb", "/a?b", ""),
            ("/%E4%BD%A0", "/你", ""),
            // Three slashes start a path, unless a scheme precedes them.
            ("///a", "///a", ""),
            ("http:///a", "/a", ""),
            ("http:/a?x", "/a", "x"),
            ("//h", "", ""),
            ("//h?x=1", "", "x=1"),
            ("//", "", ""),
            ("http:", "", ""),
            ("mailto:a@b?x=1", "", "x=1"),
            ("a:b%zz", "", ""),
            ("http://user:pw%20@h:80/a", "/a", ""),
            ("http://a@b@c/d", "/d", ""),
            ("http://h:/a", "/a", ""),
            ("http://[::1]:80/a", "/a", ""),
            ("http://[fe80::1%25en0]/a", "/a", ""),
            ("http://[fe80::1%25en%200]:8080/a", "/a", ""),
            (
                "http://[fe80::%31%25en0]/a",
                "http://[fe80::%31%25en0]/a",
                "",
            ),
            ("http://h%E4/a", "/a", ""),
            ("http://你/a", "/a", ""),
            ("http://a%25b/c", "/c", ""),
            // These fields are not references: the field is the label.
            (":a", ":a", ""),
            ("1a:b", "1a:b", ""),
            ("a_b:c/d", "a_b:c/d", ""),
            ("/a#%zz", "/a#%zz", ""),
            ("/a%", "/a%", ""),
            ("/a%4", "/a%4", ""),
            ("/a%4?b=1", "/a%4?b=1", ""),
            ("/a%4?1", "/a%4?1", ""),
            ("//h:x/a", "//h:x/a", ""),
            ("http://a b/c", "http://a b/c", ""),
            ("http://a%20b/c", "http://a%20b/c", ""),
            ("http://a%zz/c", "http://a%zz/c", ""),
            ("http://[::1/a", "http://[::1/a", ""),
            ("http://[::1]a/b", "http://[::1]a/b", ""),
            ("http://[::1%25%2f]/b", "http://[::1%25%2f]/b", ""),
            ("http://[::1]:8x/b", "http://[::1]:8x/b", ""),
            ("http://us er@h/b", "http://us er@h/b", ""),
            ("http://u%zz@h/b", "http://u%zz@h/b", ""),
            ("http://x@y(z:123)/foo", "http://x@y(z:123)/foo", ""),
            ("http://a\\b/c", "http://a\\b/c", ""),
            ("/a\u{7f}", "/a\u{7f}", ""),
        ];
        for (raw, expected, query) in table {
            let parsed = label_and_query(raw.as_bytes());
            assert_eq!(parsed.label_str(), Some(*expected), "{raw}");
            assert_eq!(parsed.query, query.as_bytes(), "{raw}");
        }
    }

    #[test]
    fn control_characters_are_only_refused_before_the_fragment() {
        assert_eq!(label(b"/a#\x01"), b"/a");
        assert_eq!(label(b"/a\x01#b"), b"/a\x01#b");
        assert_eq!(label(b"/a?\n"), b"/a?\n");
    }

    #[test]
    fn plain_paths_and_plain_values_are_borrowed() {
        assert!(matches!(
            label_and_query(b"/greeter/hello").label,
            Cow::Borrowed(_)
        ));
        assert!(matches!(
            label_and_query(b"/slow?ms=10").label,
            Cow::Borrowed(_)
        ));
        assert!(matches!(
            Query::new(b"ms=10").get("ms"),
            Some(Cow::Borrowed("10"))
        ));
    }

    #[test]
    fn pairs_are_taken_as_go_takes_them() {
        let pairs = |raw: &'static str| {
            Query::new(raw.as_bytes())
                .iter()
                .map(|(key, value)| format!("{key}:{value}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(pairs(""), "");
        assert_eq!(pairs("&&a=1&"), "a:1");
        assert_eq!(pairs("=v&="), ":v :");
        assert_eq!(pairs("a=b=c"), "a:b=c");
        assert_eq!(pairs("a%3Db=c"), "a=b:c");
        assert_eq!(pairs("%zz=1&a=%1&b=%&c=1"), "c:1");
        assert_eq!(pairs("a%3B=%3b"), "a;:;");
        assert_eq!(pairs("x+y=%2B"), "x y:+");
        assert_eq!(pairs("a=1?b=2"), "a:1?b=2");
    }

    #[test]
    fn a_key_is_compared_after_decoding() {
        let query = Query::new(b"%6ds=1&m+s=2&ms=%zz&ms=3&mss=4&m=5");
        assert_eq!(query.all("ms").collect::<Vec<_>>(), ["1", "3"]);
        assert_eq!(query.get("m s").as_deref(), Some("2"));
        assert_eq!(query.get("m").as_deref(), Some("5"));
        assert_eq!(query.get(""), None);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced_as_text_and_kept_as_bytes() {
        let query = Query::new(b"a=%ff&\xfe=b");
        assert_eq!(query.get("a").as_deref(), Some("\u{fffd}"));
        let pairs: Vec<_> = query.iter_bytes().collect();
        assert_eq!(
            pairs,
            [
                (b"a".into(), (&[0xff][..]).into()),
                ((&[0xfe][..]).into(), b"b".into())
            ] as [(Cow<'_, [u8]>, Cow<'_, [u8]>); 2]
        );
        assert_eq!(label_and_query(b"/%ff").label_str(), None);
    }

    /// Generates fields from the characters that the parser distinguishes.
    fn reference() -> impl Strategy<Value = Vec<u8>> {
        vec(
            prop_oneof![
                6 => proptest::sample::select(b"/:?#%&=;+@[]*.ah2519zZ \x01\x7f\xff\0".to_vec())
                    .prop_map(|byte| vec![byte]),
                1 => Just(b"%25".to_vec()),
                1 => Just(b"http://".to_vec()),
                1 => any::<u8>().prop_map(|byte| vec![byte]),
            ],
            0..24,
        )
        .prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn no_field_panics_and_every_question_is_answered(raw in reference()) {
            let parsed = label_and_query(&raw);
            let _ = check_label(&parsed.label);
            prop_assert!(parsed.label.len() <= raw.len());
            let query = Query::new(parsed.query);
            for (key, value) in query.iter() {
                if !key.contains('\u{fffd}') {
                    prop_assert!(query.all(&key).any(|found| found == value));
                }
            }
            let _ = Query::new(&raw).iter_bytes().count();
        }

        #[test]
        fn the_short_way_gives_what_the_long_way_gives(raw in reference()) {
            let long = parse_reference(&raw).unwrap_or(ParsedPath {
                label: Cow::Borrowed(&raw),
                query: &[],
            });
            prop_assert_eq!(label_and_query(&raw), long);
        }

        #[test]
        fn an_encoded_label_is_read_back(
            bytes in prop_oneof![vec(any::<u8>(), 0..40), reference()],
        ) {
            let encoded = encode_path(&bytes);
            let parsed = label_and_query(encoded.as_bytes());
            prop_assert_eq!(&parsed.label[..], &bytes[..], "{}", encoded);
            prop_assert!(parsed.query.is_empty());
        }

        #[test]
        fn encoded_parameters_are_read_back(
            pairs in vec((vec(any::<u8>(), 0..8), vec(any::<u8>(), 0..8)), 0..6),
        ) {
            let raw: Vec<_> = pairs
                .iter()
                .map(|(key, value)| format!("{}={}", encode_query(key), encode_query(value)))
                .collect();
            let raw = format!("/p?{}", raw.join("&"));
            let parsed = label_and_query(raw.as_bytes());
            let read: Vec<_> = Query::new(parsed.query)
                .iter_bytes()
                .map(|(key, value)| (key.into_owned(), value.into_owned()))
                .collect();
            prop_assert_eq!(read, pairs);
        }
    }
}
