//! Descriptions of services, as `#[service]` makes them.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeMap;

use iip_rpc::schema::check_derived;
use iip_rpc::schema::{MethodKind, Shape, Type};
use iip_rpc::{
    CallContext, Code, Metadata, MethodError, Payload, Schema, Status, Stream, Streaming,
    Subscription, service,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Schema)]
struct Size {
    width: u32,
    height: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error, MethodError, Schema)]
enum OrderError {
    #[error("it is empty")]
    Empty,
    #[error("the order {0} is closed")]
    #[rpc(http = 409)]
    Closed(u64),
    #[error(transparent)]
    #[status]
    Status(#[from] Status),
}

/// Keeps orders.
///
/// In memory.
#[service(name = "shop.v1.Orders", rename_all = "camelCase")]
#[deprecated = "use Baskets"]
#[allow(deprecated, dead_code)]
trait Orders {
    /// Places one.
    #[rpc(timeout = "1500ms", idempotent, priority = "high", auth = "admin")]
    async fn place_order(
        &self,
        ctx: &CallContext,
        name: &str,
        sizes: &[Size],
    ) -> Result<BTreeMap<u8, Size>, OrderError>;
    #[deprecated]
    async fn forget(&self) -> Result<(), Status>;
    #[rpc(oneway)]
    async fn log(&self, line: String) -> Result<(), Status>;
    async fn watch(&self) -> Result<impl Stream<Item = Result<Option<u64>, Status>>, Status>;
    async fn pack(&self) -> Result<impl Stream<Item = Result<u8, OrderError>>, Status>;
    async fn upload(&self, parts: Streaming<String>) -> Result<u64, OrderError>;
    async fn chat(
        &self,
        room: String,
        lines: Streaming<String>,
    ) -> Result<impl Stream<Item = Result<u8, Status>>, Status>;
    async fn follow(&self) -> Result<Subscription<Size>, Status>;
    #[rpc(raw)]
    async fn old(&self, body: Vec<u8>) -> Result<Vec<u8>, Status>;
}

fn size(types: &iip_rpc::schema::Types, ty: &Type) {
    let Type::Named(name) = ty else {
        panic!("{ty:?} is not a named type");
    };
    let text = serde_json::to_string(types.get(name).unwrap()).unwrap();
    assert!(text.contains("width") && text.contains("height"), "{text}");
}

#[test]
#[allow(deprecated)]
fn a_service_describes_its_methods() {
    let orders = OrdersClient::description();
    assert_eq!(orders.service, "shop.v1.Orders");
    assert_eq!(orders.doc, "Keeps orders.\n\nIn memory.");
    assert_eq!(orders.deprecated.as_deref(), Some("use Baskets"));
    let names: Vec<_> = orders.methods.iter().map(|method| &*method.name).collect();
    assert_eq!(
        names,
        [
            "placeOrder",
            "forget",
            "log",
            "watch",
            "pack",
            "upload",
            "chat",
            "follow",
            "old"
        ]
    );

    let place = orders.method("placeOrder").unwrap();
    assert_eq!(place.path, "/shop.v1.Orders/placeOrder");
    assert_eq!(place.doc, "Places one.");
    assert_eq!(place.timeout_ms, Some(1500));
    assert!(place.idempotent);
    assert_eq!(place.priority.as_deref(), Some("high"));
    assert_eq!(place.auth.as_deref(), Some("admin"));
    let args: Vec<_> = place.args.iter().map(|arg| (&*arg.name, &arg.ty)).collect();
    let [("name", Type::Text), ("sizes", Type::Seq(item))] = args[..] else {
        panic!("{args:?}");
    };
    size(&orders.types, item);
    let Type::Map(key, value) = &place.result else {
        panic!("{:?}", place.result);
    };
    assert_eq!(**key, Type::U8);
    size(&orders.types, value);
    assert!(matches!(place.error, Some(Type::Named(_))), "{place:?}");

    let forget = orders.method("forget").unwrap();
    assert_eq!(forget.deprecated.as_deref(), Some(""));
    assert_eq!((&forget.result, &forget.error), (&Type::Unit, &None));
}

#[test]
#[allow(deprecated)]
fn each_kind_of_call_describes_its_messages() {
    let orders = OrdersClient::description();
    let kind = |name| {
        let method = orders.method(name).unwrap();
        (method.kind, method.requests.clone(), method.result.clone())
    };
    let text = || Some(Type::Text);
    assert_eq!(kind("log"), (MethodKind::OneWay, None, Type::Unit));
    let option = Type::option(Type::U64);
    assert_eq!(kind("watch"), (MethodKind::ServerStream, None, option));
    assert_eq!(
        kind("upload"),
        (MethodKind::ClientStream, text(), Type::U64)
    );
    assert_eq!(kind("chat"), (MethodKind::Bidirectional, text(), Type::U8));
    assert_eq!(kind("old"), (MethodKind::Unary, None, Type::Bytes));
    let (kind, requests, result) = kind("follow");
    assert_eq!((kind, requests), (MethodKind::Subscription, None));
    size(&orders.types, &result);
}

#[test]
#[allow(deprecated)]
fn a_stream_has_an_error_type_of_its_own() {
    let orders = OrdersClient::description();
    let errors = |name| {
        let method = orders.method(name).unwrap();
        (method.error.is_some(), method.stream_error.clone())
    };
    let place = orders.method("placeOrder").unwrap();
    assert_eq!(errors("pack"), (false, place.error.clone()));
    assert_eq!(errors("watch"), (false, None));
    assert_eq!(errors("upload"), (true, None));
    assert_eq!(errors("placeOrder"), (true, None));
}

#[test]
#[allow(deprecated)]
fn variants_of_errors_have_their_statuses_of_http() {
    let orders = OrdersClient::description();
    for method in ["placeOrder", "pack"] {
        let method = orders.method(method).unwrap();
        let error = method.error.as_ref().or(method.stream_error.as_ref());
        let Some(Type::Named(name)) = error else {
            panic!("{error:?}");
        };
        let Shape::Enum(shape) = &orders.types.get(name).unwrap().shape else {
            panic!("{name}");
        };
        let variants = shape.variants.iter();
        let statuses = variants.map(|variant| (&*variant.name, variant.http_status()));
        assert_eq!(
            statuses.collect::<Vec<_>>(),
            [("Empty", None), ("Closed", Some(409)), ("Status", None)]
        );
    }
}

#[test]
fn types_are_described_as_they_are_observed() {
    check_derived::<Size>().unwrap();
    check_derived::<OrderError>().unwrap();
    check_derived::<Status>().unwrap();
    check_derived::<Metadata>().unwrap();
    check_derived::<Payload>().unwrap();
    check_derived::<Code>().unwrap();
}
