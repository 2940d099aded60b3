//! Calls that fail: the error at the caller, whether the call may have run, and that the connection
//! stays usable.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use iip_rpc::codec::CodecId;
use iip_rpc::envelope::{Outcome, ReplyHead};
use iip_rpc::schema::check_derived;
use iip_rpc::{
    CallContext, Client, Code, Execution, Metadata, MethodError, Schema, Status, service,
};
use serde::{Deserialize, Serialize};

use crate::common::calls::{expect, port, request, serve, serve_json, status_in};
use crate::common::within;

#[derive(Debug, PartialEq, Serialize, Deserialize, thiserror::Error, MethodError, Schema)]
enum TransferError {
    #[error("only {left} are left")]
    TooPoor { left: u64 },
    #[error("nobody is called {0}")]
    Nobody(String),
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

#[service]
trait Bank {
    async fn transfer(&self, to: String, amount: u64) -> Result<u64, TransferError>;
    async fn explain(&self) -> Result<(), Status>;
    async fn reject(&self) -> Result<(), Status>;
    /// The failure of the last transfer, as a value.
    async fn last_failure(&self) -> Result<Status, Status>;
    /// Fails after `ms`.
    async fn think(&self, ms: u64) -> Result<(), Status>;
    async fn panic_at_once(&self) -> Result<(), Status>;
    async fn panic_later(&self) -> Result<(), TransferError>;
    #[rpc(raw)]
    async fn raw_panic(&self, body: Bytes) -> Result<Bytes, Status>;
    #[rpc(raw)]
    async fn raw_failure(&self, body: Bytes) -> Result<Bytes, Status>;
    /// Returns the port of the caller's connection.
    async fn port(&self, ctx: &CallContext) -> Result<u16, Status>;
}

struct Vault;

fn details() -> Status {
    let mut metadata = Metadata::new();
    metadata.insert_text("retry-after", "3").unwrap();
    metadata.append("x-bytes", vec![0, 255]).unwrap();
    Status::failed_precondition("the vault is shut")
        .with_details(vec![1, 2, 0])
        .with_metadata(metadata)
}

impl Bank for Vault {
    async fn transfer(&self, to: String, amount: u64) -> Result<u64, TransferError> {
        match (to.as_str(), amount) {
            ("closed", _) => Err(TransferError::Rpc(details())),
            ("bob", 0..=100) => Ok(100 - amount),
            ("bob", _) => Err(TransferError::TooPoor { left: 100 }),
            _ => Err(TransferError::Nobody(to)),
        }
    }

    async fn explain(&self) -> Result<(), Status> {
        Err(details())
    }

    async fn reject(&self) -> Result<(), Status> {
        Err(Status::unavailable("not now").with_execution(Execution::NotExecuted))
    }

    async fn last_failure(&self) -> Result<Status, Status> {
        Ok(Status::unavailable("not now").with_execution(Execution::NotExecuted))
    }

    async fn think(&self, ms: u64) -> Result<(), Status> {
        // The test measures the time that a handler takes.
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Err(Status::aborted("thought better of it"))
    }

    async fn panic_at_once(&self) -> Result<(), Status> {
        panic!("a secret")
    }

    async fn panic_later(&self) -> Result<(), TransferError> {
        tokio::task::yield_now().await;
        panic!("a secret")
    }

    async fn raw_panic(&self, _: Bytes) -> Result<Bytes, Status> {
        panic!("a secret")
    }

    async fn raw_failure(&self, _: Bytes) -> Result<Bytes, Status> {
        Err(Status::internal("boom"))
    }

    async fn port(&self, ctx: &CallContext) -> Result<u16, Status> {
        port(ctx)
    }
}

/// The same paths with other arguments, like those of a client of another version.
#[service(path = "/bank")]
trait OtherBank {
    async fn transfer(&self, to: u8) -> Result<u64, Status>;
    async fn missing(&self, to: u8) -> Result<u64, TransferError>;
    /// A method whose server replies with `()`.
    #[rpc(name = "port")]
    async fn port_as_text(&self) -> Result<Vec<String>, Status>;
}

/// Calls another server and returns the failure of that call.
#[service]
trait Broker {
    async fn unknown(&self) -> Result<u64, Status>;
    async fn unreachable(&self) -> Result<(), Status>;
    async fn rejected(&self) -> Result<u64, TransferError>;
    /// Fails like the last transfer, and counts its calls.
    async fn last_failure(&self) -> Result<(), Status>;
}

struct Agent {
    bank: OtherBankClient,
    unreachable: BankClient,
    asked: AtomicUsize,
}

impl Broker for Agent {
    async fn unknown(&self) -> Result<u64, Status> {
        self.bank.transfer(1).await
    }

