//! Custom error types over the wire, and the handling of all other failures.
//!
//! Run: `cargo run --example typed_errors`
//! Prints: a withdrawal, two errors of the bank with their data, one rejection as a `Status`, and
//! one call that could not be sent any more; for each failure, whether it is safe to repeat the
//! call.

use std::time::Duration;

use iip_rpc::{Client, MethodError, Schema, Server, Status, service};
use serde::{Deserialize, Serialize};

/// The errors of the bank. The caller gets the same value that the handler returned.
#[derive(Debug, thiserror::Error, Serialize, Deserialize, MethodError, Schema)]
pub enum BankError {
    /// There is no such account.
    #[error("no account {0:?}")]
    NoAccount(String),
    /// The account holds too little.
    #[error("{missing} short")]
    Short {
        /// The missing amount.
        missing: u64,
    },
    /// All other failures: no connection, no time left, a rejection, a panic.
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

/// A bank.
#[service]
pub trait Bank {
    /// Takes `amount` out of `account`, and returns what is left.
    async fn withdraw(&self, account: String, amount: u64) -> Result<u64, BankError>;
}

struct SmallBank;

impl Bank for SmallBank {
    async fn withdraw(&self, account: String, amount: u64) -> Result<u64, BankError> {
        check_office_hours(amount)?;
        let balance: u64 = match account.as_str() {
            "ann" => 100,
            _ => return Err(BankError::NoAccount(account)),
        };
        balance.checked_sub(amount).ok_or_else(|| BankError::Short {
            missing: amount - balance,
        })
    }
}

/// A function without knowledge of the bank fails with a `Status`; `?` makes it a `BankError`.
fn check_office_hours(amount: u64) -> Result<(), Status> {
    if amount > 1000 {
        return Err(Status::unavailable("large amounts from 9 to 5 only"));
    }
    Ok(())
}

async fn report(bank: &impl Bank, account: &str, amount: u64) {
    match bank.withdraw(account.into(), amount).await {
        Ok(left) => println!("{account} -{amount}: {left} left"),
        Err(BankError::Rpc(status)) => println!(
            "{account} -{amount}: {} ({}), safe to repeat: {}",
            status.code(),
            status.execution(),
            status.execution().is_safe_to_repeat(),
        ),
        Err(error) => println!("{account} -{amount}: {error}"),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder()
        .service(BankServer::new(SmallBank))
        .bind("127.0.0.1:0")
        .await?;
    let bank = BankClient::new(Client::connect(server.target()).await?);

    report(&bank, "ann", 30).await;
    report(&bank, "ann", 130).await;
    report(&bank, "bob", 1).await;
    report(&bank, "ann", 5000).await;

    server.shutdown(Duration::from_secs(1)).await;
    report(&bank, "ann", 30).await;
    Ok(())
}
