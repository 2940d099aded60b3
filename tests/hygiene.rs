//! Code emitted by `#[service]` and the derives compiles wherever it is used: without
//! a prelude, with types that are named like those of the standard library, under another name of
//! the crate, inside macros and functions, and under strict lints.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![deny(
    warnings,
    unused,
    deprecated,
    missing_docs,
    missing_debug_implementations,
    elided_lifetimes_in_paths
)]

use std::borrow::Cow;
use std::sync::Arc;

use iip_rpc::schema::check_derived;
use iip_rpc::{CallContext, CallOptions, Client, Code, MethodError, Server, Service, Status};

/// A client of a separate server of this service.
async fn connected(service: impl Service + Send + 'static) -> Client {
    let server = Server::builder()
        .service(service)
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    Client::connect(server.local_addr().unwrap().to_string())
        .await
        .unwrap()
}

pub mod bare {
    //! Services in a module that has no prelude.
    #![no_implicit_prelude]

    use ::core::{
        marker::{Send, Sized, Sync},
        option::Option,
        primitive::{str, u8, u32, u64, usize},
        result::Result::{self, Ok},
    };
    use ::iip_rpc::{CallContext, Status};
    use ::serde::{Deserialize, Serialize, de::DeserializeOwned};
    // `Box` for async-trait, which makes trait objects and expects it to be in the prelude.
    use ::std::{borrow::Cow, boxed::Box, format, string::String, vec::Vec};

    /// Arguments of every kind, and names that generated code could use itself.
    #[::iip_rpc::service]
    pub trait Plain {
        /// No argument.
        async fn nothing(&self) -> Result<(), Status>;
        /// Names that could hide those of generated code.
        async fn names(
            &self,
            service: String,
            ctx: u8,
            into: u8,
            client: u8,
            args: u8,
        ) -> Result<String, Status>;
        /// References, several of them.
        async fn lent(
            &self,
            text: &str,
            bytes: &[u8],
            numbers: &[u32],
            pair: &(u8, u8),
        ) -> Result<usize, Status>;
        /// A type that borrows on one side and owns on the other.
        async fn cow(&self, text: Cow<'_, str>) -> Result<usize, Status>;
        /// Raw identifiers.
        async fn r#type(&self, r#match: u32) -> Result<u32, Status>;
        /// The context of the call.
        async fn context(&self, context: &CallContext, add: u32) -> Result<u32, Status>;
        /// Old.
        #[deprecated = "use `nothing`"]
        async fn old(&self) -> Result<u32, Status>;
        /// Never built.
        #[cfg(any())]
        async fn absent(&self, missing: Missing) -> Result<Missing, Missing>;
        /// One of two.
        #[cfg(test)]
        #[rpc(path = "/plain/either")]
        async fn either(&self) -> Result<u8, Status>;
        /// The other of the two.
        #[cfg(not(test))]
        #[rpc(path = "/plain/either")]
        async fn either(&self) -> Result<Missing, Status>;
    }

    /// Also as a trait object.
    #[::iip_rpc::service(dyn)]
    pub trait Shape {
        /// Old, with references and a context.
        #[deprecated]
        async fn area(
            &self,
            ctx: &CallContext,
            sides: &[u32],
            unit: &str,
        ) -> Result<String, Status>;
        /// Without arguments.
        async fn corners(&self) -> Result<u32, Status>;
        /// With a lifetime inside.
        async fn named(&self, name: Cow<'_, str>, r#as: &str) -> Result<String, Status>;
        /// In another style.
        #[expect(non_snake_case)]
        async fn inCamelCase(&self, firstName: &str) -> Result<String, Status>;
        /// Never built.
        #[cfg(any())]
        async fn absent(&self, missing: Missing) -> Result<Missing, Missing>;
    }

    /// With its own codec.
    #[::iip_rpc::service(codec = "postcard")]
    pub trait Packed {
        /// Adds.
        async fn add(&self, left: u32, right: u32) -> Result<u32, Status>;
    }

