//! The cost of compiling another method of a service, in lines of LLVM IR: most of a call depends
//! on no type of the method, and is compiled once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The source that all programs contain besides the service.
const AROUND: &str = "
use std::pin::Pin;
use std::task::{Context, Poll};

use iip_rpc::{Client, Server, ServerBuilder, Status, Stream, Streaming, service};

type Calls = Vec<Pin<Box<dyn Future<Output = ()>>>>;

struct Words;

impl Stream for Words {
    type Item = Result<String, Status>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}

fn server() -> ServerBuilder {
    Server::builder().service(WorkServer::new(Worker))
}

fn main() {
    std::hint::black_box((server as fn() -> _, calls as fn(_) -> _));
}
";

/// A kind of methods.
struct Methods {
    arguments: &'static str,
    result: &'static str,
    /// The body of the handler.
    handled: &'static str,
    /// The arguments of the caller.
    passed: &'static str,
}

const UNARY: Methods = Methods {
    arguments: "name: String",
    result: "String",
    handled: "Ok(name)",
    passed: "String::new()",
};

const SERVER_STREAM: Methods = Methods {
    arguments: "name: String",
    result: "impl Stream<Item = Result<String, Status>>",
    handled: "drop(name); Ok(Words)",
    passed: "String::new()",
};

const CLIENT_STREAM: Methods = Methods {
    arguments: "words: Streaming<String>",
    result: "String",
    handled: "drop(words); Ok(String::new())",
    passed: "Streaming::new(Words)",
};

const BIDI_STREAM: Methods = Methods {
    arguments: "words: Streaming<String>",
    result: "impl Stream<Item = Result<String, Status>>",
    handled: "Ok(words)",
    passed: "Streaming::new(Words)",
};

/// A program with a client and a server of these methods.
fn program<'a>(methods: impl Iterator<Item = &'a Methods>) -> String {
    let (mut declared, mut implemented, mut called) = <(String, String, String)>::default();
    for (number, methods) in methods.enumerate() {
        let Methods {
            arguments,
            result,
            handled,
            passed,
        } = methods;
        let head =
            format!("async fn method_{number}(&self, {arguments}) -> Result<{result}, Status>");
        declared += &format!("{head};\n");
        implemented += &format!("{head} {{ {handled} }}\n");
        called += &format!(
            "{{ let client = client.clone(); calls.push(Box::pin(async move {{ \
             drop(client.method_{number}({passed}).await); }})); }}\n"
        );
    }
    format!(
        "{AROUND}
        #[service]
        trait Work {{ {declared} }}
        struct Worker;
        impl Work for Worker {{ {implemented} }}
        fn calls(client: Client) -> Calls {{
            let client = WorkClient::new(client);
            let mut calls = Calls::new();
            {called}
            calls
        }}"
    )
}

/// The size of a program.
#[derive(Clone, Copy, Debug)]
struct Size {
    functions: usize,
    lines: usize,
}

impl Size {
    /// Compiles a program against the libraries that were built with this test.
    fn of(program: &str, name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("build_cost");
        fs::create_dir_all(&folder).expect("a folder for the program");
        let source = folder.join(format!("{name}.rs"));
        let output = folder.join(format!("{name}.ll"));
        fs::write(&source, program).expect("the program is written");
        compile(&source, &output);
        let text = fs::read_to_string(&output).expect("the compiler wrote it");
        Self {
            functions: text
                .lines()
                .filter(|line| line.starts_with("define "))
                .count(),
            lines: text.lines().count(),
        }
    }
}

/// Compiles a program to LLVM IR, without linking it.
fn compile(source: &Path, output: &Path) {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let binary = std::env::current_exe().expect("a test binary knows itself");
    let libraries = binary.parent().expect("it is among the libraries");
    let mut complaints = String::new();
    // The folder may contain several, with other features or from another compiler.
    for library in newest_first(libraries, "libiip_rpc-") {
        let output = Command::new(&rustc)
            .args(["--edition=2024", "--crate-type=bin", "--emit=llvm-ir"])
            .args(["-Copt-level=0", "-Cdebuginfo=0", "-Ccodegen-units=1"])
            .args(["-Awarnings", "--crate-name=build_cost"])
            .arg(format!("-Ldependency={}", libraries.display()))
            .arg(format!("--extern=iip_rpc={}", library.display()))
            .arg("-o")
            .arg(output)
            .arg(source)
            .output()
            .expect("the compiler starts");
        if output.status.success() {
            return;
        }
        complaints += &String::from_utf8_lossy(&output.stderr);
    }
    panic!(
        "{} was compiled with no library in {}:\n{complaints}",
        source.display(),
        libraries.display()
    );
}

/// The libraries whose names begin with `prefix`.
fn newest_first(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder of the libraries");
    let mut found: Vec<(SystemTime, PathBuf)> = entries
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(prefix) && name.ends_with(".rlib")
        })
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

#[test]
fn a_further_method_adds_few_lines_of_llvm_ir() {
    const FURTHER: usize = 4;
    let kinds = [
        ("unary", UNARY),
        ("server_stream", SERVER_STREAM),
        ("client_stream", CLIENT_STREAM),
        ("bidi_stream", BIDI_STREAM),
    ];
    // Two of each kind, because the first method of a kind brings what all of them share.
    let base = || kinds.iter().chain(&kinds).map(|(_, methods)| methods);
    let smaller = Size::of(&program(base()), "base");
    for (name, methods) in &kinds {
        let further = std::iter::repeat_n(methods, FURTHER);
        let larger = Size::of(&program(base().chain(further)), name);
        let added = Size {
            functions: (larger.functions - smaller.functions) / FURTHER,
            lines: (larger.lines - smaller.lines) / FURTHER,
        };
        println!("{name}: {smaller:?}, {larger:?}, a method: {added:?}");
        // Otherwise the methods were not compiled at all.
        assert!(added.functions >= 5, "{name}: {added:?}");
        assert!(
            added.lines <= 4_000,
            "a further method ({name}) adds {} lines of LLVM IR in {} functions, instead of about \
             2,500",
            added.lines,
            added.functions
        );
    }
}
