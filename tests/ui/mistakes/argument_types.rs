use iip_rpc::{Status, service};


#[service]
trait Greeter {
    async fn opaque(&self, name: impl ToString) -> Result<u8, Status>;
    async fn inside(&self, names: Vec<impl ToString>) -> Result<u8, Status>;
    async fn mutable(&self, names: &mut Vec<String>) -> Result<u8, Status>;
    async fn lives(&self, name: &'static str) -> Result<u8, Status>;
    async fn nested(&self, name: Option<&str>) -> Result<u8, Status>;
    async fn itself(&self, other: Self) -> Result<u8, Status>;
}

fn main() {}
