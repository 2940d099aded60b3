use iip_rpc::Schema;
use iip_rpc::__private::schema::__private::{Describe, assert_positional};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Schema)]
struct Item {
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Serialize, Deserialize, Schema)]
struct Order {
    items: Vec<Item>,
}

const _: () = assert_positional(Describe::<Order>::IN_CONTAINERS);

fn main() {}
