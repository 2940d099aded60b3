use iip_rpc::{Status, service};


#[service(pth = "/greeter", dyn, dyn, path = greeter)]
trait Unknown {
    async fn hello(&self) -> Result<(), Status>;
}

#[service(path = "greeter", crate = "not a path")]
trait Relative {
    async fn hello(&self) -> Result<(), Status>;
}

#[service(path = "/greeter/", dyn = true, "what")]
trait Slash {
    async fn hello(&self) -> Result<(), Status>;
}

fn main() {}