    /// With messages instead of serde types.
    #[::iip_rpc::service(codec = "protobuf", dyn)]
    pub trait Messages {
        /// Lent.
        async fn lent(&self, request: &u32) -> Result<String, Status>;
        /// Given, with a context.
        async fn given(&self, ctx: &CallContext, request: String) -> Result<u32, Status>;
    }

    /// Parameters with bounds, conditions and defaults.
    #[::iip_rpc::service(dyn)]
    pub trait Store<K, V = String, const N: usize = 2>
    where
        K: Serialize + DeserializeOwned + Send + Sync + 'static,
        V: Serialize + DeserializeOwned + Send + 'static,
        Self: Send,
    {
        /// By reference.
        async fn get(&self, key: &K) -> Result<V, Status>;
        /// By value.
        async fn put(&self, keys: Vec<K>, value: V) -> Result<usize, Status>;
    }

    /// Bounds in the list of the parameters.
    #[::iip_rpc::service]
    pub trait List<V: Serialize + DeserializeOwned + Send + Sync + 'static>: Sized {
        /// By value and by reference.
        async fn push(&self, value: V, after: &V) -> Result<V, Status>;
    }

    /// An implementation of all of them.
    #[derive(::core::fmt::Debug)]
    pub struct Mine;

    impl Plain for Mine {
        async fn nothing(&self) -> Result<(), Status> {
            Ok(())
        }
        async fn names(
            &self,
            service: String,
            ctx: u8,
            into: u8,
            client: u8,
            args: u8,
        ) -> Result<String, Status> {
            Ok(format!("{service}{ctx}{into}{client}{args}"))
        }
        async fn lent(
            &self,
            text: &str,
            bytes: &[u8],
            numbers: &[u32],
            pair: &(u8, u8),
        ) -> Result<usize, Status> {
            Ok(text.len() + bytes.len() + numbers.len() + pair.1 as usize)
        }
        async fn cow(&self, text: Cow<'_, str>) -> Result<usize, Status> {
            Ok(text.len())
        }
        async fn r#type(&self, r#match: u32) -> Result<u32, Status> {
            Ok(r#match)
        }
        async fn context(&self, _context: &CallContext, add: u32) -> Result<u32, Status> {
            Ok(add + 1)
        }
        async fn old(&self) -> Result<u32, Status> {
            Ok(9)
        }
        async fn either(&self) -> Result<u8, Status> {
            Ok(8)
        }
    }

    impl Shape for Mine {
        async fn area(
            &self,
            _ctx: &CallContext,
            sides: &[u32],
            unit: &str,
        ) -> Result<String, Status> {
            Ok(format!("{}{unit}", sides[0] * sides[1]))
        }
        async fn corners(&self) -> Result<u32, Status> {
            Ok(4)
        }
        async fn inCamelCase(&self, first_name: &str) -> Result<String, Status> {
            Ok(format!("{first_name}!"))
        }
        async fn named(&self, name: Cow<'_, str>, r#as: &str) -> Result<String, Status> {
            Ok(format!("{name} as {}", r#as))
        }
    }

    impl Store<u32> for Mine {
        async fn get(&self, key: &u32) -> Result<String, Status> {
            Ok(format!("{key}"))
        }
        async fn put(&self, keys: Vec<u32>, value: String) -> Result<usize, Status> {
            Ok(keys.len() + value.len())
        }
    }

    impl List<u64> for Mine {
        async fn push(&self, value: u64, after: &u64) -> Result<u64, Status> {
            Ok(value + *after)
        }
    }

    /// A struct around a status.
    #[derive(
        ::core::fmt::Debug,
        ::thiserror::Error,
        Serialize,
        Deserialize,
        ::iip_rpc::MethodError,
        ::iip_rpc::Schema,
    )]
    #[error("refused: {0}")]
    pub struct Wrapped(pub Status);

