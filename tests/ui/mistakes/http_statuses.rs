use iip_rpc::{MethodError, Status};
use serde::{Deserialize, Serialize};

#[derive(Debug, thiserror::Error, Serialize, Deserialize, MethodError)]
enum Refused {
    #[error("a status of success")]
    #[rpc(http = 200)]
    Fine,
    #[error("no status")]
    #[rpc(http = 600)]
    Beyond,
    #[error("a text")]
    #[rpc(http = "422")]
    Text,
    #[error("no value")]
    #[rpc(http)]
    Nothing,
    #[error("twice")]
    #[rpc(http = 404, http = 410)]
    Twice,
    #[error("another setting")]
    #[rpc(timeout = "1s")]
    Other,
    #[error("no setting")]
    #[rpc]
    Bare,
    #[error("at a field")]
    Field(#[rpc(http = 409)] u8),
    #[error(transparent)]
    #[status]
    #[rpc(http = 503)]
    Rpc(Status),
}

#[derive(Debug, thiserror::Error, Serialize, Deserialize, MethodError)]
#[error("at a struct")]
#[rpc(http = 422)]
struct Wrapper(Status);

fn main() {}
