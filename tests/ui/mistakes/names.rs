use iip_rpc::{Status, service};

#[service(name = "shop/Users")]
trait Users {
    async fn get(&self) -> Result<(), Status>;
}

#[service(name = "", rename_all = "Camel")]
trait Orders {
    async fn get(&self) -> Result<(), Status>;
}

#[service(name = 7, rename_all)]
trait Carts {
    async fn get(&self) -> Result<(), Status>;
}

#[service(rename_all = "UPPERCASE")]
trait Twice {
    async fn get_all(&self) -> Result<(), Status>;
    #[rpc(name = "GET_ALL")]
    async fn all(&self) -> Result<(), Status>;
}

fn main() {}
