use iip_rpc::{Status, service};


#[service]
trait Greeter {
    async fn hello(&self) -> Result<String, Status> {
        Ok("hello".into())
    }
}

struct Mine;

impl Greeter for Mine {
    async fn hello(&self) -> Result<String, Status> {
        Ok("mine".into())
    }
}

fn main() {}