    /// A struct around a status in a box.
    #[derive(
        ::core::fmt::Debug,
        ::thiserror::Error,
        Serialize,
        Deserialize,
        ::iip_rpc::MethodError,
        ::iip_rpc::Schema,
    )]
    #[error("refused: {0}")]
    pub struct Boxed(pub Box<Status>);

    /// The same with a conversion by thiserror, which is one from the box.
    #[derive(
        ::core::fmt::Debug,
        ::thiserror::Error,
        Serialize,
        Deserialize,
        ::iip_rpc::MethodError,
        ::iip_rpc::Schema,
    )]
    #[error(transparent)]
    pub struct BoxedFrom(#[from] pub Box<Status>);

    /// An enum with one variant, and the mark on its field.
    #[derive(
        ::core::fmt::Debug,
        ::thiserror::Error,
        Serialize,
        Deserialize,
        ::iip_rpc::MethodError,
        ::iip_rpc::Schema,
    )]
    pub enum Only {
        /// The one variant.
        #[error("refused: {cause}")]
        Rpc {
            /// Its field.
            #[status]
            cause: Status,
        },
    }

    /// A generic enum, for which thiserror makes the conversion.
    #[derive(
        ::core::fmt::Debug,
        ::thiserror::Error,
        Serialize,
        Deserialize,
        ::iip_rpc::MethodError,
        ::iip_rpc::Schema,
    )]
    #[serde(bound = "")]
    pub enum Converted<T>
    where
        T: ::core::fmt::Debug
            + ::core::fmt::Display
            + Send
            + Sync
            + Serialize
            + DeserializeOwned
            + 'static,
    {
        /// The application's.
        #[error("own: {0}")]
        Own(T),
        /// The framework's.
        #[error(transparent)]
        #[status]
        Rpc(#[from] Status),
    }

    /// Returns `true` if there is a status in an error.
    pub fn has_status<E: ::iip_rpc::MethodError>(error: &E) -> ::core::primitive::bool {
        Option::is_some(&error.as_status())
    }
}

