//! Types of the standard library, generic types, and recursion.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::ffi::CString;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroI64, NonZeroU8, Wrapping};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, SystemTime};

use iip_rpc::Schema;
use iip_schema::Type;
use serde::{Deserialize, Serialize};

use super::written::{definition, described, is_written_as_described};

#[derive(Serialize, Deserialize, Schema)]
struct Std {
    number: (u8, u16, u32, u64, usize, i8, i16, i32, i64, isize),
    other: (bool, f32, f64, char, String, ()),
    optional: (Option<u8>, Option<String>),
    lists: (Vec<u8>, VecDeque<u8>, LinkedList<u8>, BinaryHeap<u8>),
    sets: (HashSet<u8>, BTreeSet<u8>),
    fixed: (Box<[u8]>, [u8; 3], [String; 0]),
    maps: (HashMap<String, u8>, BTreeMap<u8, String>),
    cells: (Cell<u8>, RefCell<u8>, Mutex<u8>, Box<str>, AtomicU32),
    wrapped: (Wrapping<u8>, Reverse<u8>, NonZeroU8, NonZeroI64),
    borrowed: (Cow<'static, str>, Cow<'static, [u8]>, PhantomData<String>),
    results: [Result<u8, String>; 2],
    bounds: [Bound<u8>; 2],
    times: (Duration, SystemTime),
    ranges: (std::ops::Range<u8>, std::ops::RangeInclusive<u8>),
    addresses: (IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr),
    texts: (PathBuf, CString),
}

#[test]
fn types_of_the_standard_library_are_written_as_described() {
    let v4 = Ipv4Addr::LOCALHOST;
    is_written_as_described(&[Std {
        number: (1, 2, 3, 4, 5, -1, -2, -3, -4, -5),
        other: (true, 1.5, 2.5, 'x', "text".to_owned(), ()),
        optional: (None, Some("some".to_owned())),
        lists: (vec![1], [1].into(), [1].into(), [1].into()),
        sets: ([1].into(), [1].into()),
        fixed: ([1].into(), [1, 2, 3], []),
        maps: ([("a".to_owned(), 1)].into(), [(1, "a".to_owned())].into()),
        cells: (1.into(), 2.into(), 3.into(), "text".into(), 4.into()),
        wrapped: (Wrapping(1), Reverse(2), NonZeroU8::MIN, NonZeroI64::MIN),
        borrowed: ("text".into(), vec![1].into(), PhantomData),
        results: [Ok(1), Err(String::new())],
        bounds: [Bound::Unbounded, Bound::Included(1)],
        times: (Duration::from_millis(1), SystemTime::UNIX_EPOCH),
        ranges: (1..2, 1..=2),
        addresses: (v4.into(), v4, Ipv6Addr::LOCALHOST, (v4, 80).into()),
        texts: (PathBuf::from("/a"), CString::default()),
    }]);
}

#[cfg(feature = "codec-bincode")]
#[test]
fn an_address_has_two_forms() {
    use iip_rpc::codec::{Bincode, Codec};
    use iip_schema::{Shape, VariantShape};

    let (ty, types) = described::<SocketAddr>();
    let Type::ByFormat { readable, compact } = ty else {
        panic!("{ty:?}");
    };
    assert_eq!(*readable, Type::Text);
    let Type::Named(name) = *compact else {
        panic!("{compact:?}");
    };
    let Some(Shape::Enum(shape)) = types.get(&name).map(|definition| &definition.shape) else {
        panic!("{types:?}");
    };
    let v4 = Type::Tuple(vec![Type::array(Type::U8, 4), Type::U16]);
    assert_eq!(shape.variants[0].shape, VariantShape::Newtype(v4));
    let mut bytes = bytes::BytesMut::new();
    let address = SocketAddr::from((Ipv4Addr::new(1, 2, 3, 4), 5));
    Bincode::encode(&address, &mut bytes).unwrap();
    assert_eq!(bytes[..], [0, 1, 2, 3, 4, 5]);
}

#[derive(Serialize, Deserialize, Schema)]
struct Page<T> {
    items: Vec<T>,
    next: Option<u32>,
}

#[derive(Serialize, Deserialize, Schema)]
struct Matrix<T, const N: usize>
where
    [T; N]: Serialize + for<'a> Deserialize<'a>,
{
    cells: [T; N],
}

#[derive(Serialize, Deserialize, Schema)]
struct Person {
    friends: Page<Self>,
    #[serde(default)]
    rows: Option<Matrix<u8, 2>>,
}

#[test]
fn a_generic_type_has_a_name_and_a_definition_for_each_argument() {
    let person = Person {
        friends: Page {
            items: Vec::new(),
            next: None,
        },
        rows: Some(Matrix { cells: [1, 2] }),
    };
    let pages = Page {
        items: vec![person],
        next: Some(1),
    };
    is_written_as_described(&[pages]);
    let (_, types) = described::<(Page<Person>, Page<Option<u8>>, Page<Vec<Page<String>>>)>();
    let names: Vec<&str> = types.iter().map(|(name, _)| name).collect();
    let expected = [
        "Matrix<u8, 2>",
        "Page<Option<u8>>",
        "Page<Person>",
        "Page<String>",
        "Page<Vec<Page<String>>>",
        "Person",
    ];
    assert_eq!(names, expected);
}

#[derive(Serialize, Deserialize, Schema)]
enum Expression {
    Number(i64),
    Sum(Vec<Self>),
    Block(Box<Statement>),
}

#[derive(Serialize, Deserialize, Schema)]
struct Statement {
    value: Expression,
    next: Option<Box<Self>>,
}

#[test]
fn types_that_contain_each_other_are_described_once() {
    let statement = Statement {
        value: Expression::Sum(vec![Expression::Number(1), Expression::Sum(vec![])]),
        next: None,
    };
    is_written_as_described(&[Expression::Block(Box::new(statement))]);
    let (_, types) = described::<Expression>();
    assert_eq!(types.len(), 2);
    assert_eq!(definition::<Statement>(), *types.get("Statement").unwrap());
}

mod one {
    #[derive(super::Schema)]
    pub(super) struct Same {
        pub(super) _a: u8,
    }
}

mod two {
    #[derive(super::Schema)]
    pub(super) struct Same {
        pub(super) _b: u8,
    }
}

#[test]
fn two_types_of_one_name_are_told_apart() {
    let (_, types) = described::<(one::Same, two::Same)>();
    let names: Vec<&str> = types.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 2);
    assert!(names[0].ends_with("one::Same") && names[1].ends_with("two::Same"));
}
