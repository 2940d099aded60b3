use iip_rpc::{Status, service};


#[service(dyn)]
trait Greeter: std::fmt::Debug {
    async fn hello(&self) -> Result<(), Status>;
}

fn main() {}

#[service(dyn)]
trait Sized
where
    Self: Clone + Send,
{
    async fn hello(&self) -> Result<(), Status>;
}

#[service(dyn)]
trait Static: Send + Sync + 'static {
    async fn hello(&self) -> Result<(), Status>;
}
