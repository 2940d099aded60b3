//! A service with secrets and calls of every kind, and recordings of its calls.

use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use iip_rpc::{
    CallOptions, Client, MethodError, Schema, Server, ServerBuilder, Status, Stream, Streaming,
    Subscription, Topic, service,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout};

use crate::common::{GUARD, Home, LONG, Ran};
use crate::streams::interrupt;

/// The password that must never be in a file.
pub(crate) const PASSWORD: &str = "correct-horse-battery-staple";

/// A token in replies and metadata.
pub(crate) const TOKEN: &str = "tok-9f8e7d6c5b4a";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
pub(crate) struct Login {
    pub(crate) user: String,
    #[schema(secret)]
    pub(crate) password: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
pub(crate) struct Account {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) balance: f32,
    pub(crate) tags: Vec<String>,
    #[schema(secret)]
    pub(crate) token: Option<String>,
}

#[derive(Debug, thiserror::Error, Serialize, Deserialize, Schema, MethodError)]
pub(crate) enum BankError {
    #[error("locked until {day}")]
    Locked {
        day: u32,
        #[schema(secret)]
        hint: String,
    },
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

#[service(name = "bank.Accounts")]
pub(crate) trait Accounts {
    #[rpc(idempotent)]
    async fn find(&self, id: u64) -> Result<Account, BankError>;
    async fn login(&self, login: Login) -> Result<Account, Status>;
    #[rpc(idempotent)]
    async fn list(&self, count: u64)
    -> Result<impl Stream<Item = Result<Account, Status>>, Status>;
    #[rpc(idempotent)]
    async fn total(&self, numbers: Streaming<u64>) -> Result<u64, Status>;
    #[rpc(idempotent)]
    async fn doubled(
        &self,
        numbers: Streaming<u64>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status>;
    #[rpc(oneway)]
    async fn tell(&self, login: Login) -> Result<(), Status>;
    async fn watch(&self) -> Result<Subscription<u32>, Status>;
    #[rpc(path = "/echo", raw)]
    async fn echo(&self, body: Bytes) -> Result<Bytes, Status>;
    /// The number of these calls that are running.
    #[rpc(idempotent)]
    async fn together(&self) -> Result<u64, Status>;
}

/// The ways in which a server behaves differently.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Change {
    #[default]
    Nothing,
    /// It returns other names, and other lists in accounts.
    Fields,
    /// It leaves out the last message of each stream.
    ShortStreams,
    /// It returns other errors.
    Errors,
}

pub(crate) struct Bank {
    pub(crate) change: Change,
    pub(crate) prices: Topic<u32>,
    pub(crate) running: AtomicU64,
}

impl Bank {
    fn account(&self, id: u64) -> Account {
        let changed = self.change == Change::Fields;
        Account {
            id,
            name: if changed { "Bob" } else { "Alice" }.to_owned(),
            balance: 0.1,
            tags: vec!["a".to_owned(); if changed { 2 } else { 1 }],
            token: Some(format!("{TOKEN}-{changed}")),
        }
    }

    fn sent(&self, count: u64) -> u64 {
        match self.change {
            Change::ShortStreams => count.saturating_sub(1),
            _ => count,
        }
    }
}

impl Accounts for Bank {
    async fn find(&self, id: u64) -> Result<Account, BankError> {
        let changed = self.change == Change::Errors;
        match id {
            0 if changed => Err(BankError::Rpc(Status::unavailable("later"))),
            0 => Err(BankError::Rpc(Status::not_found("no account 0"))),
            1 => Err(BankError::Locked {
                day: if changed { 8 } else { 7 },
                hint: format!("{PASSWORD}-{changed}"),
            }),
            id => Ok(self.account(id)),
        }
    }

    async fn login(&self, login: Login) -> Result<Account, Status> {
        match &*login.password {
            // A replayed call has a blanked password.
            PASSWORD | "***" => Ok(self.account(2)),
            _ => Err(Status::unauthenticated("no")),
        }
    }

    async fn list(
        &self,
        count: u64,
    ) -> Result<impl Stream<Item = Result<Account, Status>>, Status> {
        let accounts: Vec<_> = (2..2 + self.sent(count))
            .map(|id| self.account(id))
            .collect();
        Ok(Streaming::iter(accounts))
    }

    async fn total(&self, mut numbers: Streaming<u64>) -> Result<u64, Status> {
        let mut sum = 0;
        while let Some(number) = numbers.next().await {
            sum += number?;
        }
        Ok(sum)
    }

