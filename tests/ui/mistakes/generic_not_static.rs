use iip_rpc::{Status, service};
use serde::{Serialize, de::DeserializeOwned};

#[service]
pub trait Store<K: Serialize + DeserializeOwned + Send> {
    async fn get(&self, key: K) -> Result<String, Status>;
}

fn main() {}
