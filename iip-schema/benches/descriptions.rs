//! The cost of the description of a large service. Run: `cargo bench -p iip-schema`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use iip_schema::compat::{Encoding, compare};
use iip_schema::file::{Limits, parse_description};
use iip_schema::fingerprint::service_fingerprint;
use iip_schema::{Argument, Definition, Description, Field, Method, Shape, Type};

/// Runs of each measurement, of which the fastest counts.
const RUNS: usize = 200;

/// 100 methods, and 300 structs of six fields that refer to each other.
fn large() -> Description {
    let record = |place: usize| Type::Named(format!("Record{}", place % 300));
    let mut large = Description::new("shop.v1.Warehouse");
    for place in 0..300 {
        let fields = [
            ("identifier", Type::U64),
            ("display_name", Type::Text),
            ("created_at", Type::I64),
            ("labels", Type::map(Type::Text, Type::Text)),
            ("parent", Type::option(record(place + 1))),
            ("amounts", Type::seq(Type::F64)),
        ];
        let fields = fields.map(|(name, ty)| Field::new(name, ty));
        let shape = Shape::Struct {
            fields: fields.into(),
            deny_unknown_fields: false,
        };
        large
            .types
            .insert(format!("Record{place}"), Definition::new(shape));
    }
    for place in 0..100 {
        let name = format!("operation_{place}");
        let mut method = Method::new(&*name, format!("/shop.v1.Warehouse/{name}"));
        method.args = vec![Argument::new("record", record(place * 3))];
        method.result = Type::seq(record(place * 3 + 1));
        large.methods.push(method);
    }
    large
}

fn measure<T>(what: &str, mut run: impl FnMut() -> T) {
    let mut fastest = Duration::MAX;
    for _ in 0..RUNS {
        let begin = Instant::now();
        black_box(run());
        fastest = fastest.min(begin.elapsed());
    }
    println!("{what:<12} {fastest:>10.1?}");
}

fn main() {
    let service = large();
    let json = serde_json::to_vec(&service).unwrap_or_default();
    println!("{} bytes of JSON", json.len());
    measure("write", || serde_json::to_vec(&service));
    measure("parse", || parse_description(&json, &Limits::default()));
    measure("fingerprint", || service_fingerprint(&service));
    for encoding in [Encoding::Bincode, Encoding::Json] {
        let what = format!("in {encoding}");
        measure(&what, || compare(&service, &service, encoding));
    }
}
