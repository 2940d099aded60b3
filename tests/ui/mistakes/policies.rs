use iip_rpc::{Status, service};


#[service]
trait Greeter {
    #[rpc(hedge = "20ms")]
    async fn hedged_twice_run(&self) -> Result<(), Status>;
    #[rpc(idempotent, hedge = "p100")]
    async fn percentile(&self) -> Result<(), Status>;
    #[rpc(idempotent, hedge = "20")]
    async fn delay(&self) -> Result<(), Status>;
    #[rpc(idempotent, hedge)]
    async fn no_delay(&self) -> Result<(), Status>;
    #[rpc(priority = "urgent")]
    async fn urgent(&self) -> Result<(), Status>;
    #[rpc(max_concurrency = "many")]
    async fn many(&self) -> Result<(), Status>;
    #[rpc(max_concurrency = 0)]
    async fn none(&self) -> Result<(), Status>;
    #[rpc(max_concurrency)]
    async fn unsaid(&self) -> Result<(), Status>;
    #[rpc(auth = "")]
    async fn unguarded(&self) -> Result<(), Status>;
}

fn main() {}
