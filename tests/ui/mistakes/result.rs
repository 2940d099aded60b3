use iip_rpc::{Status, service};


#[service]
trait Greeter {
    async fn nothing(&self);
    async fn plain(&self, name: String) -> String;
    async fn many(&self) -> Option<Vec<u8>>;
    async fn lent(&self) -> &str;
    async fn inside(&self) -> Result<&[u8], Status>;
    async fn opaque(&self) -> Result<impl ToString, Status>;
    async fn itself(&self) -> Result<Self, Status>;
}

fn main() {}
