use iip_rpc::{Status, service};


#[service]
#[rpc(path = "/greeter")]
trait Greeter {
    async fn hello(&self) -> Result<String, Status>;
}

fn main() {}
