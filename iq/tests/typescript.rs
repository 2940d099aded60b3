//! `iq gen ts`. Compiling the generated clients and calling services with them are tested in
//! `.ci/browser/typescript.test.mjs`.

use std::path::Path;

use iip_rpc::{Status, service};
use serde_json::json;

use crate::common::{Fixture, Home, iq};

#[tokio::test]
async fn a_client_has_the_types_and_methods_of_the_server() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let text = iq(&["gen", "ts", &shop.target]).await.data();
    for part in [
        "// Service: shop.Orders\n",
        "export type Colour = \"Red\" | \"Green\";\n",
        "/** What is ordered. */\nexport interface Order {\n  /** Its number. */\n  id: bigint;\n  \
         colour: Colour;\n  tags?: string[];\n  note?: string | null;\n}\n",
        "export type OrderError = { SoldOut: { day: number } } | { Rpc: Status };\n",
        "export function asOrderError(error: unknown): OrderError | undefined {\n",
        "/**\n * Takes orders.\n *\n * And tells about them.\n */\nexport class OrdersClient {\n",
        "   * The timeout is 5000 ms unless an option sets another.\n",
        "  place(args: { order: Order }, options?: CallOptions): Promise<bigint> {\n    \
         return this.#client.unary(\n      { path: \"/shop.Orders/place\", result: read.bigint, \
         error: \"OrderError\" },\n      args,\n      options,\n    );\n  }\n",
        "    args: { id: bigint; detailed?: boolean | null },\n",
        "  forever(options?: CallOptions): Promise<void> {\n",
        "  tell(args: { text: string }, options?: CallOptions): Promise<void> {\n",
        "  list(args: { count: bigint }, options?: CallOptions): AsyncIterable<Order> {\n",
        "  watch(options?: SubscribeOptions): AsyncIterable<Update<number>> {\n",
        "    args: { factor: bigint },\n    messages: Messages<bigint>,\n",
        "  echo(body: Uint8Array | string, options?: CallOptions): Promise<Uint8Array> {\n",
        "  Order: read.struct({ id: read.bigint }),\n",
    ] {
        assert!(text.contains(part), "{part}\n---\n{text}");
    }
    let only = ["gen", "ts", &shop.target, "shop.Orders"];
    assert_eq!(iq(&only).await.data(), text);
    let file = home.0.join("client.ts").to_str().unwrap().to_owned();
    let written = home.iq(&["gen", "ts", &shop.target, "-o", &file]).await;
    assert_eq!(written.data(), "");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    let json = iq(&["gen", "ts", &shop.target, "--json"]).await.json();
    assert_eq!(json, [json!({"type": "typescript", "text": text})]);
    let error = iq(&["gen", "ts", &shop.target, "nothing"]).await.failed(2);
    assert!(error.contains("no service `nothing`"), "{error}");
}

/// Counts articles. Its name comes before that of the other service, which is registered first.
#[service(name = "Articles")]
trait Articles {
    /// Counts all of them.
    async fn count(&self) -> Result<u32, Status>;
    async fn ask(&self) -> Result<u32, Status>;
}

struct Nothing;

impl Articles for Nothing {
    async fn count(&self) -> Result<u32, Status> {
        Ok(0)
    }

    async fn ask(&self) -> Result<u32, Status> {
        Ok(0)
    }
}

#[tokio::test]
async fn a_server_and_its_saved_description_generate_the_same() {
    let shop = Fixture::with(|server| server.service(ArticlesServer::new(Nothing))).await;
    let home = Home::new();
    let file = home.0.join("shop.json").to_str().unwrap().to_owned();
    let save = ["schema", "save", &shop.target, "-o", &file];
    assert_eq!(home.iq(&save).await.code, Some(0));
    for kind in ["ts", "openapi"] {
        let of_server = home.iq(&["gen", kind, &shop.target]).await.data();
        let of_file = home.iq(&["gen", kind, &file]).await.data();
        assert_eq!(of_server, of_file);
        let places = [
            "Counts all of them.",
            "Places an order.",
            "What is ordered.",
        ];
        for text in places {
            assert!(of_file.contains(text), "{text}\n---\n{of_file}");
        }
    }
    let client = home.iq(&["gen", "ts", &file]).await.data();
    let places = ["  ask(", "  count(", "class OrdersClient", "  caller("];
    let places = places.map(|part| client.find(part).expect(part));
    assert!(places.is_sorted(), "{client}");
}

#[tokio::test]
async fn names_and_documentation_of_a_hostile_server_stay_in_their_places() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join("../.ci/browser/typescript/hostile.schema.json");
    let ran = iq(&["gen", "ts", file.to_str().unwrap()]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("has no form in HTTP"), "{}", ran.err);
    // Outside comments and literals, there is no text from the server.
    let (made, others) = ran.out.split_once("// What follows is the same").unwrap();
    let (_, table) = others.split_once("\nconst readers").unwrap();
    let made = format!("{made}{table}");
    let (mut code, mut rest) = (String::new(), &*made);
    while let Some(at) = rest.find("/*").into_iter().chain(rest.find('"')).min() {
        code.push_str(&rest[..at]);
        let inside = &rest[at..];
        let end = match inside.starts_with('"') {
            false => inside.find("*/").unwrap() + 2,
            true => {
                let mut escaped = false;
                let mut chars = inside.char_indices().skip(1);
                let end = chars.find(|(_, c)| {
                    let ends = *c == '"' && !escaped;
                    escaped = *c == '\\' && !escaped;
                    ends
                });
                end.unwrap().0 + 1
            }
        };
        rest = &inside[end..];
    }
    code.push_str(rest);
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    for line in lines {
        assert!(!line.contains("alert("), "{line}");
    }
    let is_harmless =
        |c: char| c == '\n' || !(c.is_control() || c == '\u{202e}' || c == '\u{2028}');
    assert!(ran.out.chars().all(is_harmless));
}
