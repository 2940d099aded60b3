use iip_rpc::{Status, service};


#[service]
trait Greeter {
    async fn hello() -> Result<String, Status>;
    async fn bye(name: String) -> Result<String, Status>;
}

fn main() {}
