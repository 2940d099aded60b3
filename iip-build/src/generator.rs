//! The traits, as text. prost appends them to the messages of their package, and formats all of it.

use std::fmt::Write as _;

use prost_build::{Method, Service, ServiceGenerator};
use prost_types::method_options::IdempotencyLevel;

use crate::naming::{self, full_name};
use crate::settings::{Kind, Settings};

/// Generator of a trait for each service.
#[derive(Debug)]
pub(crate) struct Generator {
    settings: Settings,
}

impl Generator {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Returns the content of `#[service(..)]`: the settings of every service, and those of the
    /// build script.
    fn service_settings(&self, full_name: &str) -> String {
        let own = self.settings.of(Kind::ServiceSetting, full_name);
        // The paths of gRPC begin with this name, too.
        let name = format!("name = {full_name:?}");
        let mut settings = vec!["codec = \"protobuf\"".to_owned(), name];
        settings.extend(own.map(str::to_owned));
        settings.join(", ")
    }

    fn method(&self, service: &str, method: &Method) -> String {
        let mut out = String::new();
        method.comments.append_with_indent(1, &mut out);
        if method.options.deprecated() {
            out.push_str("#[deprecated]\n");
        }
        let (name, on_the_wire) = naming::method_name(&method.name);
        if let Some(on_the_wire) = on_the_wire {
            line(&mut out, format_args!("#[rpc(name = \"{on_the_wire}\")]"));
        }
        if method.options.idempotency_level() != IdempotencyLevel::IdempotencyUnknown {
            out.push_str("#[rpc(idempotent)]\n");
        }
        let path = full_name(service, &method.proto_name);
        for attribute in self.settings.of(Kind::MethodAttribute, &path) {
            line(&mut out, format_args!("{attribute}"));
        }
        let (request, reply) = (&method.input_type, &method.output_type);
        let argument = match method.client_streaming {
            false => format!("request: {request}"),
            true => format!("requests: ::iip_rpc::Streaming<{request}>"),
        };
        let reply = match method.server_streaming {
            false => reply.clone(),
            true => format!("impl ::iip_rpc::Stream<Item = {}>", result(reply)),
        };
        line(
            &mut out,
            format_args!("async fn {name}(&self, {argument}) -> {};", result(&reply)),
        );
        out
    }
}

impl ServiceGenerator for Generator {
    fn generate(&mut self, service: Service, out: &mut String) {
        let name = full_name(&service.package, &service.proto_name);
        service.comments.append_with_indent(0, out);
        if service.options.deprecated() {
            out.push_str("#[deprecated]\n");
        }
        for attribute in self.settings.of(Kind::TraitAttribute, &name) {
            line(out, format_args!("{attribute}"));
        }
        let settings = self.service_settings(&name);
        line(out, format_args!("#[::iip_rpc::service({settings})]"));
        let title = naming::trait_name(&self.settings, &name, &service.name);
        line(out, format_args!("pub trait {title} {{"));
        for method in &service.methods {
            out.push_str(&self.method(&name, method));
        }
        out.push_str("}\n");
    }
}

/// Returns a result type with full paths, because messages may be called `Result` and `Status`.
fn result(value: &str) -> String {
    format!("::core::result::Result<{value}, ::iip_rpc::Status>")
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}
