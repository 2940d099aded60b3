use iip_rpc::{Status, service};


#[service]
trait Greeter {
    #[rpc(path = "hello")]
    async fn relative(&self) -> Result<(), Status>;
    #[rpc(path = "/hello?name=x")]
    async fn query(&self) -> Result<(), Status>;
    #[rpc(path = "//host/hello")]
    async fn host(&self) -> Result<(), Status>;
    #[rpc(name = "a/b")]
    async fn name(&self) -> Result<(), Status>;
}

fn main() {}
