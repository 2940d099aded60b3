use iip_rpc::{Status, service};


#[service]
#[async_trait::async_trait]
trait Greeter {
    async fn hello(&self) -> Result<String, Status>;
}

fn main() {}
