use iip_rpc::{CallContext, Status, service};

#[service]
trait Greeter {
    async fn second(&self, name: String, ctx: &CallContext) -> Result<u8, Status>;
    async fn value(&self, ctx: CallContext) -> Result<u8, Status>;
    async fn mutable(&self, ctx: &mut CallContext) -> Result<u8, Status>;
}

fn main() {}
