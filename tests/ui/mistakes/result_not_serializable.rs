use iip_rpc::{Status, service};


pub struct Greeting(String);

#[service]
pub trait Greeter {
    async fn hello(&self, name: String) -> Result<Greeting, Status>;
}

fn main() {}
