//! Pages of the guide as documentation. Their links name files, for readers of the repository;
//! rustdoc needs the names of modules.

use std::path::Path;

/// Reads the text of a page, with links for rustdoc.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    let page = std::fs::read_to_string(path);
    let page = page.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(rewritten(&page))
}

/// Replaces links to other pages by links to their modules, and links to other files by the text
/// and the name of the file.
fn rewritten(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    let mut rest = page;
    while let Some(at) = rest.find("](") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        let (Some(open), Some(end)) = (before.rfind('['), after.find(')')) else {
            break;
        };
        let (text, target) = (&before[open + 1..], &after[..end]);
        out.push_str(&before[..open]);
        let (file, anchor) = match target.split_once('#') {
            Some((file, anchor)) => (file, format!("#{anchor}")),
            None => (target, String::new()),
        };
        match file.strip_suffix(".md") {
            _ if file.is_empty() || file.contains("://") => out += &format!("[{text}]({target})"),
            Some("README") => out += &format!("[{text}](crate::guide{anchor})"),
            Some(name) if !name.contains('/') => {
                let module = name.replace('-', "_");
                out += &format!("[{text}](crate::guide::{module}{anchor})");
            }
            _ => out += &format!("{text} (`{}` in the repository)", in_repository(file)),
        }
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    out
}

/// Returns the path of a file relative to the root of the repository; the pages are in
/// `docs/guide`.
fn in_repository(file: &str) -> String {
    match file.strip_prefix("../../") {
        Some(file) => file.to_owned(),
        None => format!("docs/{}", file.trim_start_matches("../")),
    }
}

#[cfg(test)]
mod tests {
    use super::rewritten;

    #[test]
    fn links_to_pages_become_links_to_modules_and_others_a_text() {
        let table = [
            (
                "see [streams](streaming.md).",
                "see [streams](crate::guide::streaming).",
            ),
            (
                "[a](from-grpc.md#x-y)[b](#here)",
                "[a](crate::guide::from_grpc#x-y)[b](#here)",
            ),
            ("[all](README.md)", "[all](crate::guide)"),
            (
                "[it](https://example.org/a.md)",
                "[it](https://example.org/a.md)",
            ),
            (
                "[wire](../wire.md#plain)",
                "wire (`docs/wire.md` in the repository)",
            ),
            (
                "[an example](../../examples/tls.rs), too",
                "an example (`examples/tls.rs` in the repository), too",
            ),
            (
                "`#[rpc(x)]` and [`f()`](errors.md)",
                "`#[rpc(x)]` and [`f()`](crate::guide::errors)",
            ),
            ("no link](", "no link]("),
        ];
        for (page, expected) in table {
            assert_eq!(rewritten(page), expected);
        }
    }
}
