//! The expansion as a whole.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, parse_quote};

use crate::{expand_service, method_error, service_trait};

/// The expansion, formatted.
fn expanded(args: TokenStream, item: TokenStream) -> String {
    let tokens = expand_service(args, item);
    prettyplease::unparse(&syn::parse2(tokens).unwrap())
}

fn lines(item: TokenStream) -> usize {
    expanded(quote!(), item).lines().count()
}

/// A service with `count` methods, each with an argument.
fn service_with(count: usize) -> TokenStream {
    let names = (0..count).map(|number| quote::format_ident!("hello{number}"));
    quote! {
        pub trait Greeter {
            #(async fn #names(&self, name: String) -> Result<String, Status>;)*
        }
    }
}

/// The texts of the `compile_error!`s in an expansion.
fn mistakes(tokens: TokenStream) -> Vec<String> {
    let file: syn::File = syn::parse2(tokens).unwrap();
    let macros = file.items.iter().filter_map(|item| match item {
        syn::Item::Macro(item) => Some(item.mac.parse_body::<syn::LitStr>().unwrap().value()),
        _ => None,
    });
    macros.collect()
}

#[test]
fn a_service_expands_to_the_code_that_a_programmer_would_write() {
    let actual = expanded(
        quote!(),
        quote! {
            /// Says hello.
            pub trait Greeter {
                /// To one.
                async fn hello(&self, name: String) -> Result<String, Status>;
                #[rpc(path = "/echo", raw, timeout = "1500ms", idempotent)]
                async fn echo(&self, ctx: &CallContext, body: &[u8]) -> Result<Bytes, Status>;
            }
        },
    );
    let expected = include_str!("tests/greeter.expanded");
    assert!(
        actual == expected,
        "write this to tests/greeter.expanded if it is meant to be so:\n{actual}"
    );
}

#[test]
fn a_service_has_at_most_115_lines() {
    let lines = lines(service_with(1));
    assert!(lines <= 115, "{lines} lines");
}

/// The declaration in the trait does not count: the user wrote it.
#[test]
fn a_unary_method_has_at_most_35_lines() {
    let declaration = |count| {
        let item = syn::parse2(service_with(count)).unwrap();
        let trait_ = service_trait::expand(&item, false);
        prettyplease::unparse(&syn::parse2(trait_).unwrap())
            .lines()
            .count()
    };
    let all = lines(service_with(2)) - lines(service_with(1));
    let lines = all - (declaration(2) - declaration(1));
    assert!(lines <= 35, "{lines} lines");
}

#[test]
fn the_policies_of_a_method_are_in_its_descriptor() {
    let text = expanded(
        quote!(),
        quote! {
            trait Greeter {
                #[rpc(idempotent, hedge = "20ms", priority = "low")]
                #[rpc(max_concurrency = 8, auth = "admin")]
                async fn hello(&self) -> Result<(), Status>;
                #[rpc(idempotent, hedge = "p95", max_concurrency = "auto")]
                async fn bye(&self) -> Result<(), Status>;
            }
        },
    );
    for setting in [
        ".hedge(__rpc::Hedge::After(__rpc::Duration::from_millis(20u64)))",
        ".priority(__rpc::Priority::Low)",
        ".max_concurrency(__rpc::Concurrency::AtMost(8u32))",
        ".auth(\"admin\")",
        ".hedge(__rpc::Hedge::Percentile(95u8))",
        ".max_concurrency(__rpc::Concurrency::Auto)",
    ] {
        assert!(text.contains(setting), "{setting} in {text}");
    }
}

#[test]
fn no_path_of_the_default_crate_is_left_where_another_is_given() {
    let service = quote!(
        trait Greeter<K> {
            async fn hello(&self, key: &[K]) -> Result<(), Status>;
        }
    );
    assert!(expanded(quote!(dyn), service.clone()).contains("::iip_rpc"));
    assert!(!expanded(quote!(dyn, crate = ::renamed), service).contains("iip_rpc"));
    let error: DeriveInput = parse_quote! {
        #[status(crate = ::renamed)]
        struct Wrapped(Status);
    };
    assert!(!method_error::expand(&error).to_string().contains("iip_rpc"));
}

#[test]
fn a_condition_on_a_method_is_copied_to_everything_generated_from_it() {
    let text = expanded(
        quote!(dyn),
        quote! {
            trait Greeter {
                #[cfg(feature = "x")]
                async fn hello(&self, missing: Missing) -> Result<(), Status>;
                #[cfg_attr(docsrs, cfg(docsrs))]
                async fn bye(&self) -> Result<(), Status>;
            }
        },
    );
    // Trait, check of the codec, descriptor, description, client, server; the twin, and the service for the twin, for references,
    // for `Arc` and for `Box`.
    assert_eq!(text.matches("#[cfg(feature = \"x\")]").count(), 12);
    assert_eq!(text.matches("#[cfg_attr(docsrs, cfg(docsrs))]").count(), 12);
}

