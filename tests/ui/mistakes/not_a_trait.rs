use iip_rpc::{Status, service};


#[service]
pub struct Greeter {
    name: String,
}

#[service]
impl Greeter {
    async fn hello(&self) -> Result<String, Status> {
        Ok(self.name.clone())
    }
}

fn main() {}
