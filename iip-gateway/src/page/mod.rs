//! The documentation page of typed services.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderMap, HeaderValue, REFERRER_POLICY};
use iip_rpc::schema::Description;
use iip_rpc::schema::openapi::{accepts_get, http_path};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The page: one file with its script and its style. It reads `description.json` from the folder
/// above its own, with the services as [`describe`] returns them, and calls their methods there.
pub(crate) const PAGE: &str = include_str!("docs.html");

/// The content security policy: only the script and the style of the page run, and they may connect
/// only to this gateway.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'",
        hash(content("script")),
        hash(content("style")),
    );
    HeaderValue::try_from(policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
});

/// Returns the content of the only element of the page with this tag.
fn content(tag: &str) -> &'static str {
    let rest = PAGE.split_once(&format!("<{tag}>"));
    let inner = rest.and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
    inner.map_or("", |(inner, _)| inner)
}

fn hash(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

/// Sets the headers that limit what the page may do.
pub(crate) fn protect(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

/// Returns the description of a service as JSON. Each method with an HTTP path has the additional
/// property `http`: the `path` below the folder of the services, and `get`, which is `true` if the
/// method accepts GET requests.
pub(crate) fn describe(service: &Description) -> Value {
    let mut value = json!(service);
    for (index, method) in service.methods.iter().enumerate() {
        if let Some(path) = http_path(service, method) {
            let get = accepts_get(method, &service.types);
            value["methods"][index]["http"] =
                json!({"path": path.trim_start_matches('/'), "get": get});
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use iip_rpc::schema::Method;

    use super::*;

    #[test]
    fn the_page_is_one_small_file_without_anything_from_elsewhere() {
        assert!(PAGE.len() < 40_000, "{} bytes", PAGE.len());
        for tag in ["<script", "<style", "<link"] {
            assert_eq!(PAGE.matches(tag).count(), 1, "{tag}");
        }
        for part in [
            "src=",
            "@import",
            "http://",
            "https://",
            "innerHTML",
            "eval(",
        ] {
            assert!(!PAGE.contains(part), "{part}");
        }
    }

    #[test]
    fn the_policy_has_the_hashes_of_the_script_and_the_style() {
        let policy = POLICY.to_str().expect("text");
        for tag in ["script", "style"] {
            let found = hash(content(tag));
            assert!(policy.contains(&format!("{tag}-src {found};")), "{policy}");
            assert_ne!(found, hash(""), "the {tag} was not found");
        }
    }

    #[test]
    fn methods_are_described_with_their_paths_in_http() {
        let mut service = Description::new("shop.v1.Orders");
        let mut find = Method::new("find", "/f");
        find.idempotent = true;
        service.methods = vec![find, Method::new("..", "/g"), Method::new("a b", "/h")];
        let value = describe(&service);
        let http = |index: usize| value["methods"][index]["http"].clone();
        assert_eq!(http(0), json!({"path": "shop.v1.Orders/find", "get": true}));
        assert_eq!(http(1), Value::Null, "no path leads to it");
        assert_eq!(
            http(2),
            json!({"path": "shop.v1.Orders/a%20b", "get": false})
        );
    }
}
