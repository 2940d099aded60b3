//! `iq top` in a terminal emulated by tmux.

use std::net::SocketAddr;
use std::process::Output;
use std::time::Duration;

use iip_gateway::live::LivePage;
use tokio::net::TcpSocket;
use tokio::process::Command;

use crate::common::{Fixture, GUARD, Home};

/// A terminal with a shell, which ends when this is dropped.
struct Tmux {
    socket: String,
    home: Home,
}

impl Tmux {
    /// Starts a terminal; `None` if tmux is not installed.
    async fn start() -> Option<Self> {
        let home = Home::new();
        let socket = home.0.join("tmux").to_str().unwrap().to_owned();
        let this = Self { socket, home };
        // The shell of root has a different prompt.
        let rc = this.home.write("rc", "PS1='shell> '");
        let args = ["new-session", "-d", "-x", "80", "-y", "24", "exec sh -i"];
        let mut command = this.command(&["-f", "/dev/null"]);
        this.home.isolate(&mut command);
        command.args(args).env("ENV", rc).env("TERM", "screen");
        let started = command.env("IQ", env!("CARGO_BIN_EXE_iq")).output().await;
        let Ok(started) = started else {
            eprintln!("note: left out, because `tmux` is not in PATH (Debian: apt install tmux)");
            return None;
        };
        assert!(started.status.success(), "{started:?}");
        this.until("the shell", |screen| screen.contains("shell>"))
            .await;
        Some(this)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.args(["-S", &self.socket]).args(args);
        command
    }

    async fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().await.unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        output
    }

    async fn press(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat()).await;
    }

    async fn screen(&self) -> String {
        let output = self.run(&["capture-pane", "-p"]).await;
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until the screen meets a condition, and returns it.
    async fn until(&self, what: &str, is_there: impl Fn(&str) -> bool) -> String {
        let mut screen = String::new();
        let waiting = tokio::time::timeout(GUARD, async {
            loop {
                screen = self.screen().await;
                if is_there(&screen) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let waited = waiting.await;
        assert!(waited.is_ok(), "{what} is not there:\n{screen}");
        screen
    }

    /// Waits until the program ends with this code, and checks that the terminal is restored.
    async fn ended(&self, code: &str) {
        // The line with the command is back before the program has ended.
        self.until("the shell", |screen| {
            screen.trim_end().ends_with("\nshell>")
        })
        .await;
        self.press(&[
            "echo code=$?; stty -a | tr ';' '\\n' | grep -w icanon",
            "Enter",
        ])
        .await;
        let expected = format!("code={code}\n");
        let screen = self
            .until("the code", |screen| screen.contains(&expected))
            .await;
        let after = screen.rsplit(&expected).next().unwrap();
        let is_raw = after.contains("-icanon");
        assert!(!is_raw && !screen.contains("q quit"), "{screen}");
        let flags = ["display-message", "-p", "#{alternate_on}#{cursor_flag}"];
        let flags = self.run(&flags).await;
        assert_eq!(flags.stdout, b"01\n");
        self.press(&["clear", "Enter"]).await;
        self.until("an empty screen", |screen| !screen.contains("code="))
            .await;
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let mut kill = std::process::Command::new("tmux");
        let _ = kill.args(["-S", &self.socket, "kill-server"]).output();
    }
}

async fn page(shop: &Fixture, address: &str) -> SocketAddr {
    let page = LivePage::new("shop").server("orders", shop.server.raw());
    page.listen(address).await.unwrap()
}

#[tokio::test]
async fn the_screen_shows_the_process_and_gives_the_terminal_back() {
    let Some(tmux) = Tmux::start().await else {
        return;
    };
    let shop = Fixture::new().await;
    let page = page(&shop, "127.0.0.1:0").await;
    let run = format!("\"$IQ\" top http://{page}");
    tmux.press(&[&run, "Enter"]).await;
    let screen = tmux
        .until("the screen", |screen| screen.contains("q quit"))
        .await;
    assert!(screen.starts_with("shop (process "), "{screen}");
    assert!(screen.contains("ok: Nothing is wrong"), "{screen}");
    assert!(screen.contains(" 1 methods "), "{screen}");

    let call = ["call", &*shop.target, "shop.Orders.find", "id=7"];
    crate::common::iq(&call).await.data();
    tmux.until("the call", |screen| screen.contains("shop.Orders/find"))
        .await;
    tmux.press(&["/", "n", "o", "t", "h", "i", "n", "g", "Enter"])
        .await;
    tmux.until("the filter", |screen| screen.contains("with this text"))
        .await;
    tmux.press(&["Escape"]).await;
    tmux.until("all rows", |screen| screen.contains("shop.Orders/find"))
        .await;
    tmux.press(&["?"]).await;
    tmux.until("the help", |screen| screen.contains("pause and continue"))
        .await;
    tmux.press(&["Space"]).await;
    tmux.run(&["resize-window", "-x", "160", "-y", "40"]).await;
    let wide = |screen: &str| {
        let head = screen.lines().find(|line| line.starts_with("method"));
        head.is_some_and(|head| head.contains("codes/s")) && screen.lines().count() > 30
    };
    tmux.until("more columns", wide).await;
    tmux.press(&["q"]).await;
    tmux.ended("0").await;

    // The terminal is restored however the program ends.
    tmux.press(&[&run, "Enter"]).await;
    tmux.until("the screen", |screen| screen.contains("q quit"))
        .await;
    tmux.press(&["C-c"]).await;
    tmux.ended("130").await;
    for signal in ["TERM", "INT"] {
        let run = format!("sh -c 'echo $$ > pid; exec {run}'");
        tmux.press(&[&format!("cd ~ && {run}"), "Enter"]).await;
        tmux.until("the screen", |screen| screen.contains("q quit"))
            .await;
        let pid = std::fs::read_to_string(tmux.home.0.join("pid")).unwrap();
        let kill = format!("kill -{signal} {}", pid.trim());
        let killed = Command::new("sh").args(["-c", &kill]).status().await;
        assert!(killed.unwrap().success());
        tmux.ended("130").await;
    }
}

#[tokio::test]
async fn a_server_that_has_gone_is_said_to_have_and_watched_again_when_it_is_back() {
    let Some(tmux) = Tmux::start().await else {
        return;
    };
    let shop = Fixture::with(|server| server.statistics(|_| true)).await;
    let address: SocketAddr = shop.target.parse().unwrap();
    let run = format!("\"$IQ\" top {} --interval 250ms --timeout 1s", shop.target);
    tmux.press(&[&run, "Enter"]).await;
    tmux.until("the screen", |screen| screen.contains("Nothing is wrong"))
        .await;
    shop.server.shutdown(Duration::from_secs(5)).await;
    tmux.until("the loss", |screen| screen.contains("NOT CONNECTED for"))
        .await;
    // Closed connections may still occupy the port for a moment.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let listener = socket.listen(16).unwrap();
    let again = iip_rpc::Server::builder().statistics(|_| true);
    let _again = again.listen_on(listener).unwrap();
    tmux.until("the server", |screen| screen.contains("Nothing is wrong"))
        .await;
    tmux.press(&["q"]).await;
    tmux.ended("0").await;
}
