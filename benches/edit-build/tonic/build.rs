//! Generates client and server like `tonic_prost_build::compile_protos`, from a description that is
//! built here instead of read by `protoc`, for the number of methods in `METHODS`. The first field
//! of the first request is named by `FIELD`.
//!
//! ```proto
//! syntax = "proto3";
//! package work;
//! service Work { rpc Method0 (Args0) returns (Reply0); .. }
//! message Args0 { string name = 1; uint64 count = 2; repeated string tags = 3; }
//! message Reply0 { string text = 1; uint64 total = 2; bool complete = 3; }
//! ..
//! ```

use std::env;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, ServiceDescriptorProto,
};

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-env-changed=METHODS");
    println!("cargo:rerun-if-env-changed=FIELD");
    let methods = env::var("METHODS").expect("METHODS is set by edit-build.sh");
    let methods: usize = methods.parse().expect("METHODS is a number");
    let first_field = env::var("FIELD").expect("FIELD is set by edit-build.sh");

    let mut messages = Vec::new();
    for number in 0..methods {
        let name = if number == 0 { &first_field } else { "name" };
        messages.push(message(
            format!("Args{number}"),
            [
                (name, Type::String, Label::Optional),
                ("count", Type::Uint64, Label::Optional),
                ("tags", Type::String, Label::Repeated),
            ],
        ));
        messages.push(message(
            format!("Reply{number}"),
            [
                ("text", Type::String, Label::Optional),
                ("total", Type::Uint64, Label::Optional),
                ("complete", Type::Bool, Label::Optional),
            ],
        ));
    }
    let methods = (0..methods).map(|number| MethodDescriptorProto {
        name: Some(format!("Method{number}")),
        input_type: Some(format!(".work.Args{number}")),
        output_type: Some(format!(".work.Reply{number}")),
        ..Default::default()
    });
    let work = ServiceDescriptorProto {
        name: Some("Work".into()),
        method: methods.collect(),
        ..Default::default()
    };
    let file = FileDescriptorProto {
        name: Some("work.proto".into()),
        package: Some("work".into()),
        syntax: Some("proto3".into()),
        message_type: messages,
        service: vec![work],
        ..Default::default()
    };
    tonic_prost_build::configure().compile_fds(FileDescriptorSet { file: vec![file] })
}

fn message(name: String, fields: [(&str, Type, Label); 3]) -> DescriptorProto {
    let fields = (1..).zip(fields).map(|(number, (name, kind, label))| {
        let mut field = FieldDescriptorProto {
            name: Some(name.into()),
            number: Some(number),
            ..Default::default()
        };
        field.set_type(kind);
        field.set_label(label);
        field
    });
    DescriptorProto {
        name: Some(name),
        field: fields.collect(),
        ..Default::default()
    }
}
