//! Generates client and server like `tonic_prost_build::compile_protos("hello.proto")`, from a
//! description that is built here instead of read by `protoc`: so measuring does not need `protoc`,
//! and its running time does not count.
//!
//! ```proto
//! syntax = "proto3";
//! package hello;
//! service Greeter { rpc Hello (HelloRequest) returns (HelloReply); }
//! message HelloRequest { string name = 1; }
//! message HelloReply { string text = 1; }
//! ```

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, ServiceDescriptorProto,
};

fn main() -> std::io::Result<()> {
    let hello = MethodDescriptorProto {
        name: Some("Hello".into()),
        input_type: Some(".hello.HelloRequest".into()),
        output_type: Some(".hello.HelloReply".into()),
        ..Default::default()
    };
    let greeter = ServiceDescriptorProto {
        name: Some("Greeter".into()),
        method: vec![hello],
        ..Default::default()
    };
    let file = FileDescriptorProto {
        name: Some("hello.proto".into()),
        package: Some("hello".into()),
        syntax: Some("proto3".into()),
        message_type: vec![
            message("HelloRequest", "name"),
            message("HelloReply", "text"),
        ],
        service: vec![greeter],
        ..Default::default()
    };
    tonic_prost_build::configure().compile_fds(FileDescriptorSet { file: vec![file] })
}

/// A message with one string.
fn message(name: &str, field: &str) -> DescriptorProto {
    let mut string = FieldDescriptorProto {
        name: Some(field.into()),
        number: Some(1),
        ..Default::default()
    };
    string.set_label(Label::Optional);
    string.set_type(Type::String);
    DescriptorProto {
        name: Some(name.into()),
        field: vec![string],
        ..Default::default()
    }
}
