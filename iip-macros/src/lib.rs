//! `#[service]`, `#[derive(MethodError)]` and `#[derive(Schema)]`, the macros of iip-rpc. Use them
//! through that crate, which re-exports them.
//!
//! Structure: `attr` and `model` parse the user's trait, and `types` parses the types in it.
//! `check` reports all mistakes together. `service_trait`, `client`, `description`, `server`,
//! `forward` and `dyn_twin` generate the code, which only calls the runtime. If the trait has
//! mistakes, `fallback` generates enough for the rest of the program to compile. `method_error` and
//! `schema` are the derives.

#![forbid(unsafe_code)]

mod attr;
mod case;
mod check;
mod client;
mod description;
mod docs;
mod duration;
mod dyn_twin;
mod errors;
mod fallback;
mod forward;
mod http_status;
mod method_error;
mod model;
mod page;
mod policy;
mod schema;
mod server;
mod service_trait;
#[cfg(test)]
mod tests;
mod types;

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{DeriveInput, Item, ItemTrait, spanned::Spanned};

use crate::{attr::ServiceSettings, errors::Errors, model::ServiceDef};

const NOT_A_TRAIT: &str = "`#[service]` belongs on a trait: write `trait Greeter { async fn \
                           hello(&self, name: String) -> Result<String, Status>; }`";

