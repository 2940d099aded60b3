use iip_rpc::{Status, service};


#[service]
unsafe trait Greeter {
    async fn hello(&self) -> Result<String, Status>;
}

fn main() {}
