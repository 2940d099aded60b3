//! The page as HTML, and the headers that restrict it.

/// The page, with its script and its style.
pub(super) const HTML: &str = include_str!("live.html");

/// The content security policy of the page: it may run its own script and style, and connect to its
/// own origin. Scripts injected by texts of peers would not run.
pub(super) const POLICY: &str = concat!(
    "default-src 'none'; ",
    "script-src 'sha256-H8ZQy2vigD9pdkdrqhXRmxGHhQW2t6teD81vLzyoPUs='; ",
    "style-src 'sha256-ih3mRBlg/nY3vlHZZpu1zC+0gwnMkFlg0GuJpXlEXM4='; ",
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; ",
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest, Sha256};

    use super::*;

    fn hash(tag: &str) -> String {
        let (_, rest) = HTML.split_once(&format!("<{tag}>")).unwrap();
        let (text, rest) = rest.split_once(&format!("</{tag}>")).unwrap();
        assert!(!rest.contains(&format!("<{tag}")), "there is one {tag}");
        format!(
            "{tag}-src 'sha256-{}'",
            STANDARD.encode(Sha256::digest(text))
        )
    }

    #[test]
    fn the_policy_has_the_hashes_of_the_script_and_the_style() {
        for tag in ["script", "style"] {
            let expected = hash(tag);
            assert!(POLICY.contains(&expected), "write {expected}");
        }
    }

    #[test]
    fn the_page_is_small_and_needs_nothing_else() {
        assert!(HTML.len() <= 60_000, "{} bytes", HTML.len());
        let foreign = [
            "<link rel=\"stylesheet",
            "src=",
            "@import",
            "url(",
            "innerHTML",
            " style=\"",
        ];
        for foreign in foreign {
            assert!(!HTML.contains(foreign), "{foreign}");
        }
        // The names of elements of SVG are no address that is asked.
        let addresses = HTML.matches("http").count();
        assert_eq!(
            addresses,
            HTML.matches("http://www.w3.org/2000/svg").count()
        );
    }
}
