use iip_rpc::{Status, service};

#[service(dyn)]
pub trait Store<K, V>
where
    V: Clone,
{
    async fn get(&self, key: K) -> Result<String, Status>;
}

fn main() {}
