use iip_rpc::Schema;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Schema)]
#[schema(name = "shop.Order")]
struct Order {
    #[schema(hidden)]
    card: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(secret = true)]
    note: String,
    #[schema(as = "a type")]
    total: u64,
}

#[derive(Serialize, Deserialize, Schema)]
#[schema]
enum Event {
    #[schema(secret)]
    Sent(#[schema(secret)] String),
}

#[derive(Serialize, Schema)]
#[serde(remote = "std::time::Duration")]
struct Timeout {
    #[serde(getter = "std::time::Duration::as_secs")]
    secs: u64,
}

#[derive(Schema)]
union Both {
    a: u8,
    b: u8,
}

fn main() {}
