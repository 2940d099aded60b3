//! Addresses with a path.

/// Splits `HOST:PORT/PATH`, `SCHEME://HOST:PORT/PATH` or `NAME/PATH`; `None` for other forms.
pub(crate) fn split(uri: &str) -> Option<(&str, &str)> {
    let after_scheme = uri.find("://").map_or(0, |at| at + 3);
    let slash = uri.get(after_scheme..).and_then(|rest| rest.find('/'));
    let is_ambiguous = ["unix:", "file:", "etcd:"]
        .iter()
        .any(|scheme| uri.starts_with(scheme));
    let slash = slash.filter(|&at| at > 0 && !is_ambiguous)?;
    Some(uri.split_at(after_scheme + slash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_follows_the_address() {
        for (uri, target, path) in [
            ("localhost:7000/echo?a=/b", "localhost:7000", "/echo?a=/b"),
            ("[::1]:7000/a/b", "[::1]:7000", "/a/b"),
            ("tcp://h:1/", "tcp://h:1", "/"),
            ("dns://orders.:7000/echo", "dns://orders.:7000", "/echo"),
            ("prod/echo", "prod", "/echo"),
        ] {
            assert_eq!(split(uri).unwrap(), (target, path));
        }
        for uri in [
            "localhost:7000",
            "/echo",
            "unix:/run/iip.sock/echo",
            "",
            "dns://",
        ] {
            assert_eq!(split(uri), None, "{uri}");
        }
    }
}
