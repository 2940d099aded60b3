//! Authorization: a token that the client adds to every call, checked by the server before the
//! handler runs.
//!
//! Run: `cargo run --example auth`
//! Prints: what a customer and an administrator may do, and what is rejected without a token.

use std::collections::HashMap;
use std::time::Duration;

use iip_rpc::interceptor::{
    ClientCall, ClientInterceptor, Completion, Next, ServerCall, ServerInterceptor,
};
use iip_rpc::{CallContext, Client, Server, Status, service};

/// Each method has a role that its callers need.
#[service]
pub trait Shop {
    /// Everybody.
    async fn articles(&self) -> Result<Vec<String>, Status>;

    /// Callers with a valid token.
    #[rpc(auth = "customer")]
    async fn buy(&self, article: &str) -> Result<String, Status>;

    /// A few.
    #[rpc(auth = "admin")]
    async fn close(&self) -> Result<(), Status>;
}

/// The caller, as identified by the server. Handlers find it in their context.
struct Identity {
    name: &'static str,
    roles: &'static [&'static str],
}

/// Checks the token of every call against the role of its method.
struct Doorman {
    tokens: HashMap<&'static str, Identity>,
}

impl ServerInterceptor for Doorman {
    async fn intercept(
        &self,
        call: ServerCall,
        next: Next<ServerCall>,
    ) -> Result<Completion, Status> {
        let token = call
            .metadata()
            .text("authorization")
            .and_then(|value| value.strip_prefix("Bearer "));
        let known = token.and_then(|token| self.tokens.get(token));
        if let Some(role) = call.method().auth_requirement() {
            let Identity { name, roles } =
                known.ok_or_else(|| Status::unauthenticated("a token is needed"))?;
            if !roles.contains(&role) {
                let text = format!("{name} is no {role}");
                return Err(Status::permission_denied(text));
            }
        }
        if let Some(&Identity { name, roles }) = known {
            call.insert_extension(Identity { name, roles });
        }
        Ok(next.run(call).await)
    }
}

/// Adds a token to every call.
struct Bearer(&'static str);

impl ClientInterceptor for Bearer {
    async fn intercept(
        &self,
        mut call: ClientCall,
        next: Next<ClientCall>,
    ) -> Result<Completion, Status> {
        let value = format!("Bearer {}", self.0);
        call.metadata_mut().insert("authorization", value)?;
        Ok(next.run(call).await)
    }
}

struct Corner;

impl Shop for Corner {
    async fn articles(&self) -> Result<Vec<String>, Status> {
        Ok(vec!["cake".into(), "bread".into()])
    }

    async fn buy(&self, article: &str) -> Result<String, Status> {
        let who = CallContext::current().and_then(|ctx| ctx.extension::<Identity>());
        let who = who.ok_or_else(|| Status::internal("nobody has checked this call"))?;
        Ok(format!("{article} for {}", who.name))
    }

    async fn close(&self) -> Result<(), Status> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (name, roles) = ("ann", &["customer"][..]);
    let ann = ("a-secret", Identity { name, roles });
    let (name, roles) = ("bob", &["customer", "admin"][..]);
    let bob = ("another-secret", Identity { name, roles });
    let doorman = Doorman {
        tokens: HashMap::from([ann, bob]),
    };
    let server = Server::builder()
        .interceptor(doorman)
        .service(ShopServer::new(Corner))
        .bind("127.0.0.1:0")
        .await?;

    let client = Client::connect(server.target()).await?;
    let anonymous = ShopClient::new(client.clone());
    println!("for everybody: {:?}", anonymous.articles().await?);
    if let Err(status) = anonymous.buy("cake").await {
        println!("without token: {status}");
    }

    // The same connections, with something added to each call.
    let ann = ShopClient::new(client.with_interceptor(Bearer("a-secret")));
    println!("ann: {}", ann.buy("cake").await?);
    if let Err(status) = ann.close().await {
        println!("ann: {status}");
    }

    let bob = ShopClient::new(client.with_interceptor(Bearer("another-secret")));
    bob.close().await?;
    println!("bob: closed");

    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
