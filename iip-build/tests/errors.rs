//! Errors of a build script about files and settings that cannot be used, with their positions.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

use iip_build::prost_types::{FileDescriptorProto, FileDescriptorSet};
use iip_build::{Builder, Error, configure, prost_build};

/// A temporary folder of `.proto` files.
struct Files(PathBuf);

impl Files {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&path);
        for (name, text) in files {
            let file = path.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        Self(path)
    }

    fn compile(&self, builder: Builder, proto: &str) -> Result<(), Error> {
        let out = self.0.join("out");
        builder
            .out_dir(out)
            .compile_protos(&[self.0.join(proto)], &[&self.0])
    }

    /// Returns the text of the error, in which the folder is `DIR`.
    fn error(&self, builder: Builder, proto: &str) -> String {
        let error = self.compile(builder, proto).unwrap_err();
        let text = error.to_string();
        assert_eq!(text, format!("{error:?}"), "as `main` shows it");
        text.replace(&self.0.display().to_string(), "DIR")
    }
}

fn error_of(name: &str, proto: &str) -> String {
    Files::new(name, &[("a.proto", proto)]).error(configure(), "a.proto")
}

#[test]
fn a_mistake_has_its_file_line_and_column() {
    assert_eq!(
        error_of(
            "syntax",
            "syntax = \"proto3\";\n\nmessage A {\n  string = 1;\n}\n"
        ),
        "DIR/a.proto:4:10: expected an identifier, but found '='"
    );
    assert_eq!(
        error_of(
            "unknown_type",
            "syntax = \"proto3\";\nmessage A {}\nservice S {\n  rpc Get(A) returns (B);\n}\n"
        ),
        "DIR/a.proto:4:23: name 'B' is not defined"
    );
    assert_eq!(
        error_of("end", "syntax = \"proto3\";\nmessage A {"),
        "DIR/a.proto:2:12: expected a message field, oneof, reserved range, enum, message, option or '}', but reached end of file"
    );
    let editions = error_of("edition", "edition = \"2023\";\n");
    assert!(editions.starts_with("DIR/a.proto:1:1: "), "{editions}");
}

#[test]
fn a_name_that_is_used_twice_is_reported_at_both_places() {
    assert_eq!(
        error_of(
            "twice",
            "syntax = \"proto3\";\nmessage A {}\n\nenum A { ZERO = 0; }\n"
        ),
        "DIR/a.proto:4:6: name 'A' is defined twice\n\
         DIR/a.proto:2:9: first defined here"
    );
}

#[test]
fn a_mistake_in_an_import_is_reported_there() {
    let files = Files::new(
        "import",
        &[
            (
                "a.proto",
                "syntax = \"proto3\";\nimport \"inner/b.proto\";\nmessage A { B b = 1; }\n",
            ),
            (
                "inner/b.proto",
                "syntax = \"proto3\";\nmessage B {\n  int64 n = 0;\n}\n",
            ),
        ],
    );
    assert_eq!(
        files.error(configure(), "a.proto"),
        "DIR/inner/b.proto:3:13: message numbers must be between 1 and 536870911"
    );
}

#[test]
fn a_missing_import_is_reported_with_the_searched_paths() {
    assert_eq!(
        error_of(
            "missing_import",
            "syntax = \"proto3\";\n\nimport \"b.proto\";\n"
        ),
        "DIR/a.proto:3:1: import 'b.proto' not found (include paths: DIR)"
    );
}

#[test]
fn a_file_that_is_missing_or_elsewhere_is_named() {
    let files = Files::new("missing", &[("in/a.proto", "syntax = \"proto3\";\n")]);
    assert_eq!(
        files.error(configure(), "b.proto"),
        "DIR/b.proto: no such file; include paths: DIR"
    );
    let (proto, include) = (files.0.join("in/a.proto"), files.0.join("other"));
    let builder = configure().out_dir(files.0.join("out"));
    let error = builder.compile_protos(&[&proto], &[&include]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{}: in none of the include paths: {}",
            proto.display(),
            include.display()
        )
    );
}

