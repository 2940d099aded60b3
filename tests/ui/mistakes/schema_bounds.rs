use iip_rpc::Schema;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order;

#[derive(Serialize, Deserialize, Schema)]
struct Page<T> {
    items: Vec<T>,
}

fn described<T: Schema>() {}

fn main() {
    described::<Page<Order>>();
}
