use iip_rpc::{Status, service};


#[service]
trait Greeter {
    async fn pair(&self, (a, b): (u8, u8)) -> Result<u8, Status>;
    async fn nameless(&self, _: String) -> Result<u8, Status>;
    async fn mutable(&self, mut name: String) -> Result<u8, Status>;
}

fn main() {}
