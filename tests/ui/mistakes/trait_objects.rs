use std::sync::Arc;

use iip_rpc::{Status, service};

#[service]
trait Greeter {
    async fn hello(&self, name: String) -> Result<String, Status>;
}

struct Hall {
    greeters: Vec<Arc<dyn Greeter>>,
}

fn main() {}
