use iip_rpc::{Status, service};

#[service(codec = "protobuff")]
trait Unknown {
    async fn hello(&self) -> Result<(), Status>;
}

#[service(codec = postcard)]
trait NoText {
    async fn hello(&self) -> Result<(), Status>;
}

fn main() {}