    async fn doubled(
        &self,
        mut numbers: Streaming<u64>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status> {
        let mut all = Vec::new();
        while let Some(number) = numbers.next().await {
            all.push(number? * 2);
        }
        all.truncate(usize::try_from(self.sent(all.len() as u64)).unwrap());
        Ok(Streaming::iter(all))
    }

    async fn tell(&self, _: Login) -> Result<(), Status> {
        Ok(())
    }

    async fn watch(&self) -> Result<Subscription<u32>, Status> {
        Ok(self.prices.subscribe().replay(3))
    }

    async fn echo(&self, body: Bytes) -> Result<Bytes, Status> {
        Ok(body)
    }

    async fn together(&self) -> Result<u64, Status> {
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        // Lets other calls begin.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        self.running.fetch_sub(1, Ordering::Relaxed);
        Ok(running)
    }
}

/// Starts a bank.
pub(crate) async fn bank(change: Change) -> Server {
    bank_with(change, |server| server).await
}

/// Starts a bank, with changes to the server.
pub(crate) async fn bank_with(
    change: Change,
    with: impl FnOnce(ServerBuilder) -> ServerBuilder,
) -> Server {
    let prices = Topic::<u32>::builder().history(8).build();
    for price in [320, 321, 322] {
        prices.publish(price).await;
    }
    let running = AtomicU64::new(0);
    let bank = AccountsServer::new(Bank {
        change,
        prices,
        running,
    });
    let server = with(Server::builder().service(bank));
    server.bind("127.0.0.1:0").await.unwrap()
}

/// Returns the path of the recording.
pub(crate) fn file(home: &Home) -> String {
    home.0.join("f.iqr").to_str().unwrap().to_owned()
}

/// Replays the recording against a server, as fast as possible.
pub(crate) async fn replay_at(home: &Home, to: &str, more: &[&str]) -> Ran {
    let file = file(home);
    let replay = ["replay", &file, "--to", to, "--pace", "max", "-t", LONG];
    home.iq(&[&replay[..], more].concat()).await
}

/// A running `iq record` in front of a server.
pub(crate) struct Recorder {
    pub(crate) child: Child,
    pub(crate) address: String,
    stdout: BufReader<ChildStdout>,
}

/// The output of a recorder.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Recorder {
    /// Starts to record to the file.
    pub(crate) async fn start(home: &Home, to: &str, more: &[&str]) -> Self {
        let mut command = home.command();
        command.args(["record", "--listen", "127.0.0.1:0", "--to", to, "-o"]);
        command.arg(file(home)).args(["-t", LONG]).args(more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let read = tokio::time::timeout(GUARD, stdout.read_line(&mut line)).await;
        read.expect("a line in time").unwrap();
        let address = line
            .strip_prefix("listening on ")
            .and_then(|rest| rest.split_once(", recording to "))
            .map(|(address, _)| address.to_owned());
        let Some(address) = address else {
            let output = child.wait_with_output().await.unwrap();
            panic!("{line:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        Self {
            child,
            address,
            stdout,
        }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&*self.address).await.unwrap()
    }

    /// Ends the recording as its user does.
    pub(crate) async fn stop(mut self) -> Stopped {
        interrupt(self.child.id().unwrap());
        let ended = async {
            let mut out = String::new();
            self.stdout.read_to_string(&mut out).await.unwrap();
            let output = self.child.wait_with_output().await.unwrap();
            Stopped {
                code: output.status.code(),
                out,
                err: String::from_utf8(output.stderr).unwrap(),
            }
        };
        tokio::time::timeout(GUARD, ended)
            .await
            .expect("an end in time")
    }
}

/// Makes a call of every kind, and checks the replies. Returns the number of calls.
pub(crate) async fn call_everything(client: &Client) -> u64 {
    let secret = CallOptions::new().metadata("authorization", TOKEN).unwrap();
    let secret = secret.metadata("tenant", TOKEN).unwrap();
    let secret = secret.metadata("colour", "green").unwrap();
    let bank = AccountsClient::new(client.with_options(secret));
    assert_eq!(bank.find(5).await.unwrap().name, "Alice");
    assert!(matches!(bank.find(0).await, Err(BankError::Rpc(_))));
    let locked = bank.find(1).await;
    assert!(matches!(locked, Err(BankError::Locked { day: 7, .. })));
    let login = Login {
        user: "alice".to_owned(),
        password: PASSWORD.to_owned(),
    };
    assert_eq!(bank.login(login.clone()).await.unwrap().id, 2);
    let mut list = bank.list(3).await.unwrap();
    let mut count = 0;
    while let Some(account) = list.next().await {
        account.unwrap();
        count += 1;
    }
    assert_eq!(count, 3);
    assert_eq!(bank.total(Streaming::iter([1, 2, 3])).await.unwrap(), 6);
    let mut doubled = bank.doubled(Streaming::iter([1, 2])).await.unwrap();
    assert_eq!(doubled.next().await.unwrap().unwrap(), 2);
    assert_eq!(doubled.next().await.unwrap().unwrap(), 4);
    assert!(doubled.next().await.is_none());
    bank.tell(login).await.unwrap();
    let mut prices = bank.watch().await.unwrap();
    for _ in 0..2 {
        prices.next().await.unwrap().unwrap();
    }
    drop(prices);
    let raw = Bytes::from_static(b"\xff\0raw");
    assert_eq!(bank.echo(raw.clone()).await.unwrap(), raw);
    10
}