    async fn unreachable(&self) -> Result<(), Status> {
        self.unreachable.explain().await
    }

    async fn rejected(&self) -> Result<u64, TransferError> {
        self.bank.missing(1).await
    }

    async fn last_failure(&self) -> Result<(), Status> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Err(self.unreachable.last_failure().await?)
    }
}

/// The status in a typed error.
#[track_caller]
fn rpc_status(error: TransferError) -> Status {
    match error {
        TransferError::Rpc(status) => status,
        other => panic!("not the status variant: {other:?}"),
    }
}

/// Runs `fail` and checks that the connection is the same before and after it.
async fn on_a_connection_that_lives<T>(client: &Client, fail: impl Future<Output = T>) -> T {
    let bank = BankClient::new(client.clone());
    let ctx = CallContext::new();
    let before = within("a call before", bank.port(&ctx)).await.unwrap();
    let outcome = within("the failure", fail).await;
    let after = within("a call after", bank.port(&ctx)).await.unwrap();
    assert_eq!(before, after, "the connection was replaced");
    outcome
}

#[tokio::test]
async fn a_typed_error_arrives_as_the_value_it_was() {
    let (_server, client) = serve(BankServer::new(Vault)).await;
    let bank = BankClient::new(client);
    assert_eq!(bank.transfer("bob".into(), 30).await, Ok(70));
    assert_eq!(
        bank.transfer("bob".into(), 101).await,
        Err(TransferError::TooPoor { left: 100 })
    );
    assert_eq!(
        bank.transfer("eve".into(), 1).await,
        Err(TransferError::Nobody("eve".into()))
    );
}

#[tokio::test]
async fn a_typed_error_arrives_in_json_too() {
    let (_server, client) = serve_json(BankServer::new(Vault)).await;
    let bank = BankClient::new(client);
    assert_eq!(
        bank.transfer("bob".into(), 101).await,
        Err(TransferError::TooPoor { left: 100 })
    );
    let status = bank.explain().await.unwrap_err();
    assert_eq!(status, details());
}

#[tokio::test]
async fn a_status_arrives_with_its_details_and_metadata() {
    let (_server, client) = serve(BankServer::new(Vault)).await;
    let status = BankClient::new(client).explain().await.unwrap_err();
    expect(
        &status,
        Code::FailedPrecondition,
        Execution::MayHaveExecuted,
    );
    assert_eq!(status.message(), "the vault is shut");
    assert_eq!(status.details()[..], [1, 2, 0]);
    assert_eq!(status.metadata().text("retry-after"), Some("3"));
    assert_eq!(status.metadata().get("x-bytes").unwrap()[..], [0, 255]);
}

#[tokio::test]
async fn a_status_reports_the_time_that_its_handler_took() {
    let (_server, client) = serve(BankServer::new(Vault)).await;
    let status = BankClient::new(client).think(30).await.unwrap_err();
    expect(&status, Code::Aborted, Execution::MayHaveExecuted);
    let phases = *status.phases().expect("every failed call is measured");
    let took = Duration::from_millis(30);
    assert!(phases.server_handler >= Some(took), "{phases:?}");
    assert!(phases.reply >= took, "{phases:?}");
    assert!(phases.total() >= took, "{status}");
}

