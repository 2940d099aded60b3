use iip_rpc::{Status, service};


#[service]
trait Greeter {
    async fn consumed(self) -> Result<String, Status>;
    async fn mutable(&mut self) -> Result<String, Status>;
    async fn shared(self: std::sync::Arc<Self>) -> Result<String, Status>;
    async fn lives(&'static self) -> Result<String, Status>;
}

fn main() {}
