#!/usr/bin/env bash
# Writes the sources of a program that edit-build.sh measures into target/src/PROGRAM.
# Usage: ./generate.sh PROGRAM METHODS EDIT FIELD
#
# PROGRAM is iip, tonic or tarpc. The service has METHODS unary methods, each with a type of its own for its arguments
# and its result. EDIT is a number in the body of the first handler, FIELD the name of the first field of the first
# arguments: what a developer edits. Files that would not change are left alone.
#
#   types.rs     arguments and results; with tonic what its build script generates
#   service.rs   the service; with tonic it is in types.rs
#   handlers.rs  the implementation
#   calls.rs     a call of each method
#   main.rs      runs both sides and prints what the calls return
set -euo pipefail
cd "$(dirname "$0")"

program=$1 methods=$2 edit=$3 field=$4
folder=target/src/$program
mkdir -p "$folder"

# Replaces file $1 by standard input if they differ.
write() {
    cat >"$folder/$1.new"
    if cmp -s "$folder/$1.new" "$folder/$1"; then rm "$folder/$1.new"; else mv "$folder/$1.new" "$folder/$1"; fi
}

# Runs `$1 NUMBER NAME` for each method: its number, and the name of the first field of its arguments.
for_each_method() {
    local number
    "$1" 0 "$field"
    for ((number = 1; number < methods; number++)); do
        "$1" "$number" name
    done
}

# Writes the types of all methods, with serde and what prost derives as well.
write_types() {
    write types.rs <<END
use serde::{Deserialize, Serialize};
$(for_each_method types)
END
}
types() {
    cat <<END

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Args$1 {
    pub $2: String,
    pub count: u64,
    pub tags: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply$1 {
    pub text: String,
    pub total: u64,
    pub complete: bool,
}
END
}

# The body of a handler from `args` to `reply`, and its error.
handler_body() {
    local changed=0
    if [ "$1" = 0 ]; then changed=$edit; fi
    cat <<END
        if args.$2.is_empty() {
            return Err($3);
        }
        let text = format!("{} in method $1, edit {}", args.$2, $changed);
        let total = args.count + args.tags.len() as u64;
        let reply = Reply$1 { text, total, complete: total > 3 };
END
}

# The arguments of a call.
arguments() {
    echo "    let tags = vec![\"a\".to_owned(), \"b\".to_owned()];"
    echo "    let args = Args$1 { $2: \"call\".to_owned(), count: 2, tags };"
}

iip() {
    signature() { echo "    async fn method_$1(&self, args: Args$1) -> Result<Reply$1, Status>;"; }
    write_types
    write service.rs <<END
use iip_rpc::{Status, service};

use crate::types::*;

#[service]
pub trait Work {
$(for_each_method signature)
}
END
    handler() {
        cat <<END

    async fn method_$1(&self, args: Args$1) -> Result<Reply$1, Status> {
$(handler_body "$1" "$2" 'Status::invalid_argument("the name is empty")')
        Ok(reply)
    }
END
    }
    write handlers.rs <<END
use iip_rpc::Status;

use crate::service::*;
use crate::types::*;

pub struct Worker;

impl Work for Worker {
$(for_each_method handler)
}
END
    call() {
        cat <<END

pub async fn method_$1(client: &WorkClient) -> Result<String, Status> {
$(arguments "$1" "$2")
    Ok(client.method_$1(args).await?.text)
}
END
    }
    write calls.rs <<END
use iip_rpc::Status;

use crate::service::*;
use crate::types::*;
$(for_each_method call)
END
    print() { echo "    println!(\"{}\", calls::method_$1(&client).await?);"; }
    write main.rs <<END
use iip_rpc::{Client, Server};

mod calls;
mod handlers;
mod service;
mod types;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder()
        .service(service::WorkServer::new(handlers::Worker))
        .bind("127.0.0.1:0")
        .await?;
    let client = service::WorkClient::new(Client::connect(server.target()).await?);
$(for_each_method print)
    Ok(())
}
END
}

tonic() {
    write types.rs <<<'tonic::include_proto!("work");'
    handler() {
        cat <<END

    async fn method$1(&self, request: Request<Args$1>) -> Result<Response<Reply$1>, Status> {
        let args = request.into_inner();
$(handler_body "$1" "$2" 'Status::invalid_argument("the name is empty")')
        Ok(Response::new(reply))
    }
END
    }
    write handlers.rs <<END
use tonic::{Request, Response, Status};

use crate::types::work_server::Work;
use crate::types::*;

pub struct Worker;

#[tonic::async_trait]
impl Work for Worker {
$(for_each_method handler)
}
END
    call() {
        cat <<END

pub async fn method_$1(client: &mut WorkClient<Channel>) -> Result<String, Status> {
$(arguments "$1" "$2")
    Ok(client.method$1(args).await?.into_inner().text)
}
END
    }
    write calls.rs <<END
use tonic::Status;
use tonic::transport::Channel;

use crate::types::work_client::WorkClient;
use crate::types::*;
$(for_each_method call)
END
    print() { echo "    println!(\"{}\", calls::method_$1(&mut client).await?);"; }
    write main.rs <<END
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

mod calls;
mod handlers;
mod types;

use types::work_client::WorkClient;
use types::work_server::WorkServer;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let target = format!("http://{}", listener.local_addr()?);
    let server = Server::builder().add_service(WorkServer::new(handlers::Worker));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let mut client = WorkClient::connect(target).await?;
$(for_each_method print)
    Ok(())
}
END
}

tarpc() {
    signature() { echo "    async fn method_$1(args: Args$1) -> Result<Reply$1, String>;"; }
    write_types
    write service.rs <<END
use crate::types::*;

#[tarpc::service]
pub trait Work {
$(for_each_method signature)
}
END
    handler() {
        cat <<END

    async fn method_$1(self, _: Context, args: Args$1) -> Result<Reply$1, String> {
$(handler_body "$1" "$2" '"the name is empty".to_owned()')
        Ok(reply)
    }
END
    }
    write handlers.rs <<END
use tarpc::context::Context;

use crate::service::*;
use crate::types::*;

#[derive(Clone)]
pub struct Worker;

impl Work for Worker {
$(for_each_method handler)
}
END
    call() {
        cat <<END

pub async fn method_$1(client: &WorkClient) -> Result<String, Box<dyn Error>> {
$(arguments "$1" "$2")
    Ok(client.method_$1(context::current(), args).await??.text)
}
END
    }
    write calls.rs <<END
use std::error::Error;

use tarpc::context;

use crate::service::*;
use crate::types::*;
$(for_each_method call)
END
    print() { echo "    println!(\"{}\", calls::method_$1(&client).await?);"; }
    write main.rs <<END
use futures_util::StreamExt as _;
use tarpc::serde_transport::tcp;
use tarpc::server::{BaseChannel, Channel as _};
use tarpc::tokio_serde::formats::Bincode;

mod calls;
mod handlers;
mod service;
mod types;

use service::Work as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut listener = tcp::listen("127.0.0.1:0", Bincode::default).await?;
    let target = listener.local_addr();
    tokio::spawn(async move {
        while let Some(Ok(transport)) = listener.next().await {
            let calls = BaseChannel::with_defaults(transport).execute(handlers::Worker.serve());
            tokio::spawn(calls.for_each(async |call| {
                tokio::spawn(call);
            }));
        }
    });
    let transport = tcp::connect(target, Bincode::default).await?;
    let config = tarpc::client::Config::default();
    let client = service::WorkClient::new(config, transport).spawn();
$(for_each_method print)
    Ok(())
}
END
}

"$program"
