use iip_rpc::MethodError;
use serde::{Deserialize, Serialize};

#[derive(Debug, thiserror::Error, Serialize, Deserialize, MethodError)]
enum Wrong {
    #[error("{0}")]
    #[status]
    Rpc(String),
}

fn main() {}
