//! `iq diff` and `iq schema check`.

use iip_rpc::{Server, Status, service};
use serde_json::json;

use crate::common::{Home, iq, json_lines};

mod old {
    use super::*;

    #[service]
    pub(crate) trait Sizes {
        async fn set(&self, width: u32, height: u32) -> Result<u32, Status>;
        async fn get(&self) -> Result<u32, Status>;
    }

    pub(crate) struct Here;

    impl Sizes for Here {
        async fn set(&self, width: u32, height: u32) -> Result<u32, Status> {
            Ok(width * height)
        }

        async fn get(&self) -> Result<u32, Status> {
            Ok(0)
        }
    }
}

mod new {
    use super::*;

    #[service]
    pub(crate) trait Sizes {
        async fn set(&self, width: u32, height: u32, depth: Option<u32>) -> Result<u32, Status>;
        async fn clear(&self) -> Result<(), Status>;
    }

    pub(crate) struct Here;

    impl Sizes for Here {
        async fn set(&self, width: u32, height: u32, _: Option<u32>) -> Result<u32, Status> {
            Ok(width * height)
        }

        async fn clear(&self) -> Result<(), Status> {
            Ok(())
        }
    }
}

pub(crate) async fn both() -> (Server, Server) {
    let old = Server::builder().service(old::SizesServer::new(old::Here));
    let new = Server::builder().service(new::SizesServer::new(new::Here));
    (
        old.bind("127.0.0.1:0").await.unwrap(),
        new.bind("127.0.0.1:0").await.unwrap(),
    )
}

#[tokio::test]
async fn a_check_fails_if_old_clients_miss_a_method() {
    let (old, new) = both().await;
    let (old, new) = (old.target().to_string(), new.target().to_string());
    let home = Home::new();
    let file = home.0.join("old.json").to_str().unwrap().to_owned();
    home.iq(&["schema", "save", &old, "-o", &file]).await;

    let ran = home
        .iq(&["schema", "check", &file, &new, "--direction", "server"])
        .await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(
        ran.out,
        "incompatible: Sizes, old client, new server: the method with the path `/sizes/get` is \
         not there; calls fail with UNIMPLEMENTED\n"
    );
    assert_eq!(ran.err, "error: 1 difference is not compatible\n");
    // New clients cannot send the new argument to old servers in any codec.
    let clients = home
        .iq(&["schema", "check", &file, &new, "--direction", "client"])
        .await;
    assert_eq!(clients.code, Some(1));
    assert!(
        clients
            .out
            .contains("new client, old server (bincode, postcard, MessagePack, JSON): "),
        "{}",
        clients.out
    );
    assert_eq!(home.iq(&["schema", "check", &file, &old]).await.data(), "");
}

#[tokio::test]
async fn warnings_fail_only_if_they_are_denied_and_are_called_warnings() {
    let (old, _new) = both().await;
    let (old, home) = (old.target().to_string(), Home::new());
    let saved = home.iq(&["schema", "save", &old]).await.data();
    let wide = saved.replace("\"result\": \"u32\"", "\"result\": \"u64\"");
    assert_ne!(wide, saved);
    let wide = home.write("wide.json", wide);
    let check = ["schema", "check", &wide, &old, "--codec", "named"];
    let warned = home.iq(&check).await.data();
    assert_eq!(warned.matches("warning: Sizes, ").count(), 2, "{warned}");
    assert_eq!(warned.lines().count(), 2, "{warned}");
    let ran = home.iq(&[&check[..], &["--deny-warnings"]].concat()).await;
    assert_eq!((ran.code, ran.out), (Some(1), warned));
    assert_eq!(ran.err, "error: 2 warnings (option --deny-warnings)\n");
}

#[tokio::test]
async fn an_argument_more_fits_codecs_with_names_only() {
    let (old, new) = both().await;
    let (old, new) = (old.target().to_string(), new.target().to_string());
    let check = async |codec| {
        let options = ["--direction", "server", "--codec", codec, "--json"];
        iq(&[&["schema", "check", &*old, &*new], &options[..]].concat()).await
    };
    // Only the removed method.
    for codec in ["named", "any"] {
        let found = json_lines(&check(codec).await.out);
        assert_eq!(
            (found.len(), &found[0]["place"]),
            (1, &json!("get")),
            "{codec}: {found:?}"
        );
    }
    let positional = check("positional").await;
    assert_eq!(positional.code, Some(1));
    let found = json_lines(&positional.out);
    assert_eq!(found.len(), 3, "{found:?}");
    let first = &found[0];
    assert_eq!(
        (
            &first["type"],
            &first["service"],
            &first["place"],
            &first["verdict"]
        ),
        (
            &json!("difference"),
            &json!("Sizes"),
            &json!("set(depth)"),
            &json!("incompatible")
        ),
    );
    assert_eq!(
        (&first["codecs"], &found[1]["codecs"]),
        (&json!(["bincode"]), &json!(["postcard"]))
    );
}

#[tokio::test]
async fn servers_that_differ_are_compared() {
    let (old, new) = both().await;
    let (old, new) = (old.target().to_string(), new.target().to_string());
    let ran = iq(&["diff", &old, &new]).await;
    assert_eq!(ran.code, Some(1));
    for text in [
        "warning: Sizes: the method `get` at `/sizes/get` is only in the first\n",
        "warning: Sizes: the method `clear` at `/sizes/clear` is only in the second\n",
        "incompatible: Sizes, first calls second (bincode): ",
        "`depth`",
    ] {
        assert!(ran.out.contains(text), "{text}\n---\n{}", ran.out);
    }
    assert!(ran.err.contains("differences"), "{}", ran.err);
    assert_eq!(iq(&["diff", &old, &old]).await.data(), "");
}
