//! The state of a process, as on its live page. An IIP server reports a part of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use iip_core::Printable;
use serde::{Deserialize, Deserializer, Serialize};

use crate::exit::{Failure, Outcome};

/// The supported version of the format of live pages.
const FORMAT: u32 = 1;

/// Maximum number of characters of a text.
const MAX_TEXT: usize = 300;

/// A text from a process, without characters that move the cursor or change the direction of text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Text(String);

impl Text {
    pub(crate) fn new(text: &str) -> Self {
        let mut shown = Printable(text).to_string();
        if let Some((end, _)) = shown.char_indices().nth(MAX_TEXT) {
            shown.truncate(end);
            shown.push('…');
        }
        Self(shown)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer).map(|text| Self::new(&text))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The state of a process. The fields are those of the live page.
#[derive(Clone, Default, Debug, Deserialize, Serialize)]
pub(crate) struct Snapshot {
    pub(crate) name: Text,
    #[serde(default)]
    pub(crate) version: Text,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<u32>,
    /// Like all times, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) started: Option<u64>,
    pub(crate) now: u64,
    pub(crate) verdict: Verdict,
    pub(crate) drain: Drain,
    pub(crate) sources: Vec<Source>,
    pub(crate) totals: Vec<Total>,
    pub(crate) methods: Vec<Method>,
    pub(crate) calls: Vec<Call>,
    pub(crate) backends: Vec<Backend>,
    pub(crate) connections: Connections,
}

/// The state of health of the process.
#[derive(Clone, Default, Debug, Deserialize, Serialize)]
pub(crate) struct Verdict {
    /// `ok`, `warning` or `problem`.
    pub(crate) level: Text,
    pub(crate) text: Text,
}

#[derive(Clone, Default, Debug, Deserialize, Serialize)]
pub(crate) struct Drain {
    pub(crate) available: bool,
    pub(crate) draining: bool,
    /// The token of the button, a secret.
    #[serde(default, skip_serializing)]
    pub(crate) token: Option<String>,
}

/// A server or a client.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Source {
    pub(crate) id: u64,
    pub(crate) kind: Text,
    pub(crate) name: Text,
}

/// The calls of all servers, or of all clients.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Total {
    pub(crate) side: Text,
    #[serde(flatten)]
    pub(crate) figures: Figures,
}

/// Rates of calls and errors, per second, and latencies, in microseconds. Unknown values are
/// `None`.
#[derive(Clone, Default, Debug, Deserialize, Serialize)]
pub(crate) struct Figures {
    pub(crate) rate: Option<f64>,
    pub(crate) errors: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mean: Option<f64>,
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) p999: Option<f64>,
    pub(crate) in_flight: Option<u64>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Method {
    pub(crate) source: u64,
    pub(crate) name: Text,
    #[serde(flatten)]
    pub(crate) figures: Figures,
    /// Calls per second by their codes, without OK.
    pub(crate) codes: BTreeMap<Text, f64>,
    /// Number of calls since the start.
    pub(crate) calls: u64,
}

/// A call that failed or was slow.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Call {
    pub(crate) at: u64,
    pub(crate) source: u64,
    pub(crate) method: Text,
    pub(crate) code: Text,
    /// In microseconds.
    pub(crate) took: u64,
    pub(crate) peer: Option<Text>,
    pub(crate) trace: Option<Text>,
    pub(crate) text: Option<Text>,
    pub(crate) phases: Vec<Phase>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Phase {
    pub(crate) name: Text,
    pub(crate) us: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Backend {
    pub(crate) source: u64,
    pub(crate) id: Text,
    pub(crate) address: Text,
    pub(crate) state: Text,
    pub(crate) weight: f64,
    /// The expected cost of another call, in microseconds.
    pub(crate) score: Option<f64>,
    pub(crate) in_flight: u64,
    pub(crate) connections: Option<u64>,
    pub(crate) reasons: Vec<Text>,
}

#[derive(Clone, Default, Debug, Deserialize, Serialize)]
pub(crate) struct Connections {
    /// Number of connections, of which not all may be listed.
    pub(crate) total: u64,
    pub(crate) listed: Vec<Connection>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Connection {
    pub(crate) source: u64,
    pub(crate) peer: Text,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<u64>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Bytes that are queued to be written.
    pub(crate) unsent: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) calls: Option<u64>,
    pub(crate) build: Option<Text>,
}

impl Snapshot {
    /// Reads the JSON of a live page.
    pub(crate) fn of_page(json: &[u8]) -> Outcome<Self> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let wrong = |error: serde_json::Error| {
            Failure::Own(format!("the reply is not that of a live page: {error}"))
        };
        let version: Version = serde_json::from_slice(json).map_err(wrong)?;
        if version.format != FORMAT {
            let text = format!(
                "the live page has format {}, and this iq understands format {FORMAT}",
                version.format
            );
            return Err(Failure::Own(text));
        }
        serde_json::from_slice(json).map_err(wrong)
    }

    /// Returns the kind and name of the server or client of a row.
    pub(crate) fn source(&self, id: u64) -> String {
        let source = self.sources.iter().find(|source| source.id == id);
        source.map_or_else(String::new, |source| {
            format!("{} {}", source.kind, source.name)
        })
    }

    /// Returns the number of calls that the servers of the process are running.
    pub(crate) fn served_in_flight(&self) -> u64 {
        let served = self.totals.iter().filter(|total| &*total.side == "server");
        served.filter_map(|total| total.figures.in_flight).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_process_move_no_cursor_and_are_short() {
        let text: Text = serde_json::from_str(r#""a\u001b[2J\u202eb""#).unwrap();
        assert_eq!(&*text, r"a\u{1b}[2J\u{202e}b");
        assert_eq!(Text::new(&"x".repeat(1000)).chars().count(), MAX_TEXT + 1);
    }

    #[test]
    fn other_replies_and_other_formats_are_errors() {
        let error = Snapshot::of_page(b"<html>").unwrap_err().to_string();
        assert!(error.contains("not that of a live page"), "{error}");
        let error = Snapshot::of_page(br#"{"format":2}"#).unwrap_err();
        assert!(error.to_string().contains("format 2"), "{error}");
    }

    #[test]
    fn the_token_of_a_page_is_not_printed() {
        let drain: Drain =
            serde_json::from_str(r#"{"available": true, "draining": false, "token": "secret"}"#)
                .unwrap();
        assert_eq!(drain.token.as_deref(), Some("secret"));
        let printed = serde_json::to_string(&drain).unwrap();
        assert_eq!(printed, r#"{"available":true,"draining":false}"#);
    }
}
