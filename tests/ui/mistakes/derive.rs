use iip_rpc::{MethodError, Status};
use serde::{Deserialize, Serialize};

#[derive(Debug, thiserror::Error, Serialize, Deserialize, MethodError)]
enum Unmarked {
    #[error("no")]
    No,
}

#[derive(Debug, thiserror::Error, Serialize, Deserialize, MethodError)]
enum Twice {
    #[error(transparent)]
    #[status]
    First(Status),
    #[error("{0}")]
    #[status]
    Second(Status),
}

#[derive(Debug, thiserror::Error, Serialize, Deserialize, MethodError)]
enum Wide {
    #[error("{0}")]
    #[status]
    Rpc(Status, u8),
}

#[derive(Debug, thiserror::Error, Serialize, Deserialize, MethodError)]
#[error("no")]
struct Fields {
    a: u8,
    b: u8,
}

#[derive(Debug, thiserror::Error, Serialize, Deserialize, MethodError)]
#[status]
enum Above {
    #[error("{0}")]
    #[status(path = "x")]
    Rpc(Status),
}

#[derive(MethodError)]
union Both {
    a: u8,
    b: u8,
}

fn main() {}