#[tokio::test]
async fn a_service_in_a_module_without_prelude_is_called() {
    use bare::{Mine, Plain, PlainClient, PlainServer};
    let plain = PlainClient::new(connected(PlainServer::new(Mine)).await);
    plain.nothing().await.unwrap();
    assert_eq!(plain.names("s".into(), 1, 2, 3, 4).await.unwrap(), "s1234");
    assert_eq!(plain.lent("ab", &[1], &[2, 3], &(0, 4)).await.unwrap(), 9);
    assert_eq!(plain.cow(Cow::Borrowed("four")).await.unwrap(), 4);
    assert_eq!(plain.context(&CallContext::new(), 1).await.unwrap(), 2);
    assert_eq!(plain.r#type(7).await.unwrap(), 7);
    assert_eq!(plain.either().await.unwrap(), 8);
    #[expect(deprecated)]
    let old = plain.old().await.unwrap();
    assert_eq!(old, 9);
}

#[tokio::test]
async fn a_generic_service_is_called_with_the_types_of_its_implementation() {
    use bare::{DynStore, List, ListClient, ListServer, Mine, Store, StoreClient, StoreServer};
    let store: StoreClient<u32> = StoreClient::new(connected(StoreServer::new(Mine)).await);
    assert_eq!(store.get(&5).await.unwrap(), "5");
    assert_eq!(store.clone().put(vec![1], "ab".into()).await.unwrap(), 3);
    let object: Arc<dyn DynStore<u32>> = Arc::new(store);
    assert_eq!(object.get(&5).await.unwrap(), "5");
    let list = ListClient::new(connected(ListServer::new(Mine)).await);
    assert_eq!(list.push(1, &2).await.unwrap(), 3);
}

#[tokio::test]
async fn a_trait_object_of_a_service_is_that_service() {
    use bare::{DynShape, Mine, Shape, ShapeClient, ShapeServer};
    let remote = ShapeClient::new(connected(ShapeServer::new(Mine)).await);
    let shapes: [Arc<dyn DynShape>; 2] = [Arc::new(Mine), Arc::new(remote)];
    for shape in &shapes {
        assert_eq!(shape.inCamelCase("a").await.unwrap(), "a!");
        // Unambiguous, although both traits are in scope.
        assert_eq!(shape.corners().await.unwrap(), 4);
        assert_eq!(shape.named("a".into(), "b").await.unwrap(), "a as b");
    }
    let [_, shape] = shapes;
    let relay = ShapeClient::new(connected(ShapeServer::new(shape)).await);
    let boxed: Box<dyn DynShape> = Box::new(relay);
    assert_eq!(corners_in_a_task(boxed).await, 4);
}

/// Code that knows only the trait can spawn its calls: they are `Send`.
async fn corners_in_a_task(shape: impl bare::Shape + 'static) -> u32 {
    tokio::spawn(async move { shape.corners().await })
        .await
        .unwrap()
        .unwrap()
}

#[test]
fn the_status_in_an_error_is_found() {
    let own: bare::Converted<u32> = bare::Converted::Own(1);
    assert!(!bare::has_status(&own));
    fn keeps_a_status<E: MethodError>() -> bool {
        bare::has_status(&E::from(Status::new(Code::NotFound, "gone")))
    }
    assert!(keeps_a_status::<bare::Wrapped>());
    assert!(keeps_a_status::<bare::Boxed>());
    assert!(keeps_a_status::<bare::BoxedFrom>());
    assert!(keeps_a_status::<bare::Only>());
    assert!(keeps_a_status::<bare::Converted<u32>>());
}

pub mod hostile_names {
    //! Items with the names of everything that generated code uses, except `Box`: async-trait,
    //! which makes trait objects, uses whatever has that name.
    #![allow(dead_code, missing_docs, missing_debug_implementations)]

    pub struct Arc;
    pub struct Bytes;
    pub struct CallContext;
    pub struct Client;
    pub struct Duration;
    pub struct Methods;
    pub struct Option;
    pub struct PhantomData;
    pub struct Pin;
    pub struct Status;
    pub struct String;
    pub struct Vec;
    pub trait Clone {}
    pub trait Debug {}
    pub trait From {}
    pub trait Future {}
    pub trait Send {}
    pub trait Service {}
    pub trait Sync {}
    pub mod bytes {}
    pub mod core {}
    pub mod fmt {}
    pub mod iip_rpc {}
    pub mod std {}
    pub fn drop() {}
    #[derive(
        ::core::clone::Clone,
        ::core::fmt::Debug,
        ::serde::Serialize,
        ::serde::Deserialize,
        ::iip_rpc::Schema,
    )]
    pub struct T(pub u8);
    pub const HELLO: usize = 3;

    #[::iip_rpc::service(dyn)]
    pub trait Hello {
        #[rpc(timeout = "5s", idempotent, on_cancel = "token")]
        async fn hello(&self, t: T, name: &str, sized: [T; HELLO]) -> Result<T, ::iip_rpc::Status>;
        #[rpc(path = "/echo", raw)]
        async fn echo(&self, body: &[u8]) -> Result<::std::vec::Vec<u8>, ::iip_rpc::Status>;
        #[rpc(path = "/own", raw)]
        async fn own(&self, body: ::std::vec::Vec<u8>)
        -> Result<::bytes::Bytes, ::iip_rpc::Status>;
        #[rpc(path = "/lent", raw)]
        async fn lent(&self, body: &::bytes::Bytes) -> Result<::bytes::Bytes, ::iip_rpc::Status>;
    }

    pub struct Mine;

    impl Hello for Mine {
        async fn hello(&self, t: T, name: &str, sized: [T; HELLO]) -> Result<T, ::iip_rpc::Status> {
            Ok(T(t.0 + sized[2].0 + u8::from(name.is_empty())))
        }
        async fn echo(&self, body: &[u8]) -> Result<::std::vec::Vec<u8>, ::iip_rpc::Status> {
            Ok(body.to_vec())
        }
        async fn own(
            &self,
            body: ::std::vec::Vec<u8>,
        ) -> Result<::bytes::Bytes, ::iip_rpc::Status> {
            Ok(body.into())
        }
        async fn lent(&self, body: &::bytes::Bytes) -> Result<::bytes::Bytes, ::iip_rpc::Status> {
            Ok(body.slice(1..))
        }
    }
}

