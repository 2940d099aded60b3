use std::borrow::Cow;

use iip_rpc::{Status, Stream, Streaming, service};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[service]
trait Names {
    async fn fine(&self, name: Cow<'_, str>, names: Vec<Cow<'_, str>>) -> Result<Cow<'static, str>, Status>;
    async fn argument(&self, named: Named<'_>) -> Result<(), Status>;
    async fn reference(&self, named: &Named<'_>) -> Result<(), Status>;
    async fn inside(&self, named: Vec<Named<'static>>) -> Result<(), Status>;
    async fn in_a_cow(&self, named: Cow<'_, [Named<'_>]>) -> Result<(), Status>;
    async fn in_a_stream(&self, named: Streaming<Named<'_>>) -> Result<(), Status>;
    async fn answer(&self) -> Result<Cow<'_, str>, Status>;
    async fn own_type(&self) -> Result<Named<'_>, Status>;
    async fn stream(&self) -> Result<impl Stream<Item = Result<Cow<'_, str>, Status>>, Status>;
}

fn main() {}
