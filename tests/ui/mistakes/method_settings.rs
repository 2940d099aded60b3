use iip_rpc::{Status, service};


#[service]
trait Greeter {
    #[rpc(retries = 3, timeout("1s"))]
    async fn unknown(&self) -> Result<(), Status>;
    #[rpc(idempotent)]
    #[rpc(timeout = "1s", timeout = "2s", idempotent)]
    async fn repeated(&self) -> Result<(), Status>;
    #[rpc(idempotent = true)]
    async fn valued(&self) -> Result<(), Status>;
    #[rpc]
    async fn empty(&self) -> Result<(), Status>;
    #[rpc(on_cancel = "stop")]
    async fn cancelled(&self) -> Result<(), Status>;
    #[cfg_attr(all(), rpc(idempotent))]
    async fn conditional(&self) -> Result<(), Status>;
}

fn main() {}
