use iip_rpc::{Status, service};


#[service]
trait Greeter {
    async fn hello(&self, #[cfg(all())] name: String) -> Result<String, Status>;
}

fn main() {}
