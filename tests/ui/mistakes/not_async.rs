use iip_rpc::{Status, service};


#[service]
trait Greeter {
    fn hello(&self, name: String) -> Result<String, Status>;
}

// The trait stands all the same, and nothing else is reported.
struct Mine;

impl Greeter for Mine {
    fn hello(&self, name: String) -> Result<String, Status> {
        Ok(name)
    }
}

fn main() {}
