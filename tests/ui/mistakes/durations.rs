use iip_rpc::{Status, service};


#[service]
trait Greeter {
    #[rpc(timeout = "500")]
    async fn no_unit(&self) -> Result<(), Status>;
    #[rpc(timeout = "1.5s")]
    async fn fraction(&self) -> Result<(), Status>;
    #[rpc(timeout = 500)]
    async fn number(&self) -> Result<(), Status>;
    #[rpc(timeout = "0ms")]
    async fn zero(&self) -> Result<(), Status>;
    #[rpc(timeout = "9999999h")]
    async fn long(&self) -> Result<(), Status>;
}

fn main() {}
