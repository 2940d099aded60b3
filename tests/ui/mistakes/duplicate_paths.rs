use iip_rpc::{Status, service};


#[service(path = "/v1")]
trait Greeter {
    async fn hello(&self) -> Result<(), Status>;
    #[rpc(path = "/v1/hello")]
    async fn other(&self) -> Result<(), Status>;
    #[rpc(name = "hello")]
    async fn third(&self) -> Result<(), Status>;
    async fn hello(&self, again: u8) -> Result<(), Status>;
    #[allow(non_snake_case)]
    async fn Hello(&self) -> Result<(), Status>;
}

fn main() {}
