use iip_rpc::{Status, service};


#[service]
trait Greeter<'a> {
    async fn hello(&self) -> Result<String, Status>;
}

fn main() {}
