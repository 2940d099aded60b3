//! `iq list`, `iq describe`, `iq gen` and `iq schema save`.

use serde_json::json;

use crate::common::{Fixture, Home, iq};

#[tokio::test]
async fn services_and_methods_are_listed() {
    let shop = Fixture::new().await;
    assert_eq!(
        iq(&["list", &shop.target]).await.data(),
        "shop.Orders\tTakes orders.\n"
    );
    let methods = iq(&["list", &shop.target, "shop.Orders"]).await.data();
    let lines: Vec<&str> = methods.lines().collect();
    assert_eq!(lines[0], "shop.Orders.place\tPlaces an order.");
    assert_eq!((lines.len(), lines[2]), (10, "shop.Orders.caller"));
    let listed = iq(&["list", &shop.target, "--json"]).await.json();
    let wanted =
        json!({"type": "service", "service": "shop.Orders", "doc": "Takes orders.", "methods": 10});
    assert_eq!(listed, [wanted]);
    let error = iq(&["list", &shop.target, "shop.Ordrs"]).await.failed(2);
    assert!(error.contains("`shop.Orders`"), "{error}");
}

#[tokio::test]
async fn a_service_is_described_as_its_trait() {
    let shop = Fixture::new().await;
    let trait_text = iq(&["describe", &shop.target]).await.data();
    for part in [
        "/// Takes orders.\n///\n/// And tells about them.\n#[service(name = \"shop.Orders\")]\n\
         pub trait Orders {\n    /// Places an order.\n    #[rpc(timeout = \"5s\")]\n    \
         async fn place(&self, order: Order) -> Result<u64, OrderError>;\n",
        "    #[rpc(idempotent)]\n    \
         async fn find(&self, id: u64, detailed: Option<bool>) -> Result<Order, Status>;\n",
        "    #[rpc(oneway)]\n    async fn tell(&self, text: String) -> Result<(), Status>;\n",
        "    async fn watch(&self) -> Result<Subscription<u32>, Status>;\n",
        "    async fn sum(&self, factor: u64, messages: Streaming<u64>) -> Result<u64, Status>;\n",
        "Result<impl Stream<Item = Result<Order, OrderError>>, OrderError>;\n",
        "Result<impl Stream<Item = Result<u64, Status>>, Status>;\n",
        "    #[rpc(path = \"/echo\", raw)]\n",
        "    /// Its number.\n    pub id: u64,\n    pub colour: Colour,\n    \
         #[serde(default)]\n    pub tags: Vec<String>,\n    pub note: Option<String>,\n}\n",
        "pub enum Colour {\n    Red,\n    Green,\n}\n",
        "    SoldOut {\n        day: u32,\n    },\n",
    ] {
        assert!(trait_text.contains(part), "{part}\n---\n{trait_text}");
    }
    let one = iq(&["describe", &shop.target, "shop.Orders.find"])
        .await
        .data();
    assert!(
        one.contains("async fn find") && one.contains("pub struct Order {"),
        "{one}"
    );
    assert!(
        !one.contains("place") && !one.contains("OrderError"),
        "{one}"
    );
    for (name, close) in [("shop.Ordrs", "shop.Orders"), ("shop.Orders.fnd", "find")] {
        let error = iq(&["describe", &shop.target, name]).await.failed(2);
        assert!(
            error.contains(&format!("the closest is `{close}`")),
            "{error}"
        );
    }
    let json = iq(&["describe", &shop.target, "shop.Orders", "--json"])
        .await
        .json();
    assert_eq!(
        (&json[0]["type"], &json[0]["service"]),
        (&json!("service"), &json!("shop.Orders"))
    );
    assert_eq!(json[0]["methods"].as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn openapi_documents_are_generated() {
    let shop = Fixture::new().await;
    let generated = iq(&["gen", "openapi", &shop.target]).await.data();
    assert_eq!(
        generated,
        iq(&["describe", &shop.target, "--openapi"]).await.data()
    );
    let document: serde_json::Value = serde_json::from_str(&generated).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/shop.Orders/place"]["post"].is_object());
    let error = iq(&["gen", "openapi", &shop.target, "nothing"])
        .await
        .failed(2);
    assert!(error.contains("no service `nothing`"), "{error}");
}

#[tokio::test]
async fn saved_descriptions_are_used_like_servers() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let file = home.0.join("shop.schema.json").to_str().unwrap().to_owned();
    let saved = home
        .iq(&["schema", "save", &shop.target, "-o", &file])
        .await;
    assert_eq!((saved.code, &*saved.out), (Some(0), ""));
    assert!(
        saved.err.contains("note: saved 1 service in "),
        "{}",
        saved.err
    );
    let printed = home.iq(&["schema", "save", &shop.target]).await.data();
    assert_eq!(printed, std::fs::read_to_string(&file).unwrap());
    assert_eq!(
        home.iq(&["list", &file]).await.data(),
        "shop.Orders\tTakes orders.\n"
    );
    let error = home.iq(&["list", "nowhere.json"]).await.failed(2);
    assert_eq!(error, "error: nowhere.json: there is no such file\n");
    let wrong = home.write("wrong.json", "{}");
    let error = home.iq(&["list", &wrong]).await.failed(2);
    assert!(error.contains("iip_schema"), "{error}");
}

#[tokio::test]
async fn a_server_that_describes_nothing_says_so() {
    let hidden = Fixture::with(|server| server.describe(false)).await;
    for command in ["list", "describe"] {
        let error = iq(&[command, &hidden.target]).await.failed(64 + 12);
        assert!(error.contains("does not describe its services"), "{error}");
    }
}