/// Generates a client and a server from a trait.
///
/// ```ignore
/// /// Says hello.
/// #[iip_rpc::service]
/// pub trait Greeter {
///     /// To one person.
///     async fn hello(&self, name: String) -> Result<String, Status>;
///
///     #[rpc(timeout = "500ms", idempotent)]
///     async fn count(&self, ctx: &CallContext, names: &[String]) -> Result<u64, GreetError>;
/// }
/// ```
///
/// In addition to the trait, which is implemented with `async fn`s as written, this generates
///
/// * `GreeterClient`: created by `GreeterClient::new(client)`, implements `Greeter`; each method
///   makes a call. `with_options` returns a client whose calls have more options.
/// * `GreeterServer<T>`: created by `GreeterServer::new(implementation)` or `from_arc`, to pass to
///   a server.
/// * the service for an `Arc` of an implementation, unless the trait has supertraits of its own.
///
/// Code that takes an `impl Greeter` thus works with a client, with an implementation and with a
/// mock. Every service is `Send` and `Sync`. Code that spawns its calls takes an
/// `impl Greeter + 'static`.
///
/// # The trait
///
/// The trait may have any visibility, type and constant parameters, `where` clauses, `#[cfg(..)]`,
/// `#[deprecated]` and documentation. The bounds of a type parameter must include all that a value
/// on the wire needs: `K: Serialize + DeserializeOwned + Send + Sync + 'static`. The settings of a
/// service are:
///
/// | setting | default | |
/// |---|---|---|
/// | `name = "shop.v1.Greeter"` | the name of the trait | the name in health, limits, metrics and traces; letters, digits, `_`, `-`, `.` |
/// | `path = "/greeter"` | `/` and `name`, or the trait's name in snake case | the prefix of the paths of the methods |
/// | `rename_all = "camelCase"` | the names in Rust | the case of the methods' names on the wire, as in serde |
/// | `codec = "postcard"` | the client's | the encoding of arguments and results, see below |
/// | `dyn` | off | also generate `DynGreeter`, see below |
/// | `crate = ::my_crate::iip_rpc` | `::iip_rpc` | the path of iip-rpc, for crates that re-export or rename it |
///
/// # Methods
///
/// A method is an `async fn` with `&self`, at most twelve arguments, and a `Result` whose error is
/// a `Status` or a type with `#[derive(MethodError)]`. Every future is `Send`. Arguments and
/// results have serde's `Serialize` and `Deserialize`; the codec decides which of serde's
/// attributes they may have, see below. A whole argument may be a reference (`&str`, `&[T]`, `&T`):
/// the client encodes it in place, and the server passes a reference to the decoded value. Nothing
/// inside an argument or a result can borrow, except for a `Cow<'_, T>` in an argument. A first
/// parameter `ctx: &CallContext` is not sent: a caller passes a context that it creates, and a
/// handler gets the context of the call. The settings of a method are in `#[rpc(..)]`:
///
/// | setting | |
/// |---|---|
/// | `name = "hello"` | the name on the wire, if it differs from the one in Rust; it overrides `rename_all` |
/// | `path = "/echo"` | the whole path, such as that of an existing service |
/// | `oneway` | the caller waits for no reply, so the result is `Result<(), E>`; the method runs to its end |
/// | `raw` | bodies are the unchanged bytes of the one argument and of the result, without envelope |
/// | `json` | bodies are plain JSON, without envelope |
/// | `timeout = "500ms"` | timeout of a call whose caller sets none; units `us`, `ms`, `s`, `m`, `h` |
/// | `idempotent` | running the method twice has the same effect as running once, so a call that may have run is retried |
/// | `on_cancel = "abort"` | when the caller goes away, `"abort"` (the default) drops the handler, `"token"` notifies it, `"run"` lets it end |
/// | `hedge = "20ms"` | hedging, for idempotent methods: the delay after which a second attempt starts if there is no reply; `"p95"`: once the first attempt has taken longer than 95 of 100 earlier calls |
/// | `max_concurrency = 100` | maximum number of concurrent calls of the method on a server, or `"auto"`: the server determines it; further calls are rejected |
/// | `priority = "low"` | order in which an overloaded server rejects calls: `"low"`, then `"normal"` (the default), then `"high"` |
/// | `auth = "admin"` | a label for the program's own authorization checks, such as an interceptor; nothing else enforces it |
///
/// `timeout`, `idempotent`, `hedge`, `max_concurrency` and `priority` can be changed at run time,
/// by a `MethodPolicy` of the client or the server.
///
/// # Streams
///
/// A method that replies with many messages returns a stream, and one that receives many has a
/// `Streaming<T>` as its last argument. The first error of a stream ends it.
///
/// ```ignore
/// async fn watch(&self, topic: String)
///     -> Result<impl Stream<Item = Result<Event, Status>>, Status>;
/// async fn upload(&self, name: String, chunks: Streaming<Bytes>) -> Result<u64, Status>;
/// async fn chat(&self, lines: Streaming<String>)
///     -> Result<impl Stream<Item = Result<String, Status>>, Status>;
/// ```
///
/// An implementation may return any stream, including one that borrows from `self`; a client
/// returns a `Streaming<T, E>`, which borrows nothing.
///
/// # Subscriptions
///
/// A method that returns a `Subscription<T>` sends numbered values, which a `Topic` publishes for
/// all subscribers. Its client subscribes again after its connection was lost, with the same
/// arguments and after the last value that it has received.
///
/// ```ignore
/// async fn prices(&self, article: String) -> Result<Subscription<u64>, Status>;
/// ```
///
/// Such a method takes no stream, and is not `raw`, `json` or `oneway`.
///
/// # Types recognized by name
///
/// The macro sees names, not types: it treats `CallContext`, `Streaming<T>` and `Subscription<T>`
/// as the types of iip-rpc, with or without a path. It treats a type with other parameters
/// (`Subscription` without parameters), or with a path that begins with `crate`, `self` or `super`,
/// as the program's own. If it mistakes one for the other, the compiler reports an error. Then give
/// the program's type another name (`use billing::Subscription as Plan`), and write a type of
/// iip-rpc by its plain name.
///
/// # Codecs
///
/// | `codec = ..` | feature of iip-rpc | |
/// |---|---|---|
/// | `"bincode"` | `codec-bincode`, on by default | small and fast; both sides need the same types |
/// | `"postcard"` | `codec-postcard` | like bincode, in a format with other implementations |
/// | `"msgpack"` | `codec-msgpack` | self-describing: fields may be added, any serde type works |
/// | `"json"` | | like msgpack, and readable |
/// | `"protobuf"` | `codec-prost` | messages with `prost::Message` instead of serde types |
///
/// bincode and postcard identify fields by their position: types with `flatten`, `untagged`, `tag`
/// or `skip_serializing_if`, and types that read any value, such as `serde_json::Value`, need
/// `"msgpack"` or `"json"`.
///
/// The setting overrides the codec of the client. If the server does not support the codec, the
/// client uses JSON. Regardless of the setting, callers may use any other of these codecs, and
/// plain JSON.
///
/// In a protobuf service each method takes exactly one message, `request: Request` or
/// `request: &Request`, and returns `Result<Response, E>`; `E` is as in any other method. The items
/// of its streams are messages as well; a method that takes a stream may omit the message before
/// it. Its methods cannot be called in another codec or in plain JSON: such a call is rejected as
/// UNIMPLEMENTED.
///
/// # Trait objects
///
/// A trait with `async fn`s is not `dyn`-compatible. `#[service(dyn)]` generates a second trait
/// that is: every `Greeter` implements `DynGreeter`, and `dyn DynGreeter` implements `Greeter` in
/// turn. So do references, `Arc`s and `Box`es of it and of any other `Greeter`. Their futures are
/// `Send` too, so that trait objects can be called in spawned tasks and in handlers. Each call
/// through a trait object allocates a box.
///
/// ```ignore
/// let greeters: Vec<Arc<dyn DynGreeter>> =
///     vec![Arc::new(Mine), Arc::new(GreeterClient::new(client))];
/// greeters[0].hello("world".into()).await?;
/// ```
///
/// Implement `Greeter` with plain `async fn`s; `#[async_trait]` does not work for it. `DynGreeter`
/// is a trait of [async-trait](https://docs.rs/async-trait), with methods named `dyn_hello`, so
/// `#[async_trait] impl DynGreeter for Mine` compiles as well. In the scope of a service with
/// `dyn`, `Box` must be the one of the standard library.
#[proc_macro_attribute]
pub fn service(
    args: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    expand_service(args.into(), item.into()).into()
}

