use iip_rpc::{Status, service};


#[service]
pub trait Greeter {
    async fn hello(&self, name: String) -> Result<String, Status>;
}

struct Mine;

impl Greeter for Mine {
    async fn hello(&self, name: String) -> Result<String, Status> {
        let shared = std::rc::Rc::new(name);
        std::future::ready(()).await;
        Ok(shared.to_string())
    }
}

fn main() {}
