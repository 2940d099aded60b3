//! Blanking of secrets before records are written.

use bytes::Bytes;
use iip_core::path::{Query, encode_path, encode_query, label_and_query};
use iip_rpc::Metadata;
use iip_rpc::codec::{CodecId, DecodeLimits};
use iip_rpc::compression::{CompressionId, decompress};

use crate::capture::{BLANK, Blanked, Body, Part, Services};

/// The keys of metadata, and the parameters of queries, whose values are never written.
pub(super) const SECRET_KEYS: [&str; 12] = [
    "__http_hdr__",
    "api-key",
    "authorization",
    "cookie",
    "password",
    "proxy-authorization",
    "secret",
    "session",
    "set-cookie",
    "token",
    "x-api-key",
    "x-auth-token",
];

/// Maximum size of a payload, in bytes: the largest message that peers accept, with its envelope.
pub(super) const MAX_BYTES: usize = 16 * 1024 * 1024 + 64 * 1024;

/// The reason for leaving out a larger payload.
pub(super) const TOO_LARGE: &str = "it is larger than 16 MiB";

/// A filter that finds and blanks secrets.
#[derive(Debug)]
pub(super) struct Filter {
    keys: Vec<String>,
    payloads: bool,
}

/// A payload as it was sent.
#[derive(Debug)]
pub(super) struct Payload {
    pub(super) bytes: Bytes,
    /// The number of bytes that were sent.
    pub(super) size: usize,
    pub(super) codec: CodecId,
    pub(super) compression: CompressionId,
    /// The part of a described call; `None` for the details of a status.
    pub(super) part: Option<Part>,
    /// The reason why the payload is not written.
    pub(super) left_out: Option<&'static str>,
}

impl Filter {
    pub(super) fn new(keys: &[String], payloads: bool) -> Self {
        let known = SECRET_KEYS.iter().map(|key| (*key).to_owned());
        let more = keys.iter().map(|key| key.to_ascii_lowercase());
        Self {
            keys: known.chain(more).collect(),
            payloads,
        }
    }

    /// Returns `true` if payloads are written.
    pub(super) fn payloads(&self) -> bool {
        self.payloads
    }

    fn is_secret(&self, key: &str) -> bool {
        self.keys
            .iter()
            .any(|secret| key.eq_ignore_ascii_case(secret))
    }

    /// Returns the metadata to record.
    pub(super) fn metadata(&self, metadata: &Metadata) -> Vec<(String, Bytes)> {
        let entries = metadata.iter().map(|(key, value)| {
            let value = match self.is_secret(key) {
                true => Bytes::from_static(BLANK.as_bytes()),
                // Copied, because a slice would keep the whole received buffer alive.
                false => Bytes::copy_from_slice(value),
            };
            (key.to_owned(), value)
        });
        entries.collect()
    }

    /// Returns the path to record. Its query counts as a payload.
    pub(super) fn path(&self, raw: &[u8]) -> String {
        let parsed = label_and_query(raw);
        let mut path = String::from_utf8_lossy(&parsed.label).into_owned();
        if !self.payloads || parsed.query.is_empty() {
            return path;
        }
        path = encode_path(&path).into_owned();
        for (number, (key, value)) in Query::new(parsed.query).iter().enumerate() {
            path.push(if number == 0 { '?' } else { '&' });
            path.push_str(&encode_query(&*key));
            path.push('=');
            match self.is_secret(&key) {
                true => path.push_str(BLANK),
                false => path.push_str(&encode_query(&*value)),
            }
        }
        path
    }

    /// Returns the payload to record.
    pub(super) fn body(&self, payload: Payload, path: &str, services: &Services) -> Body {
        let mut body = Body {
            size: payload.size as u64,
            ..Body::default()
        };
        if !self.payloads {
            return body;
        }
        match written(payload, path, services) {
            Ok(bytes) => body.bytes = Some(bytes),
            Err(reason) => body.left_out = Some(reason.to_owned()),
        }
        body
    }
}

/// Returns the payload to record, or the reason why it is left out.
fn written(payload: Payload, path: &str, services: &Services) -> Result<Bytes, &'static str> {
    let bytes = plain(payload, path, services)?;
    match bytes.len() > MAX_BYTES {
        // Blanked values can be longer than the secrets.
        true => Err(TOO_LARGE),
        false => Ok(bytes),
    }
}

/// Returns the payload without compression and secrets.
fn plain(payload: Payload, path: &str, services: &Services) -> Result<Bytes, &'static str> {
    if let Some(reason) = payload.left_out {
        return Err(reason);
    }
    let bytes = decompress(payload.compression, payload.bytes, &DecodeLimits::new());
    let bytes = bytes.map_err(|_| "it cannot be decompressed")?;
    let (Some(described), Some(part)) = (services.at(path), payload.part) else {
        return Ok(bytes);
    };
    match described.blank(part, payload.codec, &bytes) {
        Blanked::AsItIs => Ok(bytes),
        Blanked::Changed(bytes) => Ok(bytes),
        Blanked::Unknown => Err("the secrets in it cannot be found by the description"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_metadata_and_queries_are_blanked() {
        let filter = Filter::new(&["Tenant".to_owned()], true);
        let mut metadata = Metadata::new();
        for key in ["authorization", "tenant", "trace"] {
            metadata.insert(key, "value").unwrap();
        }
        let expected = [
            ("authorization", "***"),
            ("tenant", "***"),
            ("trace", "value"),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), Bytes::from(value)));
        assert_eq!(filter.metadata(&metadata), expected);
        let path = filter.path(b"/a?x=1&TENANT=2&token=a%20b&__http_hdr__=Zm9v&%zz=1&y=a+b");
        assert_eq!(path, "/a?x=1&TENANT=***&token=***&__http_hdr__=***&y=a%20b");
        let filter = Filter::new(&[], false);
        assert_eq!(filter.path(b"/a?x=1"), "/a");
    }
}