/// Derives the traits that a type needs to be the error type of methods.
///
/// Calls also fail for reasons that are not the method's own: a deadline, a lost connection, a
/// panic. Such a failure is a `Status`, and the variant with `#[status]` holds it.
///
/// ```ignore
/// #[derive(Debug, thiserror::Error, Serialize, Deserialize, iip_rpc::MethodError)]
/// pub enum GreetError {
///     #[error("name is empty")]
///     EmptyName,
///     #[error(transparent)]
///     #[status]
///     Rpc(Status),
/// }
/// ```
///
/// This implements `MethodError` and `From<Status>`, the latter unless the field has thiserror's
/// `#[from]`, which also implements it. A struct with one field, the status, needs no
/// `#[status]`.
///
/// `#[rpc(http = 422)]` on another variant sets the status with which a gateway replies over HTTP
/// if a method fails with it, from 400 to 599. Default: 500.
///
/// `#[status(crate = ::my_crate::iip_rpc)]` on the whole type sets the path of iip-rpc, for crates
/// that re-export or rename it.
#[proc_macro_derive(MethodError, attributes(status, rpc))]
pub fn derive_method_error(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    method_error::expand(&input).into()
}

/// Describes a type from its fields and the attributes of serde, for the description of a service.
///
/// With this, peers and tools know the names of fields and their types, their documentation, and
/// whether two builds of a program understand each other. It is meant for types that derive serde's
/// `Serialize` and `Deserialize`, and it reads their attributes. It does not change what is sent.
///
/// ```
/// # use iip_macros::Schema;
/// # mod as_text {
/// #     use serde::{Deserialize, Deserializer, Serializer, de::Error};
/// #     pub fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
/// #         to.collect_str(number)
/// #     }
/// #     pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<u64, D::Error> {
/// #         String::deserialize(from)?.parse().map_err(D::Error::custom)
/// #     }
/// # }
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Schema)]
/// # #[schema(crate = "iip_schema")]
/// pub struct Item {
///     pub article: String,
/// }
///
/// /// An order of a customer.
/// #[derive(Serialize, Deserialize, Schema)]
/// #[serde(rename_all = "camelCase")]
/// # #[schema(crate = "iip_schema")]
/// pub struct Order {
///     /// The number on the invoice.
///     pub order_number: u64,
///     #[serde(default)]
///     pub items: Vec<Item>,
///     #[schema(secret)]
///     pub card: String,
///     #[serde(with = "as_text")]
///     #[schema(as = "String")]
///     pub total: u64,
/// }
/// # let mut registry = iip_schema::Registry::new();
/// # let order = <Order as iip_schema::Schema>::describe(&mut registry);
/// # assert!(registry.get(&order).is_some());
/// ```
///
/// Fields may have any type. A type without `Schema` is described by how it is deserialized, or
/// else by its name alone. A type argument of a generic type must implement `Schema`. Types that
/// borrow are described for `'static`.
///
/// # Settings
///
/// | setting | on | |
/// |---|---|---|
/// | `secret` | a named field | tools do not show or record the value |
/// | `as = "Type"` | a field, a variant or a type | the type that is written instead, which has `Schema` or is described as fields are; needed for serde's `with`, `serialize_with` and `deserialize_with`, without which the field is described by the name of its type alone |
/// | `named_only` | a type | states that it is intended that the type needs a codec with names |
/// | `crate = "iip_schema"` | a type | the path of iip-rpc or of iip-schema, for crates that re-export or rename it, or that depend on iip-schema alone |
///
/// # Attributes of serde
///
/// All are supported except for `remote`, which describes another type. With `into`, the type is
/// described as the one that it is converted into. `from` and `try_from` alone change nothing, as
/// the fields are what is written. With `transparent`, the type is described as its field.
///
/// # Codecs without names
///
/// bincode and postcard write no names, so these attributes prevent their use: `flatten`,
/// `skip_serializing_if`, `untagged`, `tag`, `skip_serializing` or `skip_deserializing` of a field
/// alone, and `skip` of a variant that others follow. The constant `NAMED_ONLY` names the first of
/// them.
///
/// A service in such a codec finds them at compile time in its types, and in types nested in these:
/// at any depth by value, and within at most two containers such as `Vec` and `Box`. It does not
/// look into types that have no `Schema`, into types with `named_only`, and further down. What is
/// not found at compile time is rejected when a value is sent or received.
#[proc_macro_derive(Schema, attributes(schema, serde))]
pub fn derive_schema(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    schema::expand(&input).into()
}