#[tokio::test]
async fn types_named_like_those_of_the_standard_library_are_the_users() {
    use hostile_names::{Hello, HelloClient, HelloServer, Mine, T};
    let client = HelloClient::new(connected(HelloServer::new(Mine)).await);
    assert_eq!(
        client.hello(T(1), "", [T(2), T(3), T(4)]).await.unwrap().0,
        6
    );
    assert_eq!(client.echo(&[1, 2]).await.unwrap(), [1, 2]);
    assert_eq!(client.own(vec![1, 2]).await.unwrap(), [1, 2][..]);
    assert_eq!(client.lent(&vec![1, 2].into()).await.unwrap(), [2][..]);
}

pub mod a_box_of_its_own {
    //! Without trait objects, `Box` may be the user's too.
    #![allow(dead_code, missing_docs, missing_debug_implementations)]

    pub mod diagnostic {}
    pub struct Box;

    #[iip_rpc::service]
    pub trait Hello {
        async fn hello(&self) -> Result<u8, iip_rpc::Status>;
    }

    impl Hello for Box {
        async fn hello(&self) -> Result<u8, iip_rpc::Status> {
            Ok(1)
        }
    }
}

#[tokio::test]
async fn a_service_without_trait_objects_leaves_box_to_the_user() {
    use a_box_of_its_own::{Box, Hello, HelloClient, HelloServer};
    let client = HelloClient::new(connected(HelloServer::new(Box)).await);
    assert_eq!(client.hello().await.unwrap(), 1);
}

pub mod names_of_the_runtime {
    //! Types of the user with the names of types that `#[service]` knows.
    #![allow(missing_docs, unused_qualifications)]

    use iip_rpc::{Schema, Status, service};
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize, Schema)]
    pub struct Subscription {
        pub plan: String,
    }

    #[derive(Debug, Clone, Serialize, Deserialize, Schema)]
    pub struct Path(pub String);

    pub mod generic {
        //! With type parameters, like those of the runtime.
        use iip_rpc::Schema;
        use serde::{Deserialize, Serialize};

        #[derive(Debug, Serialize, Deserialize, Schema)]
        pub struct Streaming<T> {
            pub kind: T,
        }

        #[derive(Debug, Serialize, Deserialize, Schema)]
        pub struct Subscription<T> {
            pub plan: T,
        }

        #[derive(Debug, Serialize, Deserialize, Schema)]
        pub struct CallContext {
            pub number: u8,
        }
    }

    use generic::Streaming as Kind;

    #[service(dyn)]
    pub trait Billing {
        async fn find(&self, id: u64) -> Result<Subscription, Status>;
        async fn stream(&self, kind: Kind<u8>) -> Result<u8, Status>;
        async fn context(
            &self,
            context: &self::generic::CallContext,
            path: &Path,
        ) -> Result<String, Status>;
        async fn plan(
            &self,
        ) -> Result<super::names_of_the_runtime::generic::Subscription<u8>, Status>;
    }

    #[derive(Debug)]
    pub struct Mine;

    impl Billing for Mine {
        async fn find(&self, id: u64) -> Result<Subscription, Status> {
            let plan = id.to_string();
            Ok(Subscription { plan })
        }
        async fn stream(&self, kind: Kind<u8>) -> Result<u8, Status> {
            Ok(kind.kind)
        }
        async fn context(
            &self,
            context: &generic::CallContext,
            path: &Path,
        ) -> Result<String, Status> {
            Ok(format!("{}{}", context.number, path.0))
        }
        async fn plan(&self) -> Result<generic::Subscription<u8>, Status> {
            Ok(generic::Subscription { plan: 3 })
        }
    }
}

