//! Implementations of `Deserialize` that do what they should not.

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::{
    Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::shown;

/// An implementation by a function.
macro_rules! by_hand {
    ($name:ident, |$deserializer:ident| $read:expr) => {
        #[derive(Debug)]
        struct $name;

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>($deserializer: D) -> Result<Self, D::Error> {
                $read
            }
        }
    };
}

by_hand!(Refuses, |_deserializer| Err(Error::custom("never")));
by_hand!(RefusesAfter, |deserializer| {
    u8::deserialize(deserializer)?;
    Err(Error::custom("never"))
});
by_hand!(ReadsNothing, |_deserializer| Ok(Self));
by_hand!(Panics, |_deserializer| panic!("on purpose"));
by_hand!(PanicsAfter, |deserializer| {
    String::deserialize(deserializer)?;
    panic!("on purpose")
});

#[derive(Deserialize)]
#[expect(dead_code, reason = "it is only described")]
struct With<T> {
    before: u8,
    it: T,
    after: String,
}

#[test]
fn types_that_refuse_everything_are_opaque() {
    assert_eq!(
        shown::<Refuses>(),
        "opaque main::probe::hostile::Refuses: never"
    );
    assert_eq!(shown::<RefusesAfter>(), "u8");
    assert_eq!(
        shown::<With<Refuses>>(),
        "With<Refuses>{before: u8, it: opaque main::probe::hostile::Refuses: never, after: text, \
         ..}"
    );
    assert_eq!(
        shown::<ReadsNothing>(),
        "opaque main::probe::hostile::ReadsNothing: it reads nothing"
    );
}

#[test]
fn panics_are_caught_and_hide_nothing_else() {
    assert_eq!(
        shown::<Panics>(),
        "opaque main::probe::hostile::Panics: its `Deserialize` panicked"
    );
    assert_eq!(shown::<PanicsAfter>(), "text");
    assert_eq!(
        shown::<With<Panics>>(),
        "With<Panics>{before: u8, it: opaque main::probe::hostile::Panics: its `Deserialize` \
         panicked, after: text, ..}"
    );
}

struct Forever;

impl<'de> Visitor<'de> for Forever {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("no end")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        loop {
            seq.next_element::<u8>()?;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        loop {
            // Errors are ignored.
            let _ = map.next_entry::<String, IgnoredAny>();
        }
    }
}

by_hand!(EndlessSeq, |deserializer| {
    deserializer.deserialize_seq(Forever)?;
    Ok(Self)
});
by_hand!(EndlessMap, |deserializer| {
    deserializer.deserialize_map(Forever)?;
    Ok(Self)
});

/// Runs what must end.
fn ends(what: impl FnOnce() -> String) -> String {
    let begin = Instant::now();
    let text = what();
    assert!(begin.elapsed() < Duration::from_secs(60));
    text
}

#[test]
fn types_that_read_for_ever_are_stopped() {
    assert_eq!(ends(shown::<EndlessSeq>), "[u8]");
    assert_eq!(ends(shown::<EndlessMap>), "{text: any}");
    let text = ends(shown::<With<EndlessSeq>>);
    assert!(
        text.starts_with("With<EndlessSeq>{before: u8, it: [u8], after: "),
        "{text}"
    );
}

/// A type that contains a larger one of its kind.
struct Deeper<T>(PhantomData<T>);

trait Level {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error>;
}

impl Level for () {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        u8::deserialize(deserializer).map(drop)
    }
}

impl<T: Level> Level for Deeper<T> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        Option::<Box<Inner<T>>>::deserialize(deserializer).map(drop)
    }
}

struct Inner<T>(PhantomData<T>);

impl<'de, T: Level> Deserialize<'de> for Inner<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::read(deserializer)?;
        Ok(Self(PhantomData))
    }
}

type Deeper4<T> = Deeper<Deeper<Deeper<Deeper<T>>>>;
type Deeper16<T> = Deeper4<Deeper4<Deeper4<Deeper4<T>>>>;
type Deeper80 = Deeper16<Deeper16<Deeper16<Deeper16<Deeper16<()>>>>>;

#[test]
fn types_within_each_other_are_read_to_a_depth_of_64() {
    let text = ends(shown::<Inner<Deeper4<()>>>);
    assert_eq!(text, "u8????");
    let text = ends(shown::<Inner<Deeper80>>);
    assert!(text.ends_with('?'), "{text}");
    assert!(text.contains("nested more than 64 levels deep"), "{text}");
}

macro_rules! with_names {
    ($name:ident, $method:ident, $visit:ident) => {
        by_hand!($name, |deserializer| {
            deserializer.$method(stringify!($name), many_names(), ReadsAll)?;
            Ok(Self)
        });
    };
}

fn many_names() -> &'static [&'static str] {
    static NAMES: std::sync::OnceLock<Vec<&'static str>> = std::sync::OnceLock::new();
    NAMES.get_or_init(|| vec!["name"; 1_000_000])
}

struct ReadsAll;

impl<'de> Visitor<'de> for ReadsAll {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<String, u8>()?.is_some() {}
        Ok(Self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<u8>()?.is_some() {}
        Ok(Self)
    }
}

with_names!(MillionFields, deserialize_struct, visit_map);
with_names!(MillionVariants, deserialize_enum, visit_enum);
by_hand!(MillionElements, |deserializer| {
    deserializer.deserialize_tuple(usize::MAX, ReadsAll)?;
    Ok(Self)
});

