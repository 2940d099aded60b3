use iip_rpc::{Status, service};


#[service]
trait Greeter {
    async fn hello<T: ToString>(&self, name: T) -> Result<String, Status>;
    async fn lent<'a>(&self, name: &'a str) -> Result<String, Status>;
    async fn sized<const N: usize>(&self, names: [u8; N]) -> Result<String, Status>;
    async fn conditional(&self) -> Result<String, Status>
    where
        Self: Sized;
}

fn main() {}
