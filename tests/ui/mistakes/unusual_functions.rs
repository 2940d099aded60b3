use iip_rpc::{Status, service};


#[service]
trait Greeter {
    async unsafe fn dangerous(&self) -> Result<String, Status>;
    async extern "C" fn foreign(&self) -> Result<String, Status>;
}

fn main() {}