#[tokio::test]
async fn a_status_inside_a_typed_error_travels_as_a_status() {
    let (_server, client) = serve(BankServer::new(Vault)).await;
    let bank = BankClient::new(client);
    let error = bank.transfer("closed".into(), 1).await.unwrap_err();
    assert_eq!(error, TransferError::Rpc(details()));
    assert_eq!(rpc_status(error).execution(), Execution::MayHaveExecuted);
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented_and_was_not_executed() {
    let (_server, client) = serve(BankServer::new(Vault)).await;
    let other = OtherBankClient::new(client.clone());
    let error = on_a_connection_that_lives(&client, other.missing(1)).await;
    let status = rpc_status(error.unwrap_err());
    expect(&status, Code::Unimplemented, Execution::NotExecuted);
    assert!(status.message().contains("/bank/missing"), "{status}");
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_invalid_and_were_not_executed() {
    let (_server, client) = serve(BankServer::new(Vault)).await;
    let other = OtherBankClient::new(client.clone());
    let error = on_a_connection_that_lives(&client, other.transfer(200)).await;
    let status = error.unwrap_err();
    expect(&status, Code::InvalidArgument, Execution::NotExecuted);
    assert!(status.message().contains("`to`"), "{status}");
}

#[tokio::test]
async fn a_missing_argument_is_named() {
    let (_server, client) = serve_json(BankServer::new(Vault)).await;
    let status = OtherBankClient::new(client).transfer(1).await.unwrap_err();
    expect(&status, Code::InvalidArgument, Execution::NotExecuted);
    assert!(status.message().contains("to"), "{status}");
}

#[tokio::test]
async fn a_reply_that_does_not_fit_is_internal_and_may_have_executed() {
    let (_server, client) = serve(BankServer::new(Vault)).await;
    let other = OtherBankClient::new(client.clone());
    let status = on_a_connection_that_lives(&client, other.port_as_text()).await;
    let status = status.unwrap_err();
    expect(&status, Code::Internal, Execution::MayHaveExecuted);
    let text = status.message();
    assert!(text.starts_with("OtherBank.port: "), "{text}");
    let phases = status.phases().expect("phases");
    assert!(!phases.reply.is_zero(), "{status:?}");
}

#[tokio::test]
async fn a_panic_is_internal_and_its_text_is_not_sent() {
    let (_server, client) = serve(BankServer::new(Vault)).await;
    let bank = BankClient::new(client.clone());
    let status = on_a_connection_that_lives(&client, bank.panic_at_once())
        .await
        .unwrap_err();
    expect(&status, Code::Internal, Execution::MayHaveExecuted);
    assert!(status.message().contains("panicked"), "{status}");
    assert!(!status.to_string().contains("secret"), "{status}");
}

#[tokio::test]
async fn a_panic_after_an_await_is_internal_too() {
    let (_server, client) = serve(BankServer::new(Vault)).await;
    let bank = BankClient::new(client.clone());
    let error = on_a_connection_that_lives(&client, bank.panic_later())
        .await
        .unwrap_err();
    let status = rpc_status(error);
    expect(&status, Code::Internal, Execution::MayHaveExecuted);
}

#[tokio::test]
async fn a_panic_or_failure_of_a_raw_method_becomes_a_status_at_the_caller() {
    let (_server, client) = serve(BankServer::new(Vault)).await;
    let bank = BankClient::new(client.clone());
    let status = on_a_connection_that_lives(&client, bank.raw_panic("x".into()))
        .await
        .unwrap_err();
    expect(&status, Code::Internal, Execution::MayHaveExecuted);
    let status = on_a_connection_that_lives(&client, bank.raw_failure("x".into()))
        .await
        .unwrap_err();
    expect(&status, Code::Unknown, Execution::MayHaveExecuted);
    assert_eq!(status.message(), "handler fail:boom");
}

#[tokio::test]
async fn the_failure_of_a_nested_call_reports_that_the_outer_one_may_have_run() {
    let (_bank_server, bank) = serve(BankServer::new(Vault)).await;
    let unreachable = Client::builder().connect_lazy("127.0.0.1:1").unwrap();
    let agent = Agent {
        bank: OtherBankClient::new(bank),
        unreachable: BankClient::new(unreachable),
        asked: AtomicUsize::new(0),
    };
    let (_server, client) = serve(BrokerServer::new(agent)).await;
    let broker = BrokerClient::new(client);
    // The inner call was not executed, by the bank's decoder.
    let status = within("the reply", broker.unknown()).await.unwrap_err();
    expect(&status, Code::InvalidArgument, Execution::MayHaveExecuted);
    // The inner call was not sent, because there was no server.
    let status = within("the reply", broker.unreachable()).await.unwrap_err();
    expect(&status, Code::Unavailable, Execution::MayHaveExecuted);
    // The same inside a typed error.
    let error = within("the reply", broker.rejected()).await.unwrap_err();
    let status = rpc_status(error);
    expect(&status, Code::Unimplemented, Execution::MayHaveExecuted);
}

#[tokio::test]
async fn a_status_that_came_in_a_value_does_not_say_that_the_handler_did_not_run() {
    let (_bank_server, bank) = serve(BankServer::new(Vault)).await;
    let agent = Agent {
        bank: OtherBankClient::new(bank.clone()),
        unreachable: BankClient::new(bank),
        asked: AtomicUsize::new(0),
    };
    let agent = Arc::new(agent);
    let (_server, client) = serve(BrokerServer::from_arc(Arc::clone(&agent))).await;
    let broker = BrokerClient::new(client);
    let status = within("the reply", broker.last_failure())
        .await
        .unwrap_err();
    expect(&status, Code::Unavailable, Execution::MayHaveExecuted);
    assert_eq!(
        agent.asked.load(Ordering::SeqCst),
        1,
        "it ran, so it is not repeated"
    );
}

#[tokio::test]
async fn a_failure_keeps_its_source_in_this_process() {
    let client = Client::builder().connect_lazy("127.0.0.1:1").unwrap();
    let status = within("the rejection", BankClient::new(client).explain())
        .await
        .unwrap_err();
    expect(&status, Code::Unavailable, Execution::NotSent);
    let cause = status.cause().unwrap();
    assert!(cause.is::<iip_core::CallError>());
    // The message contains it: a program that prints the chain would print it twice.
    assert!(std::error::Error::source(&status).is_none());
    assert!(status.message().contains("127.0.0.1:1"), "{status}");
    assert!(status.message().contains("Bank.explain"), "{status}");
    assert!(status.phases().is_some());
}

/// Sends `message` unchanged to a method without arguments, and reads the status that comes back.
async fn status_of(client: &Client, message: impl Into<Bytes>) -> Status {
    let message = message.into();
    let reply = within("a reply", client.raw().request("/bank/explain", message)).await;
    status_in(reply.unwrap())
}

#[tokio::test]
async fn an_envelope_that_is_not_understood_is_rejected_with_a_reason() {
    let (_server, client) = serve(BankServer::new(Vault)).await;
    for (what, message) in [
        ("another version", vec![0x90, 1]),
        ("the last version", vec![0xBF, 1]),
        ("an unknown flag", vec![0x84, 1]),
        ("an unknown codec", vec![0x80, 77]),
    ] {
        let status = status_of(&client, message).await;
        assert_eq!(
            (status.code(), status.execution()),
            (Code::Unimplemented, Execution::NotExecuted),
            "{what}: {status:?}"
        );
        assert!(!status.message().is_empty(), "{what}");
    }
    for (what, message) in [
        ("nothing after the first byte", vec![0x80]),
        ("a cut varint", vec![0x81, 1, 0xFF]),
        ("a varint that is too long", vec![0x81, 1, 0x80, 0]),
        ("metadata without entries", vec![0x82, 1]),
        ("bytes after the arguments", vec![0x80, 1, 0]),
    ] {
        let status = status_of(&client, message).await;
        assert_eq!(
            (status.code(), status.execution()),
            (Code::InvalidArgument, Execution::NotExecuted),
            "{what}: {status:?}"
        );
    }
    // The same connection is still used.
    let status = BankClient::new(client).explain().await.unwrap_err();
    assert_eq!(status, details());
}

#[tokio::test]
async fn a_request_in_an_envelope_made_by_hand_gets_a_reply() {
    let (_server, client) = serve(BankServer::new(Vault)).await;
    let message = request(CodecId::JSON, None, br#"{"amount":1,"to":"bob"}"#);
    let reply = client.raw().request("/bank/transfer", message);
    let (head, body) = ReplyHead::read(reply.await.unwrap()).unwrap();
    assert_eq!((head.codec, head.outcome), (CodecId::JSON, Outcome::Value));
    assert_eq!(body, "99");
}

#[tokio::test]
async fn a_handler_that_rejects_before_it_changes_anything_can_report_that() {
    let (_server, client) = serve(BankServer::new(Vault)).await;
    let status = BankClient::new(client).reject().await.unwrap_err();
    expect(&status, Code::Unavailable, Execution::NotExecuted);
}

#[test]
fn types_are_described_as_they_are_observed() {
    check_derived::<TransferError>().unwrap();
}