#[test]
fn a_trait_that_would_have_the_name_of_a_message_is_rejected_and_can_be_renamed() {
    let proto = "syntax = \"proto3\";\npackage p;\nmessage Kv {}\nmessage StoreServer {}\n\nservice KV { rpc Get(Kv) returns (Kv); }\nservice Store {}\n";
    let files = Files::new("clash", &[("a.proto", proto)]);
    assert_eq!(
        files.error(configure(), "a.proto"),
        "DIR/a.proto:6:9: service KV and message Kv would both have `Kv` in Rust: name its trait \
         by `trait_name(\".p.KV\", \"..\")`\nDIR/a.proto:7:9: service Store and message \
         StoreServer would both have `StoreServer` in Rust: name its trait by \
         `trait_name(\".p.Store\", \"..\")`"
    );
    let renamed = configure()
        .trait_name(".p.KV", "KvService")
        .trait_name("Store", "StoreService");
    files.compile(renamed, "a.proto").unwrap();
    let text = fs::read_to_string(files.0.join("out/p.rs")).unwrap();
    assert!(text.contains("pub trait KvService {"), "{text}");
    assert!(text.contains("pub trait StoreService {"), "{text}");
}

#[test]
fn methods_that_would_have_one_name_are_rejected() {
    let proto = "syntax = \"proto3\";\nmessage A {}\nservice S {\n  rpc GetIt(A) returns (A);\n  rpc Get_it(A) returns (A);\n}\n";
    assert_eq!(
        error_of("methods", proto),
        "DIR/a.proto:5:7: methods Get_it and GetIt would both be `get_it` in Rust: rename one of \
         them"
    );
}

#[test]
fn a_setting_for_nothing_or_with_a_mistake_is_rejected() {
    let proto =
        "syntax = \"proto3\";\npackage p;\nmessage A {}\nservice S { rpc Get(A) returns (A); }\n";
    let files = Files::new("settings", &[("a.proto", proto)]);
    let error = |builder: Builder| files.error(builder, "a.proto");
    assert_eq!(
        error(configure().method_attribute(".p.S.Gte", "#[rpc(idempotent)]")),
        "method_attribute(\".p.S.Gte\", \"#[rpc(idempotent)]\"): no method has this path"
    );
    assert_eq!(
        error(configure().service_setting("T", "dyn")),
        "service_setting(\"T\", \"dyn\"): no service has this path"
    );
    for (builder, start) in [
        (
            configure().method_attribute("S.Get", "rpc(idempotent)"),
            "method_attribute(\"S.Get\", \"rpc(idempotent)\"): ",
        ),
        (
            configure().trait_attribute("S", "#[cfg(test)"),
            "trait_attribute(\"S\", \"#[cfg(test)\"): ",
        ),
        (
            configure().service_setting("S", "dyn)]"),
            "service_setting(\"S\", \"dyn)]\"): ",
        ),
        (
            configure().trait_name("S", "not a name"),
            "trait_name(\"S\", \"not a name\"): ",
        ),
    ] {
        let text = error(builder);
        assert!(text.starts_with(start), "{text}");
    }
}

#[test]
fn descriptors_from_elsewhere_are_accepted_except_editions() {
    let out = Files::new("descriptors", &[]).0.join("out");
    let file = |syntax: &str| FileDescriptorSet {
        file: vec![FileDescriptorProto {
            name: Some("b.proto".to_owned()),
            syntax: Some(syntax.to_owned()),
            ..Default::default()
        }],
    };
    let compile = |fds| {
        let config = prost_build::Config::new();
        configure()
            .out_dir(&out)
            .compile_fds_with_config(fds, config)
    };
    compile(file("proto3")).unwrap();
    assert_eq!(
        compile(file("editions")).unwrap_err().to_string(),
        "b.proto: editions are not supported: write `syntax = \"proto3\";`"
    );
}

#[test]
fn a_build_script_may_return_an_io_error() {
    let files = Files::new("io", &[("a.proto", "x")]);
    let main = || -> std::io::Result<()> { Ok(files.compile(configure(), "a.proto")?) };
    let text = main().unwrap_err().to_string();
    assert!(text.contains("a.proto:1:1: "), "{text}");
}

#[test]
fn descriptors_are_written_with_their_imports() {
    let files = Files::new(
        "descriptor_set",
        &[(
            "a.proto",
            "syntax = \"proto3\";\nimport \"google/protobuf/empty.proto\";\n",
        )],
    );
    let path = files.0.join("descriptors.bin");
    files
        .compile(configure().file_descriptor_set_path(&path), "a.proto")
        .unwrap();
    let fds: FileDescriptorSet = prost::Message::decode(&*fs::read(path).unwrap()).unwrap();
    let names: Vec<_> = fds.file.iter().map(FileDescriptorProto::name).collect();
    assert_eq!(names, ["google/protobuf/empty.proto", "a.proto"]);
}