fn expand_service(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let settings = ServiceSettings::parse(args, &mut errors);
    let Some(parsed) = parse_trait(&item, &mut errors) else {
        let errors = errors.into_tokens();
        return quote!(#errors #item);
    };
    let def = ServiceDef::new(&parsed, settings, &mut errors);
    check::service(&def, &mut errors);
    if !errors.is_empty() {
        let errors = errors.into_tokens();
        let fallback = fallback::expand(def);
        return quote!(#errors #fallback);
    }
    let trait_ = service_trait::expand(&parsed, def.settings.dyn_twin.is_some());
    let (client, server) = (client::item(&def), server::item(&def));
    let client_impls = client::own_impls(&def);
    let service_impl = client::service_impl(&def, &client::methods(&def));
    let server_impls = server::impls(&def);
    let pointer_impls = forward::pointer_impls(&def, &forward::pointer_methods(&def));
    let impls = quote!(#client_impls #service_impl #server_impls #pointer_impls);
    let impls = def.hygienic_block(impls);
    let twin = def.settings.dyn_twin.as_ref().map(|_| {
        let item = dyn_twin::item(&def);
        let blanket = dyn_twin::blanket_impl(&def);
        let object = dyn_twin::object_impl(&def, &dyn_twin::object_methods(&def));
        let impls = def.hygienic_block(quote!(#blanket #object));
        quote!(#item #impls)
    });
    quote!(#trait_ #client #server #impls #twin)
}

/// Reads a page of the guide, by its path from the crate that is documented: only for the
/// documentation of `iip-rpc`.
#[doc(hidden)]
#[proc_macro]
pub fn __guide_page(path: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let page = syn::parse::<syn::LitStr>(path).and_then(|path| {
        let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
        let file = std::path::Path::new(&root).join(path.value());
        page::read(&file).map_err(|error| syn::Error::new(path.span(), error))
    });
    match page {
        Ok(page) => quote!(#page).into(),
        Err(error) => error.into_compile_error().into(),
    }
}

/// Returns the span of the keyword of an item.
fn keyword(item: &Item) -> Span {
    match item {
        Item::Enum(item) => item.enum_token.span,
        Item::Fn(item) => item.sig.fn_token.span,
        Item::Impl(item) => item.impl_token.span,
        Item::Mod(item) => item.mod_token.span,
        Item::Struct(item) => item.struct_token.span,
        item => item.span(),
    }
}

fn parse_trait(item: &TokenStream, errors: &mut Errors) -> Option<ItemTrait> {
    match syn::parse2::<Item>(item.clone()) {
        Ok(Item::Trait(item)) => return Some(item),
        Ok(other) => errors.at_span(keyword(&other), NOT_A_TRAIT),
        Err(error) => errors.push(error),
    }
    None
}
