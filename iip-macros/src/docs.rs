//! Documentation and deprecation, as the user wrote them.

use syn::{Attribute, Expr, ExprLit, Lit, Meta};

/// Returns the documentation: the lines of all `#[doc = ".."]`, without the space that `///` has
/// before each.
pub(crate) fn doc(attrs: &[Attribute]) -> String {
    let docs = attrs.iter().filter(|attr| attr.path().is_ident("doc"));
    let texts = docs.filter_map(|attr| match &attr.meta {
        Meta::NameValue(doc) => text(&doc.value),
        _ => None,
    });
    let lines: Vec<_> = texts
        .flat_map(|text| {
            let lines = text
                .lines()
                .map(|line| line.strip_prefix(' ').unwrap_or(line));
            let mut lines: Vec<_> = lines.map(str::to_owned).collect();
            if lines.is_empty() {
                lines.push(String::new());
            }
            lines
        })
        .collect();
    lines.join("\n").trim().to_owned()
}

/// Returns the note of `#[deprecated]`, which is empty if it has none; `None` without it.
pub(crate) fn deprecated(attrs: &[Attribute]) -> Option<String> {
    let attr = attrs
        .iter()
        .find(|attr| attr.path().is_ident("deprecated"))?;
    let mut note = String::new();
    match &attr.meta {
        Meta::Path(_) => {}
        Meta::NameValue(value) => note = text(&value.value).unwrap_or_default(),
        // The compiler reports what is wrong in it.
        Meta::List(_) => drop(attr.parse_nested_meta(|meta| {
            let value: Lit = meta.value()?.parse()?;
            if let (true, Lit::Str(value)) = (meta.path.is_ident("note"), value) {
                note = value.value();
            }
            Ok(())
        })),
    }
    Some(note)
}

fn text(value: &Expr) -> Option<String> {
    match value {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => Some(text.value()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use syn::{ItemStruct, parse_quote};

    use super::*;

    #[test]
    fn documentation_is_what_its_author_wrote() {
        let item: ItemStruct = parse_quote! {
            /// One line.
            ///
            ///   indented
            #[doc = "two\n lines"]
            struct S;
        };
        assert_eq!(doc(&item.attrs), "One line.\n\n  indented\ntwo\nlines");
        assert_eq!(deprecated(&item.attrs), None);
    }

    #[test]
    fn a_deprecation_has_its_note() {
        let bare: ItemStruct = parse_quote!(
            #[deprecated]
            struct S;
        );
        let short: ItemStruct = parse_quote!(
            #[deprecated = "use T"]
            struct S;
        );
        let long: ItemStruct = parse_quote!(
            #[deprecated(since = "1", note = "use U")]
            struct S;
        );
        assert_eq!(deprecated(&bare.attrs).as_deref(), Some(""));
        assert_eq!(deprecated(&short.attrs).as_deref(), Some("use T"));
        assert_eq!(deprecated(&long.attrs).as_deref(), Some("use U"));
    }
}
