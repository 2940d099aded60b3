//! `iq call`: calls of methods with JSON.

mod arguments;
mod json;
mod lines;
mod pairs;
mod run;

use iip_core::Printable;
use iip_rpc::schema::{Description, Format, Method};

pub(crate) use self::arguments::{Arguments, text_in};
pub(crate) use self::lines::message;
pub(crate) use self::pairs::{Pair, typed};
use crate::args::CallArgs;
use crate::connection::{ConnectArgs, Connection};
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::services;

/// The method to call.
pub(crate) enum Callee {
    /// A method with its description.
    Described(Box<(Description, Method)>),
    /// The path of a unary method, on a server that does not describe its services.
    Path(String),
}

/// Calls the method.
pub(crate) async fn run(args: &CallArgs, connect: &ConnectArgs, output: &Output) -> Outcome {
    // Mistakes in a file are found before the connection is made.
    let saved = args.schema.as_deref().map(services::in_file).transpose()?;
    let given = Arguments::read(&args.args).await?;
    let connection = connect.connect(&args.target, output).await?;
    let callee = match saved {
        Some(saved) => described(&saved, &args.method)?,
        None => ask(&connection, &args.method, output).await?,
    };
    let prepared = match &callee {
        Callee::Described(described) => {
            let (service, method) = &**described;
            callable(&args.target, service, method)?;
            let given = given.for_method(service, method)?;
            arguments::for_server(&given, service, method)?
        }
        Callee::Path(_) => given.untyped()?,
    };
    run::call(args, &callee, prepared, &connection, output).await
}

pub(crate) fn described(services: &[Description], name: &str) -> Outcome<Callee> {
    let (service, method) = services::method(services, name)?;
    let described = (service.clone(), method.clone());
    Ok(Callee::Described(Box::new(described)))
}

/// Asks the server for the description of a method.
pub(crate) async fn ask(connection: &Connection, name: &str, output: &Output) -> Outcome<Callee> {
    match services::of_server(&connection.within_time()).await {
        Ok(services) => described(&services, name),
        // A call by path needs no description.
        Err(Failure::Status(status))
            if name.starts_with('/') && services::may_hide(status.code()) =>
        {
            output.detail("the server does not describe its services: the call is unary");
            Ok(Callee::Path(name.to_owned()))
        }
        Err(failure) => Err(failure),
    }
}

/// Fails for methods whose messages have no JSON form.
pub(crate) fn callable(target: &str, service: &Description, method: &Method) -> Outcome {
    let name = format!("{}.{}", service.service, method.name);
    let name = Printable(name);
    if method.format == Format::Raw {
        return Err(Failure::Usage(format!(
            "{name} takes and returns raw bytes: use `iq {target} {} -d DATA`",
            Printable(&method.path)
        )));
    }
    match method.codec.as_deref() {
        Some("protobuf") => Err(Failure::Usage(format!(
            "{name} takes protobuf messages, which cannot be written in JSON"
        ))),
        _ => Ok(()),
    }
}
