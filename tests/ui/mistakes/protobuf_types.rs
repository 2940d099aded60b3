use iip_rpc::{Status, service};
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct NoMessage {
    text: String,
}

#[service(codec = "protobuf")]
trait Argument {
    async fn hello(&self, request: NoMessage) -> Result<(), Status>;
}

fn main() {}