#[tokio::test]
async fn types_named_like_those_of_the_runtime_are_the_users() {
    use names_of_the_runtime::{Billing, BillingClient, BillingServer, Mine, Path, generic};
    let billing = BillingClient::new(connected(BillingServer::new(Mine)).await);
    assert_eq!(billing.find(7).await.unwrap().plan, "7");
    let kind = generic::Streaming { kind: 5 };
    assert_eq!(billing.stream(kind).await.unwrap(), 5);
    let context = generic::CallContext { number: 1 };
    let path = Path("/a".into());
    assert_eq!(billing.context(&context, &path).await.unwrap(), "1/a");
    assert_eq!(billing.plan().await.unwrap().plan, 3);
}

pub mod renamed {
    //! iip-rpc under a name that the user chose.
    #![allow(missing_docs)]

    pub mod vendored {
        pub use iip_rpc as rpc;
    }

    #[vendored::rpc::service(path = "/v2/renamed", crate = vendored::rpc)]
    pub trait Renamed {
        async fn hello(&self) -> Result<u8, RenamedError>;
    }

    #[vendored::rpc::service(crate = "crate::renamed::vendored::rpc", dyn)]
    pub trait Quoted {
        async fn hello(&self) -> Result<u8, RenamedError>;
    }

    #[derive(
        Debug,
        thiserror::Error,
        serde::Serialize,
        serde::Deserialize,
        vendored::rpc::MethodError,
        vendored::rpc::Schema,
    )]
    #[schema(crate = vendored::rpc)]
    #[status(crate = vendored::rpc)]
    pub enum RenamedError {
        #[error("no")]
        No,
        #[error(transparent)]
        #[status]
        Rpc(vendored::rpc::Status),
    }

    #[derive(Debug)]
    pub struct Mine;

    impl Renamed for Mine {
        async fn hello(&self) -> Result<u8, RenamedError> {
            Err(RenamedError::No)
        }
    }
}

#[tokio::test]
async fn the_crate_is_found_under_another_name() {
    use renamed::{Mine, Renamed, RenamedClient, RenamedError, RenamedServer};
    let client = RenamedClient::new(connected(RenamedServer::new(Mine)).await);
    let error = client.hello().await.unwrap_err();
    assert!(matches!(error, RenamedError::No), "{error:?}");
}

pub mod from_a_macro {
    //! Services whose parts come from different sources.
    use super::{CallContext, Status};

    macro_rules! services {
        ($($vis:vis $name:ident($argument:ident: $type:ty) -> $($result:tt)::+ $(<$($of:ident),+>)?;)*) => {$(
            /// From a macro.
            #[::iip_rpc::service(dyn)]
            $vis trait $name {
                /// With a name from outside and a local one.
                async fn call(&self, $argument: $type, inside: u8) -> $($result)::+ $(<$($of),+>)?;
            }
        )*};
    }

    services! {
        pub First(text: &str) -> Result<String, Status>;
        pub(crate) Second(number: u32) -> iip_rpc::Result<u32>;
        pub(crate) Third(ctx: &CallContext) -> Result<u8, Status>;
    }

    /// All three.
    #[derive(Debug)]
    pub struct Mine;

    impl First for Mine {
        async fn call(&self, text: &str, inside: u8) -> Result<String, Status> {
            Ok(format!("{text}{inside}"))
        }
    }

    impl Second for Mine {
        async fn call(&self, number: u32, inside: u8) -> iip_rpc::Result<u32> {
            Ok(number + u32::from(inside))
        }
    }

    impl Third for Mine {
        async fn call(&self, _: &CallContext, inside: u8) -> Result<u8, Status> {
            Ok(inside)
        }
    }
}

