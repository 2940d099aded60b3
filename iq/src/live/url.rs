//! Addresses of live pages.

use std::borrow::Cow;
use std::fmt;

use hyper::Uri;
use hyper::http::uri::Scheme;
use iip_core::transport::Endpoint;

/// The default path of a live page.
const PATH: &str = "/live";

/// Returns `true` if a target is an HTTP URL.
pub(crate) fn is_url(target: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|scheme| target.starts_with(scheme))
}

/// Returns an address for an error, without the name and the password of a user.
pub(crate) fn without_user(address: &str) -> Cow<'_, str> {
    let (scheme, rest) = address.split_once("://").unwrap_or_default();
    match rest.rsplit_once('@') {
        Some((_, rest)) => format!("{scheme}://***@{rest}").into(),
        None => address.into(),
    }
}

/// The address of a live page, such as `http://localhost:9000`, which stands for
/// `http://localhost:9000/live`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Url {
    pub(crate) is_https: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The path, without a `/` at the end.
    pub(crate) path: String,
}

impl Url {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let shown = without_user(text);
        let wrong = |reason: &str| format!("`{shown}`: {reason}, write `http://localhost:9000`");
        let uri: Uri = text.parse().map_err(|_| wrong("not an address of HTTP"))?;
        let is_https = uri.scheme() == Some(&Scheme::HTTPS);
        let authority = uri.authority().ok_or_else(|| wrong("there is no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("a name of a user is not supported"));
        }
        if uri.query().is_some() {
            return Err(wrong("there is a query"));
        }
        let bare = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        if bare.is_empty() {
            return Err(wrong("there is no host"));
        }
        if authority.port_u16().is_none() && authority.as_str() != authority.host() {
            return Err(wrong("the port is not a number from 0 to 65535"));
        }
        let path = uri.path().trim_end_matches('/');
        Ok(Self {
            is_https,
            host: bare.to_owned(),
            port: authority
                .port_u16()
                .unwrap_or(if is_https { 443 } else { 80 }),
            path: if path.is_empty() { PATH } else { path }.to_owned(),
        })
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp {
            host: self.host.clone(),
            port: self.port,
        }
    }

    /// Returns the value of the header `Host`.
    pub(crate) fn authority(&self) -> String {
        self.endpoint().to_string()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_and_the_port_may_be_left_out() {
        for (text, expected) in [
            ("http://localhost:9000", (false, "localhost", 9000, "/live")),
            ("http://10.0.0.1/", (false, "10.0.0.1", 80, "/live")),
            ("https://h/live/", (true, "h", 443, "/live")),
            ("http://[::1]:9/a/live", (false, "::1", 9, "/a/live")),
        ] {
            let url = Url::parse(text).expect(text);
            let parts = (url.is_https, &*url.host, url.port, &*url.path);
            assert_eq!(parts, expected, "{text}");
        }
        let url = Url::parse("https://[::1]:9").unwrap();
        assert_eq!(url.authority(), "[::1]:9");
        assert_eq!(url.to_string(), "https://[::1]:9/live");
    }

    #[test]
    fn errors_do_not_show_a_password() {
        for text in ["http://me:secret@h:9", "http://me:se/cret@h h"] {
            let error = Url::parse(text).unwrap_err();
            assert!(error.starts_with("`http://***@h"), "{error}");
            assert!(!error.contains("cret"), "{error}");
        }
    }

    #[test]
    fn what_would_be_ignored_is_rejected() {
        for text in [
            "http://",
            "http://:9",
            "http://me@h:9",
            "http://h:9/live?curves=false",
            "http://h:99999",
            "http://h h",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }
}