#[test]
fn generated_code_raises_no_lint_that_the_user_allows() {
    let text = |attr: TokenStream| {
        expanded(
            quote!(),
            quote!(trait Greeter { #attr async fn hello(&self) -> Result<(), Status>; }),
        )
    };
    assert!(!text(quote!()).contains("#[allow"));
    // On each of eight `impl`s, and where the user wrote it.
    let count = |attr, allowed| text(attr).matches(allowed).count();
    assert_eq!(count(quote!(#[deprecated]), "#[allow(deprecated)]"), 8);
    assert_eq!(
        count(
            quote!(#[cfg_attr(all(), deprecated = "old")]),
            "#[allow(deprecated)]"
        ),
        8
    );
    assert_eq!(
        count(quote!(#[allow(non_snake_case)]), "#[allow(non_snake_case)]"),
        9
    );
    assert_eq!(
        count(
            quote!(#[expect(non_snake_case)]),
            "#[allow(non_snake_case)]"
        ),
        8
    );
}

#[test]
fn attributes_that_only_the_declaration_takes_stay_there() {
    let text = expanded(
        quote!(),
        quote! {
            #[diagnostic::on_unimplemented(note = "x")]
            trait Greeter {
                #[must_use]
                #[rpc(idempotent)]
                async fn hello(&self) -> Result<(), Status>;
            }
        },
    );
    assert_eq!(text.matches("on_unimplemented").count(), 1);
    // `with_options` has one of its own.
    assert_eq!(text.matches("#[must_use]").count(), 2);
    assert!(!text.contains("#[rpc"));
}

#[test]
fn a_service_without_a_name_has_the_paths_that_it_has_always_had() {
    let service = quote!(
        trait KeyValue {
            async fn get_all(&self) -> Result<(), Status>;
            #[rpc(name = "putOne")]
            async fn put(&self) -> Result<(), Status>;
            #[rpc(path = "/old/del")]
            async fn delete(&self) -> Result<(), Status>;
        }
    );
    let descriptors = |args| {
        let text = expanded(args, service.clone());
        let descriptors = text.split("MethodDescriptor::new(").skip(1);
        let strings = descriptors.map(|text| {
            let strings: Vec<_> = text.split('"').skip(1).step_by(2).take(3).collect();
            strings.join(" ")
        });
        strings.collect::<Vec<_>>()
    };
    assert_eq!(
        descriptors(quote!()),
        [
            "KeyValue get_all /key_value/get_all",
            "KeyValue putOne /key_value/putOne",
            "KeyValue delete /old/del",
        ]
    );
    assert_eq!(
        descriptors(quote!(path = "/kv")),
        [
            "KeyValue get_all /kv/get_all",
            "KeyValue putOne /kv/putOne",
            "KeyValue delete /old/del",
        ]
    );
    assert_eq!(
        descriptors(quote!(name = "shop.v1.KeyValue", rename_all = "PascalCase")),
        [
            "shop.v1.KeyValue GetAll /shop.v1.KeyValue/GetAll",
            "shop.v1.KeyValue putOne /shop.v1.KeyValue/putOne",
            "shop.v1.KeyValue Delete /old/del",
        ]
    );
    assert_eq!(
        descriptors(quote!(name = "shop.v1.KeyValue", path = "/key_value")),
        [
            "shop.v1.KeyValue get_all /key_value/get_all",
            "shop.v1.KeyValue putOne /key_value/putOne",
            "shop.v1.KeyValue delete /old/del",
        ]
    );
}

#[test]
fn raw_identifiers_are_plain_names_on_the_wire() {
    let text = expanded(
        quote!(),
        quote!(
            trait r#Try {
                async fn r#type(&self, r#match: u8) -> Result<(), Status>;
            }
        ),
    );
    assert!(text.contains(
        r#"const TYPE: &'static __rpc::MethodDescriptor = &__rpc::MethodDescriptor::new("#
    ));
    for name in [r#""Try""#, r#""type""#, r#""/try/type""#, r#"&["match"]"#] {
        assert!(text.contains(name), "{name}");
    }
}

#[test]
fn every_mistake_is_reported_and_the_rest_is_emitted() {
    let tokens = expand_service(
        quote!(path = "greeter"),
        quote! {
            trait Greeter {
                const X: u8;
                fn hello(&mut self, (a, b): (u8, u8)) -> String;
                #[rpc(timeout = "soon")]
                async fn bye<T>(self) -> Result<(), Status>;
            }
        },
    );
    let mistakes = mistakes(tokens.clone());
    assert_eq!(mistakes.len(), 9, "{mistakes:#?}");
    let text = tokens.to_string();
    for item in [
        "trait Greeter",
        "struct GreeterClient",
        "struct GreeterServer",
    ] {
        assert!(text.contains(item), "{item}");
    }
}

#[test]
fn messages_start_in_lower_case_and_end_without_a_full_stop() {
    let sources = [
        include_str!("attr.rs"),
        include_str!("check/arguments.rs"),
        include_str!("check/mod.rs"),
        include_str!("check/replies.rs"),
        include_str!("check/settings.rs"),
        include_str!("duration.rs"),
        include_str!("lib.rs"),
        include_str!("method_error.rs"),
        include_str!("policy.rs"),
    ];
    // Every text that is passed to `Errors::at` in a literal: the second argument, on this line or
    // on the next.
    let mut seen = 0;
    for text in sources
        .iter()
        .flat_map(|source| source.split("errors.at").skip(1))
    {
        let Some(text) = text.split('"').nth(1) else {
            continue;
        };
        seen += 1;
        assert!(!text.starts_with(|c: char| c.is_uppercase()), "{text}");
        assert!(!text.ends_with('.'), "{text}");
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn an_item_that_is_not_a_trait_is_emitted_unchanged() {
    for item in [
        quote!(
            struct Greeter;
        ),
        quote!(
            fn hello() {}
        ),
        quote!(impl Greeter {}),
        quote!(
            mod greeter {}
        ),
    ] {
        let tokens = expand_service(quote!(), item.clone());
        assert!(tokens.to_string().ends_with(&item.to_string()));
        assert_eq!(mistakes(tokens).len(), 1);
    }
}