#[tokio::test]
async fn services_are_written_by_macros() {
    use from_a_macro::{
        First, FirstClient, FirstServer, Mine, Second, SecondClient, SecondServer, ThirdServer,
    };
    let first = FirstClient::new(connected(FirstServer::new(Mine)).await);
    assert_eq!(first.call("a", 1).await.unwrap(), "a1");
    let second = SecondClient::new(connected(SecondServer::new(Mine)).await);
    assert_eq!(second.call(1, 2).await.unwrap(), 3);
    let third = ThirdServer::new(Mine);
    assert_eq!(format!("{third:?}"), "ThirdServer { .. }");
}

mod outer {
    use super::CallOptions;

    pub(crate) mod inner {
        //! Visibility lower than the crate's.
        #[iip_rpc::service(dyn)]
        pub(in crate::outer) trait Hidden {
            async fn hello(&self) -> iip_rpc::Result<()>;
        }

        #[iip_rpc::service]
        pub(super) trait Above {
            async fn hello(&self) -> iip_rpc::Result<()>;
        }

        #[derive(Debug)]
        pub(super) struct Mine;

        impl Hidden for Mine {
            async fn hello(&self) -> iip_rpc::Result<()> {
                Ok(())
            }
        }

        impl Above for Mine {
            async fn hello(&self) -> iip_rpc::Result<()> {
                Ok(())
            }
        }
    }

    pub(crate) async fn call() {
        use self::inner::{
            Above, AboveClient, AboveServer, Hidden, HiddenClient, HiddenServer, Mine,
        };
        let hidden = HiddenClient::new(super::connected(HiddenServer::new(Mine)).await);
        hidden.hello().await.unwrap();
        let above = AboveClient::new(super::connected(AboveServer::new(Mine)).await);
        above
            .with_options(CallOptions::default())
            .hello()
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn generated_items_are_as_visible_as_the_trait() {
    outer::call().await;
}

#[tokio::test]
async fn a_service_is_written_inside_a_function() {
    #[iip_rpc::service(dyn)]
    trait Local {
        async fn hello(&self, name: &str) -> Result<String, Status>;
    }
    struct Mine;
    impl Local for Mine {
        async fn hello(&self, name: &str) -> Result<String, Status> {
            Ok(format!("hello, {name}"))
        }
    }
    let client = LocalClient::new(connected(LocalServer::from_arc(Arc::new(Mine))).await);
    assert_eq!(client.hello("you").await.unwrap(), "hello, you");
}

pub mod switched_off {
    //! Items that are not built, and deprecated ones.

    /// Not built, like everything generated from it.
    #[iip_rpc::service(dyn)]
    #[cfg(any())]
    pub trait Absent {
        async fn hello(&self, missing: Missing) -> Missing;
    }

    /// Without a method that is built.
    #[iip_rpc::service(dyn)]
    pub trait Empty {
        /// Never.
        #[cfg(any())]
        async fn hello(&self, missing: Missing) -> Result<Missing, Status>;
    }

    /// Old as a whole.
    #[iip_rpc::service(dyn)]
    #[deprecated]
    pub trait Old<T: serde::Serialize + serde::de::DeserializeOwned + Send + 'static> {
        /// Older.
        #[deprecated]
        async fn hello(&self) -> iip_rpc::Result<T>;
    }
}

#[test]
fn types_are_described_as_they_are_observed() {
    use bare::{Boxed, BoxedFrom, Converted, Only, Wrapped};
    use names_of_the_runtime::{Path, Subscription, generic};
    use renamed::RenamedError;

    check_derived::<Wrapped>().unwrap();
    check_derived::<Boxed>().unwrap();
    check_derived::<BoxedFrom>().unwrap();
    check_derived::<Only>().unwrap();
    check_derived::<Converted<u8>>().unwrap();
    check_derived::<hostile_names::T>().unwrap();
    check_derived::<Subscription>().unwrap();
    check_derived::<Path>().unwrap();
    check_derived::<generic::Streaming<u8>>().unwrap();
    check_derived::<generic::Subscription<u8>>().unwrap();
    check_derived::<generic::CallContext>().unwrap();
    check_derived::<RenamedError>().unwrap();
}
