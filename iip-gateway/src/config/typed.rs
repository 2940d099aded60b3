//! The keys of groups of typed services.

use serde::Deserialize;

use super::values::{Size, Time};
use crate::typed::{JsonInt64, TypedOptions};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TypedEntry {
    prefix: Option<String>,
    title: Option<String>,
    max_timeout: Option<Time>,
    #[serde(default)]
    metadata: Vec<String>,
    #[serde(default)]
    origins: Vec<String>,
    json_int64: Option<Int64Key>,
    max_line_bytes: Option<Size>,
    max_stream_bytes: Option<Size>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Int64Key {
    Number,
    String,
}

impl TypedEntry {
    pub(super) fn options(&self) -> Result<TypedOptions, String> {
        let mut options = TypedOptions::new();
        if let Some(prefix) = &self.prefix {
            options = options.prefix(prefix);
        }
        if let Some(title) = &self.title {
            options = options.title(title);
        }
        if let Some(timeout) = self.max_timeout {
            options = options.max_timeout(timeout.0);
        }
        for header in &self.metadata {
            if header.parse::<hyper::header::HeaderName>().is_err() {
                return Err(format!("metadata: `{header}` is not the name of a header"));
            }
            options = options.metadata(header);
        }
        for origin in &self.origins {
            options = options.origin(origin);
        }
        if let Some(form) = self.json_int64 {
            options = options.json_int64(match form {
                Int64Key::Number => JsonInt64::Number,
                Int64Key::String => JsonInt64::String,
            });
        }
        if let Some(size) = self.max_line_bytes {
            options = options.max_line_bytes(size.0);
        }
        if let Some(size) = self.max_stream_bytes {
            options = options.max_stream_bytes(u64::try_from(size.0).unwrap_or(u64::MAX));
        }
        Ok(options)
    }
}
