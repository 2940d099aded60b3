use iip_rpc::{Status, service};


#[service]
pub trait Echo {
    #[rpc(raw)]
    async fn echo(&self, body: u64) -> Result<u32, Status>;
}

fn main() {}
