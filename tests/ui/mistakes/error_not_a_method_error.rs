use iip_rpc::service;

#[derive(Debug)]
pub struct MyError;

#[service]
pub trait Greeter {
    async fn hello(&self, name: String) -> Result<String, MyError>;
}

fn main() {}