#[test]
fn types_with_too_many_parts_are_opaque() {
    for (text, name) in [
        (ends(shown::<MillionFields>), "MillionFields"),
        (ends(shown::<MillionVariants>), "MillionVariants"),
        (ends(shown::<MillionElements>), "MillionElements"),
    ] {
        assert!(
            text.starts_with("opaque main::probe::hostile::"),
            "{name}: {text}"
        );
        assert!(text.contains("more than 2000"), "{name}: {text}");
    }
}

#[test]
fn a_large_array_is_described_by_its_first_elements() {
    assert_eq!(ends(shown::<BigArray>), "[u8; 100000]");
}

by_hand!(BigArray, |deserializer| {
    struct Elements;

    impl<'de> Visitor<'de> for Elements {
        type Value = [u8; 100_000];

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut array = [0; 100_000];
            for element in &mut array {
                *element = seq
                    .next_element()?
                    .ok_or_else(|| Error::custom("too few"))?;
            }
            Ok(array)
        }
    }

    deserializer.deserialize_tuple(100_000, Elements)?;
    Ok(Self)
});

/// A type whose form depends on what it has read.
#[derive(Debug)]
struct Depends;

impl<'de> Deserialize<'de> for Depends {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        if COUNT.fetch_xor(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            u8::deserialize(deserializer)?;
        } else {
            String::deserialize(deserializer)?;
        }
        Ok(Self)
    }
}

#[test]
fn a_form_that_changes_is_opaque() {
    assert_eq!(
        shown::<With<Depends>>(),
        "With<Depends>{before: u8, it: opaque main::probe::hostile::Depends: its form depends on \
         its value, after: text, ..}"
    );
}

by_hand!(Name, |deserializer| {
    deserializer.deserialize_identifier(ReadsAll)?;
    Ok(Self)
});

#[test]
fn a_name_without_a_struct_is_opaque() {
    assert_eq!(
        shown::<Name>(),
        "opaque main::probe::hostile::ReadsAll: it reads a name where a value is expected"
    );
}

/// An enum with 1,000 variants of one number each.
#[derive(Debug)]
struct ThousandVariants;

impl<'de> Deserialize<'de> for ThousandVariants {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Variants;

        impl<'de> Visitor<'de> for Variants {
            type Value = ThousandVariants;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a variant")
            }

            fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Self::Value, A::Error> {
                let (name, content) = access.variant::<String>()?;
                if !name.starts_with('v') {
                    return Err(Error::unknown_variant(&name, &[]));
                }
                content.newtype_variant::<u8>()?;
                Ok(ThousandVariants)
            }
        }

        static NAMES: std::sync::OnceLock<Vec<&'static str>> = std::sync::OnceLock::new();
        let names = NAMES.get_or_init(|| {
            let names = (0..1_000).map(|number| &*format!("v{number}").leak());
            names.collect()
        });
        deserializer.deserialize_enum("ThousandVariants", names, Variants)
    }
}

#[test]
fn an_enum_with_a_thousand_variants_is_described() {
    let text = ends(shown::<ThousandVariants>);
    assert!(
        text.starts_with("ThousandVariants<v0(u8), v1(u8), v2(u8), "),
        "{text}"
    );
    assert!(text.ends_with("v999(u8)>"), "{text}");
}

macro_rules! wide {
    ($name:ident: $ty:ty: $($field:ident)+) => {
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "it is only described")]
        struct $name {
            $($field: $ty,)+
        }
    };
}

wide!(Inner20: u32: a b c d e f g h i j k l m n o p q r s t);
wide!(Middle: Option<Inner20>: a b c d e f g h i j k l m n o p q r s t);
wide!(Sixty: Vec<Middle>: a1 b1 c1 d1 e1 f1 g1 h1 i1 j1 k1 l1 m1 n1 o1 p1 q1 r1 s1 t1
    a2 b2 c2 d2 e2 f2 g2 h2 i2 j2 k2 l2 m2 n2 o2 p2 q2 r2 s2 t2
    a3 b3 c3 d3 e3 f3 g3 h3 i3 j3 k3 l3 m3 n3 o3 p3 q3 r3 s3 t3);

#[test]
fn wide_types_within_each_other_are_described_completely() {
    let text = ends(shown::<Sixty>);
    assert!(!text.contains("opaque"), "{text}");
    assert!(!text.contains('='), "{text}");
}

struct Positional;

impl<'de> Visitor<'de> for Positional {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("two numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<u8>()?.is_some() {}
        Ok(self)
    }
}

by_hand!(OnlySeq, |deserializer| {
    deserializer.deserialize_struct("OnlySeq", &["a", "b"], Positional)?;
    Ok(Self)
});

#[test]
fn a_struct_that_reads_no_names_has_opaque_fields() {
    let text = shown::<With<OnlySeq>>();
    assert!(
        text.contains("it does not read named fields: it expects two numbers"),
        "{text}"
    );
    assert!(text.ends_with(", after: text, ..}"), "{text}");
}

by_hand!(ManyRequests, |deserializer| {
    let _ = deserializer.is_human_readable();
    EndlessSeq::deserialize(deserializer)?;
    Ok(Self)
});

#[test]
fn requests_are_left_for_the_form_in_binary_formats() {
    assert_eq!(ends(shown::<ManyRequests>), "[u8]");
}
