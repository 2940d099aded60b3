use iip_rpc::{Status, service};


#[service]
trait Greeter {
    async fn new(&self) -> Result<(), Status>;
    async fn with_options(&self, more: u8) -> Result<(), Status>;
    async fn clone(&self) -> Result<(), Status>;
    async fn __hello(&self) -> Result<(), Status>;
}

fn main() {}
