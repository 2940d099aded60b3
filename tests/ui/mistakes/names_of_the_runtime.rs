use iip_rpc::{Status, service};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Subscription<T> {
    plan: T,
}

#[derive(Serialize, Deserialize)]
struct Streaming<T> {
    kind: T,
}

#[derive(Serialize, Deserialize)]
struct CallContext;

#[service]
trait Answers {
    async fn find(&self, id: u64) -> Result<Subscription<u8>, Status>;
}

#[service]
trait Arguments {
    async fn kind(&self, kind: Streaming<u8>) -> Result<(), Status>;
    async fn context(&self, context: &CallContext) -> Result<(), Status>;
}

#[service]
trait Fine {
    async fn find(&self, id: u64) -> Result<self::Subscription<u8>, Status>;
    async fn kind(&self, kind: self::Streaming<u8>) -> Result<(), Status>;
    async fn context(&self, context: &crate::CallContext) -> Result<(), Status>;
}

fn main() {}
