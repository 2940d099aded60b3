//! The names of services and methods: on the wire, and as keys of the services of a server.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use iip_rpc::{
    CallContext, Client, Code, Concurrency, Health, HealthClient, HealthState, MethodPolicy,
    Server, Service, Status, service,
};

use crate::common::within;

mod v1 {
    use iip_rpc::{Status, service};

    #[service]
    pub(crate) trait Users {
        async fn get(&self) -> Result<String, Status>;
    }
}

mod v2 {
    use iip_rpc::{Status, service};

    #[service(name = "shop.v2.Users", rename_all = "camelCase")]
    pub(crate) trait Users {
        async fn get(&self) -> Result<String, Status>;
        async fn find_all(&self) -> Result<String, Status>;
        #[rpc(name = "find_some")]
        async fn some(&self) -> Result<String, Status>;
    }
}

mod v3 {
    use iip_rpc::{Status, service};

    #[service(path = "/v3/users")]
    pub(crate) trait Users {
        async fn get(&self) -> Result<String, Status>;
    }
}

mod v4 {
    use iip_rpc::{Status, service};

    #[service(name = "shop.v4.Users", path = "/users")]
    pub(crate) trait Users {
        async fn get(&self) -> Result<String, Status>;
    }
}

/// Replies with the name and path of the method that was called.
struct Mine;

fn called() -> Result<String, Status> {
    let ctx = CallContext::current().unwrap();
    let method = ctx.method().unwrap();
    Ok(format!("{method} at {}", method.path()))
}

impl v1::Users for Mine {
    async fn get(&self) -> Result<String, Status> {
        called()
    }
}

impl v2::Users for Mine {
    async fn get(&self) -> Result<String, Status> {
        called()
    }
    async fn find_all(&self) -> Result<String, Status> {
        called()
    }
    async fn some(&self) -> Result<String, Status> {
        called()
    }
}

impl v3::Users for Mine {
    async fn get(&self) -> Result<String, Status> {
        called()
    }
}

impl v4::Users for Mine {
    async fn get(&self) -> Result<String, Status> {
        called()
    }
}

async fn both(health: &Health) -> (Server, Client) {
    let server = Server::builder()
        .service(v1::UsersServer::new(Mine))
        .service(v2::UsersServer::new(Mine))
        .service_max_concurrency("shop.v2.Users", Concurrency::AtMost(4))
        .method_policy("/shop.v2.Users/findAll", MethodPolicy::new())
        .health(health)
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::connect(server.target()).await.unwrap();
    (server, client)
}

#[tokio::test]
async fn names_of_the_settings_are_used_in_paths_and_descriptors() {
    let (_server, client) = both(&Health::new()).await;
    let first = v1::UsersClient::new(client.clone());
    let reply = v1::Users::get(&first).await.unwrap();
    assert_eq!(reply, "Users.get at /users/get");
    let second = v2::UsersClient::new(client);
    let reply = v2::Users::get(&second).await.unwrap();
    assert_eq!(reply, "shop.v2.Users.get at /shop.v2.Users/get");
    let reply = v2::Users::find_all(&second).await.unwrap();
    assert_eq!(reply, "shop.v2.Users.findAll at /shop.v2.Users/findAll");
    let reply = v2::Users::some(&second).await.unwrap();
    assert_eq!(reply, "shop.v2.Users.find_some at /shop.v2.Users/find_some");
}

#[tokio::test]
async fn services_of_traits_with_one_name_have_a_health_each() {
    let health = Health::new();
    let (_server, client) = both(&health).await;
    let asked = HealthClient::new(client);
    health.set("shop.v2.Users", HealthState::NotServing);
    let state = within("health", asked.check("Users")).await.unwrap();
    assert_eq!(state, HealthState::Serving);
    let state = within("health", asked.check("shop.v2.Users"))
        .await
        .unwrap();
    assert_eq!(state, HealthState::NotServing);
    let unknown = within("health", asked.check("shop.v3.Users"))
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

/// Returns the error of binding a server with these services.
async fn bind_error(
    first: impl Service + Send + 'static,
    second: impl Service + Send + 'static,
) -> String {
    let server = Server::builder().service(first).service(second);
    let error = server.bind("127.0.0.1:0").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    error.to_string()
}

#[tokio::test]
async fn two_services_of_one_name_are_rejected_with_both_of_their_types() {
    let error = bind_error(v1::UsersServer::new(Mine), v3::UsersServer::new(Mine)).await;
    for part in [
        "v1::UsersServer<",
        "v3::UsersServer<",
        "both named \"Users\"",
        "#[service(name = \"..\")]",
        "path = ",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
    let twice = bind_error(v1::UsersServer::new(Mine), v1::UsersServer::new(Mine)).await;
    assert!(
        twice.contains("named \"Users\", is registered twice"),
        "{twice}"
    );
    let (_server, _) = Server::builder()
        .service(v2::UsersServer::new(Mine))
        .service(v3::UsersServer::new(Mine))
        .service(v4::UsersServer::new(Mine))
        .in_memory()
        .unwrap();
}

#[tokio::test]
async fn two_methods_of_one_path_are_rejected_with_both_of_their_names() {
    let error = bind_error(v1::UsersServer::new(Mine), v4::UsersServer::new(Mine)).await;
    for part in [
        "Users.get",
        "shop.v4.Users.get",
        "\"/users/get\"",
        "#[service(path = \"..\")]",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
}

#[service(name = "Generic")]
trait Generic<T: serde::Serialize + serde::de::DeserializeOwned + Send + Sync + 'static> {
    async fn echo(&self, value: T) -> Result<T, Status>;
}

impl Generic<u8> for Mine {
    async fn echo(&self, value: u8) -> Result<u8, Status> {
        Ok(value)
    }
}

impl Generic<String> for Mine {
    async fn echo(&self, value: String) -> Result<String, Status> {
        Ok(value)
    }
}

#[tokio::test]
async fn a_generic_service_is_served_once_at_a_server() {
    let bytes: GenericServer<Mine, u8> = GenericServer::new(Mine);
    let texts: GenericServer<Mine, String> = GenericServer::new(Mine);
    let error = bind_error(bytes, texts).await;
    assert!(error.contains("GenericServer<"), "{error}");
    assert!(error.contains("u8"), "{error}");
}
