//! A service written in Go, with its paths as they are: first called through a typed trait, then
//! replaced by an implementation of that trait. And the other way round: a typed method that is
//! called with plain JSON.
//!
//! Run: `cargo run --example go_style`
//! Prints: the same three replies from the old service and from the new one, then the frames that a
//! client in any language can send and receive.

use std::time::Duration;

use bytes::Bytes;
use iip_core::{HandlerError, Request, Response, handler_fn};
use iip_rpc::{Client, Schema, Server, Status, service};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The reply of `/user/find`.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct User {
    id: u64,
    name: String,
}

/// The old service, as a trait: each method on the path that exists.
#[service]
pub trait Users {
    /// Bytes in, bytes out.
    #[rpc(path = "/echo", raw)]
    async fn echo(&self, body: Bytes) -> Result<Bytes, Status>;

    /// `{"id":7}` in, `{"id":7,"name":"ann"}` out.
    #[rpc(path = "/user/find", json)]
    async fn find(&self, id: u64) -> Result<User, Status>;

    /// New, and typed; the path is `/users/greet`.
    async fn greet(&self, name: String) -> Result<String, Status>;
}

struct InRust;

impl Users for InRust {
    async fn echo(&self, body: Bytes) -> Result<Bytes, Status> {
        Ok(body)
    }

    async fn find(&self, id: u64) -> Result<User, Status> {
        match id {
            7 => Ok(User {
                id,
                name: "ann".into(),
            }),
            _ => Err(Status::not_found(format!("no user {id}"))),
        }
    }

    async fn greet(&self, name: String) -> Result<String, Status> {
        Ok(format!("hello, {name}"))
    }
}

/// Replaces the Go server, so that the example needs nothing else: it knows paths, bytes and JSON.
async fn old_service() -> std::io::Result<iip_core::Server> {
    let echo = |request: Request| async { Ok(Response::from(request.into_body())) };
    let find = |request: Request| async move {
        match &request.body()[..] {
            br#"{"id":7}"# => Ok(Response::from(r#"{"id":7,"name":"ann"}"#)),
            _ => Err(HandlerError::new("no such user")),
        }
    };
    let routes = iip_core::Server::builder()
        .route("/echo", handler_fn(echo))
        .route("/user/find", handler_fn(find));
    routes.bind("127.0.0.1:0").await
}

/// The caller does not see which of the two it calls.
async fn use_it(users: &impl Users) -> Result<(), Status> {
    println!(
        "  echo: {:?}",
        users.echo(Bytes::from_static(b"bytes")).await?
    );
    println!("  find 7: {:?}", users.find(7).await?);
    match users.find(8).await {
        Ok(user) => println!("  find 8: {user:?}"),
        Err(status) => println!("  find 8: {status}"),
    }
    Ok(())
}

/// One frame by hand: status, path, NUL, channel, length, data.
async fn by_hand(
    target: &str,
    path: &str,
    body: &str,
) -> Result<String, Box<dyn std::error::Error>> {
    let mut frame = vec![1]; // 1: a request in one frame
    frame.extend_from_slice(path.as_bytes());
    frame.push(0);
    frame.extend_from_slice(&0u32.to_be_bytes()); // channel 0 is always open
    frame.extend_from_slice(&u32::try_from(body.len())?.to_be_bytes());
    frame.extend_from_slice(body.as_bytes());

    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(&frame).await?;

    // The reply has the same head: status 5 and the same path.
    let mut head = vec![0; 1 + path.len() + 1 + 4];
    stream.read_exact(&mut head).await?;
    let length = stream.read_u32().await?;
    let mut reply = String::new();
    stream
        .take(length.into())
        .read_to_string(&mut reply)
        .await?;
    Ok(reply)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let old = old_service().await?;
    println!("the old service:");
    use_it(&UsersClient::new(Client::connect(old.target()).await?)).await?;
    old.shutdown(Duration::from_secs(1)).await;

    let new = Server::builder()
        .service(UsersServer::new(InRust))
        .bind("127.0.0.1:0")
        .await?;
    println!("the new service:");
    use_it(&UsersClient::new(Client::connect(new.target()).await?)).await?;

    // Existing clients continue as before, and can call the typed methods as well: requests in JSON
    // get replies in JSON.
    println!("by hand:");
    println!(
        "  {}",
        by_hand(new.target(), "/user/find", r#"{"id":7}"#).await?
    );
    println!(
        "  {}",
        by_hand(new.target(), "/users/greet", r#"{"name":"world"}"#).await?
    );
    println!(
        "  {}",
        by_hand(new.target(), "/users/greet", r#"{"name":7}"#).await?
    );

    new.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
