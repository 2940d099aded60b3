use iip_rpc::{Status, service};


#[service(pat = "/greeter")]
pub trait Greeter {
    /// Says hello.
    fn hello(&mut self, name: &mut str) -> String;
    async fn new<T>(&self, (a, b): (T, T)) -> Result<(), Status>;
    #[rpc(timeout = "soon")]
    async fn fine(&self, name: String) -> Result<String, Status>;
}

// Everything that the rest of the program names is still there.
struct Mine;

impl Greeter for Mine {
    fn hello(&mut self, _: &mut str) -> String {
        String::new()
    }
    async fn new<T>(&self, _: (T, T)) -> Result<(), Status> {
        Ok(())
    }
    async fn fine(&self, name: String) -> Result<String, Status> {
        Ok(name)
    }
}

async fn uses(client: iip_rpc::Client) -> Result<String, Status> {
    let _ = GreeterServer::new(Mine);
    GreeterClient::new(client).fine("you".into()).await
}

fn main() {
    let _ = uses;
}
