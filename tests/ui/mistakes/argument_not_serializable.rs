use iip_rpc::{Status, service};


pub struct Name(String);

#[service]
pub trait Greeter {
    async fn hello(&self, age: u32, name: Name) -> Result<String, Status>;
}

fn main() {}
