//! The expansion, and the mistakes that it reports.

use quote::quote;
use syn::{DeriveInput, File, Item, LitStr, parse_quote};

use super::{attributes, expand};

/// The expansion, formatted.
fn expanded(input: &DeriveInput) -> String {
    prettyplease::unparse(&syn::parse2(expand(input)).unwrap())
}

/// The texts of the `compile_error!`s.
fn mistakes(input: &DeriveInput) -> Vec<String> {
    let file: File = syn::parse2(expand(input)).unwrap();
    let macros = file.items.iter().filter_map(|item| match item {
        Item::Macro(item) => Some(item.mac.parse_body::<LitStr>().unwrap().value()),
        _ => None,
    });
    macros.collect()
}

#[test]
fn a_struct_expands_to_a_table_and_a_list_of_functions() {
    let actual = expanded(&parse_quote! {
        /// An order.
        struct Order<T> {
            /// Its number.
            #[serde(default, alias = "no")]
            number: u64,
            items: Vec<T>,
        }
    });
    let expected = include_str!("tests/order.expanded");
    assert!(
        actual == expected,
        "write this to tests/order.expanded if it is meant to be so:\n{actual}"
    );
}

#[test]
fn a_field_has_at_most_7_lines() {
    let lines = |count: usize| {
        let names = (0..count).map(|number| quote::format_ident!("field{number}"));
        let input = parse_quote!(struct Order { #(#names: u64,)* });
        expanded(&input).lines().count()
    };
    let lines = lines(3) - lines(2);
    assert!(lines <= 7, "{lines} lines");
}

#[test]
fn the_path_of_the_crate_can_be_set() {
    for attribute in [
        quote!(crate = "renamed"),
        quote!(crate = renamed),
        quote!(named_only, crate = "renamed"),
    ] {
        let input = parse_quote!(
            #[schema(#attribute)]
            struct Order;
        );
        let text = expanded(&input);
        assert!(!text.contains("iip_rpc"), "{text}");
        assert!(text.contains("use renamed::__private::schema"), "{text}");
    }
}

#[test]
fn mistakes_are_reported_together_with_what_to_write_instead() {
    let texts = mistakes(&parse_quote! {
        #[schema(name = "x")]
        #[schema(named_only = true)]
        #[schema]
        enum Order {
            #[schema(secret)]
            A(#[schema(secret)] u8),
            B {
                #[serde(skip)]
                #[schema(hidden)]
                b: u8,
                #[schema(as = "not a type")]
                c: u8,
            },
        }
    });
    let expected = [
        "unknown setting `name`: a type takes",
        "`named_only` takes no value",
        "write a setting in parentheses",
        "unknown setting `secret`: a variant takes",
        "name the field",
        "unknown setting `hidden`: a field takes",
        "write `as = \"Type\"`",
    ];
    assert_eq!(texts.len(), expected.len(), "{texts:#?}");
    for (text, expected) in texts.iter().zip(expected) {
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_union_and_a_remote_type_are_mistakes() {
    let union_ = mistakes(&parse_quote!(
        union Both { a: u8 }
    ));
    assert!(union_[0].contains("cannot be sent"));
    let remote = mistakes(&parse_quote! {
        #[serde(remote = "Other")]
        struct Order;
    });
    assert!(remote[0].contains("#[schema(as"));
}

#[test]
fn documentation_has_the_lines_of_its_comments() {
    let input: DeriveInput = parse_quote! {
        /// One.
        ///
        ///  * indented
        ///
        #[doc(hidden)]
        /** A
        block. */
        struct Order;
    };
    let doc = attributes::doc(&input.attrs);
    assert!(doc.starts_with("One.\n\n * indented\n\nA\n"), "{doc:?}");
}
