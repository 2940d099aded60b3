//! Descriptions of services, from a server or a saved file.

use std::fs;
use std::path::Path;

use iip_rpc::schema::{Description, Method, file};
use iip_rpc::{Client, Code, Status};

use crate::closest;
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
use crate::output::Output;

/// Reads the descriptions from the file at `place` if it exists, and asks the server there
/// otherwise.
pub(crate) async fn at(
    place: &str,
    connect: &ConnectArgs,
    output: &Output,
) -> Outcome<Vec<Description>> {
    if Path::new(place).is_file() {
        return in_file(Path::new(place));
    }
    if place.ends_with(".json") {
        return Err(Failure::Usage(format!("{place}: there is no such file")));
    }
    let connection = connect.connect(place, output).await?;
    of_server(&connection.within_time()).await
}

/// Reads the descriptions in a file that `iq schema save` has written.
pub(crate) fn in_file(path: &Path) -> Outcome<Vec<Description>> {
    let mistake = |reason: String| Failure::Usage(format!("{}: {reason}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| mistake(error.to_string()))?;
    file::from_text(&text).map_err(|error| mistake(error.to_string()))
}

/// Asks a server for the descriptions of its services.
pub(crate) async fn of_server(client: &Client) -> Outcome<Vec<Description>> {
    let described = client.describe().await.map_err(undescribed)?;
    Ok(described.services)
}

/// Asks a server for the descriptions of its services; `None` if it does not give them to this
/// client.
pub(crate) async fn of_server_if_told(client: &Client) -> Outcome<Option<Vec<Description>>> {
    match of_server(client).await {
        Ok(services) => Ok(Some(services)),
        Err(Failure::Status(status)) if may_hide(status.code()) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Returns `true` for the codes of servers that do not describe their services to this client.
pub(crate) fn may_hide(code: Code) -> bool {
    matches!(
        code,
        Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated
    )
}

/// Explains the failure of a server that does not describe its services.
fn undescribed(status: Status) -> Failure {
    if status.code() != Code::Unimplemented {
        return Failure::Status(status);
    }
    let text = "the server does not describe its services (it is a Go server, or was built with \
                `describe(false)`): give a saved description with --schema FILE";
    Failure::Status(Status::unimplemented(text))
}

/// Finds the service with this name.
pub(crate) fn service<'a>(services: &'a [Description], name: &str) -> Outcome<&'a Description> {
    let mut found = services.iter().filter(|service| service.service == name);
    found.next().ok_or_else(|| {
        let names = services.iter().map(|service| &*service.service);
        Failure::Usage(unknown("service", name, names))
    })
}

/// Finds the method with this name (`Service.method`, or `Service/method` as in gRPC tools) or with
/// this path (`/service/method`).
pub(crate) fn method<'a>(
    services: &'a [Description],
    name: &str,
) -> Outcome<(&'a Description, &'a Method)> {
    if name.starts_with('/') {
        let mut methods = services.iter();
        let found = methods.find_map(|service| Some((service, service.method_at(name)?)));
        return found.ok_or_else(|| {
            let all = services.iter().flat_map(|service| &service.methods);
            Failure::Usage(unknown("method at", name, all.map(|method| &*method.path)))
        });
    }
    let parts = name.rsplit_once('/').or_else(|| name.rsplit_once('.'));
    let Some((of_service, method)) = parts else {
        return Err(Failure::Usage(not_qualified(services, name)));
    };
    let is_of = |name: &str| services.iter().any(|service| service.service == name);
    if !is_of(of_service) {
        return Err(Failure::Usage(not_in_a_service(services, name, of_service)));
    }
    let description = service(services, of_service)?;
    let found = description.method(method).ok_or_else(|| {
        let names = description.methods.iter().map(|method| &*method.name);
        Failure::Usage(unknown(
            &format!("method of {of_service} called"),
            method,
            names,
        ))
    })?;
    Ok((description, found))
}

/// Returns the error text for a method name without a service, which names a service with such a
/// method.
fn not_qualified(services: &[Description], name: &str) -> String {
    let mut owners = services
        .iter()
        .filter(|service| service.method(name).is_some());
    match owners.next() {
        Some(owner) => format!(
            "name the method with its service, as in `{}.{name}`",
            owner.service
        ),
        None => format!("`{name}` is not a method, such as `Orders.place` or `/orders/place`"),
    }
}

/// Returns the error text for a method of a service that does not exist, which may be a service
/// without a method.
fn not_in_a_service(services: &[Description], name: &str, of_service: &str) -> String {
    if let Some(service) = services.iter().find(|service| service.service == name) {
        let method = service
            .methods
            .first()
            .map_or("METHOD", |method| &*method.name);
        return format!("`{name}` is a service: add the method, as in `{name}.{method}`");
    }
    let names = || services.iter().map(|service| &*service.service);
    match closest::of(name, names()) {
        Some(_) => unknown("service", name, names()),
        None => unknown("service", of_service, names()),
    }
}

fn unknown<'a>(what: &str, name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let mut text = format!("there is no {what} `{name}`");
    match (closest::of(name, names.iter().copied()), &*names) {
        (Some(close), _) => text.push_str(&format!("; the closest is `{close}`")),
        (None, []) => text.push_str("; there are none at all"),
        (None, names) => {
            let shown: Vec<String> = names
                .iter()
                .take(12)
                .map(|name| format!("`{name}`"))
                .collect();
            text.push_str(&format!("; there are {}", shown.join(", ")));
            if names.len() > 12 {
                text.push_str(&format!(" and {} more", names.len() - 12));
            }
        }
    }
    iip_core::Printable(text).to_string()
}
