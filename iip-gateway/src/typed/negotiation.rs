//! The types of the bodies of requests and replies.

use hyper::StatusCode;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap};

use crate::failure::Failure;

pub(super) const JSON: &str = "application/json";
pub(super) const NDJSON: &str = "application/x-ndjson";
pub(super) const EVENTS: &str = "text/event-stream";
pub(super) const BINARY: &str = "application/octet-stream";
pub(super) const PROTOBUF: &str = "application/x-protobuf";

/// The form in which a stream is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StreamForm {
    /// Server-sent events.
    Events,
    /// Lines of JSON.
    Lines,
}

impl StreamForm {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Events => EVENTS,
            Self::Lines => NDJSON,
        }
    }

    /// Returns the form that the client prefers: lines unless it asks for events.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let ranges = headers.get_all(ACCEPT).iter();
        let ranges = ranges.filter_map(|value| value.to_str().ok());
        let ranges: Vec<(&str, f32)> = ranges
            .flat_map(|value| value.split(','))
            .map(range)
            .collect();
        let named = |media: &str| {
            let exact = ranges
                .iter()
                .filter(|(range, _)| range.eq_ignore_ascii_case(media));
            exact.map(|(_, quality)| *quality).reduce(f32::max)
        };
        let accepts = |media: &str| {
            let (kind, _) = media.split_once('/').unwrap_or_default();
            let found = named(media).or_else(|| named(&format!("{kind}/*")));
            found
                .or_else(|| named("*/*"))
                .is_some_and(|quality| quality > 0.0)
        };
        // `text/event-stream, */*` prefers the named type.
        let events = named(EVENTS).unwrap_or(0.0);
        if events > 0.0 && events >= named(NDJSON).unwrap_or(0.0) {
            return Ok(Self::Events);
        }
        if ranges.is_empty() || accepts(NDJSON) || accepts(JSON) {
            return Ok(Self::Lines);
        }
        match accepts(EVENTS) {
            true => Ok(Self::Events),
            false => Err(Failure::refused(
                StatusCode::NOT_ACCEPTABLE,
                "INVALID_ARGUMENT",
                format!("a stream is {NDJSON} or {EVENTS} (header Accept)"),
            )),
        }
    }
}

/// Splits a media range from its quality.
fn range(text: &str) -> (&str, f32) {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let quality = parts.find_map(|part| part.strip_prefix(['q', 'Q'])?.strip_prefix('='));
    (
        media,
        quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0)),
    )
}

/// Checks the type of the body of a request. A body without a type is rejected, because web pages
/// may send some types to any server. An empty body needs no type.
pub(super) fn check_type(
    headers: &HeaderMap,
    accepted: &[&str],
    is_empty: bool,
) -> Result<(), Failure> {
    let found = match headers.get(CONTENT_TYPE) {
        None if is_empty => return Ok(()),
        None => None,
        Some(value) => value.to_str().ok(),
    };
    let media = found.map(|value| value.split(';').next().unwrap_or_default().trim());
    let fits = |media: &str| {
        accepted
            .iter()
            .any(|accepted| media.eq_ignore_ascii_case(accepted))
    };
    if media.is_some_and(fits) {
        return Ok(());
    }
    let wanted = accepted.first().copied().unwrap_or_default();
    Err(Failure::refused(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "INVALID_ARGUMENT",
        format!("the body must be {wanted} (header Content-Type)"),
    ))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn form(accept: &str) -> Option<StreamForm> {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        }
        StreamForm::of(&headers).ok()
    }

    #[test]
    fn a_stream_is_lines_unless_events_are_asked_for() {
        use StreamForm::{Events, Lines};
        for (accept, expected) in [
            ("", Some(Lines)),
            ("*/*", Some(Lines)),
            ("application/*", Some(Lines)),
            ("application/json", Some(Lines)),
            ("application/x-ndjson", Some(Lines)),
            ("text/html, */*;q=0.8", Some(Lines)),
            ("text/event-stream", Some(Events)),
            ("TEXT/Event-Stream, */*", Some(Events)),
            ("application/x-ndjson, text/event-stream;q=0.5", Some(Lines)),
            (
                "application/x-ndjson;q=0.5, text/event-stream",
                Some(Events),
            ),
            ("text/event-stream;q=0, application/x-ndjson", Some(Lines)),
            ("text/html", None),
            ("application/x-ndjson;q=0", None),
        ] {
            assert_eq!(form(accept), expected, "{accept}");
        }
    }

    #[test]
    fn bodies_need_their_type() {
        let fits = |value: Option<&str>, is_empty| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(CONTENT_TYPE, HeaderValue::from_str(value).unwrap());
            }
            check_type(&headers, &[JSON], is_empty).is_ok()
        };
        assert!(fits(Some("application/json"), false));
        assert!(fits(Some("Application/JSON; charset=utf-8"), false));
        assert!(fits(None, true));
        assert!(!fits(None, false));
        assert!(!fits(Some("text/plain"), true));
        assert!(!fits(Some("application/x-www-form-urlencoded"), false));
    }
}
