use iip_rpc::{CallContext as Context, Status, Streaming as Lines, service};

type Updates = iip_rpc::Subscription<u32>;
type UpdatesResult = Result<Updates, Status>;
type FineResult<T> = Result<T, Status>;

struct SearchResult;

#[service]
trait Fine {
    async fn fine(&self) -> FineResult<u32>;
}

#[service]
trait Answers {
    async fn result(&self) -> UpdatesResult;
    async fn value(&self) -> Result<Updates, Status>;
}

#[service]
trait NoResult {
    async fn search(&self, words: String) -> SearchResult;
}

#[service]
trait Arguments {
    async fn lines(&self, lines: Lines<u32>) -> Result<(), Status>;
    async fn context(&self, ctx: &Context) -> Result<(), Status>;
}

fn main() {}
