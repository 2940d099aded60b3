use iip_rpc::{Status, service};


macro_rules! more {
    () => {};
}

#[service]
trait Greeter {
    const VERSION: u32;
    type Name;
    more!();
    async fn hello(&self) -> Result<String, Status>;
}

fn main() {}
