//! The result of a comparison.

use std::fmt;

/// The most differences that a report holds.
const MAX_DIFFERENCES: usize = 256;

/// The verdict on values that one side writes and the other reads. Later verdicts are worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing differs that can be seen on the wire.
    #[default]
    Equal,
    /// Every value is read as what was written.
    Compatible,
    /// Some values are read as what was written, and others are rejected with an error. None is
    /// taken for another value.
    Warn,
    /// No verdict is possible: a type is opaque, or the descriptions are too large to compare.
    Unknown,
    /// Values are rejected, or taken for other values.
    Incompatible,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "equal",
            Self::Compatible => "compatible",
            Self::Warn => "warning",
            Self::Unknown => "unknown",
            Self::Incompatible => "incompatible",
        })
    }
}

/// The rule that a difference falls under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// Only the reader has a field.
    FieldAdded,
    /// Only the writer has a field.
    FieldRemoved,
    /// A field has another name at the same place, or its old name as an alias.
    FieldRenamed,
    /// The same fields are in another order.
    FieldsReordered,
    /// The writer may leave out a field that the reader requires.
    FieldSkipped,
    /// The number of fields without names differs.
    LengthChanged,
    /// A value became optional, or is no longer.
    OptionChanged,
    /// The reader's number type holds every value of the writer's.
    NumberWidened,
    /// The reader's number type does not hold every value of the writer's.
    NumberNarrowed,
    /// Text, bytes, characters and sequences of bytes for one another.
    TextChanged,
    /// A sequence for values in a fixed number, or the reverse.
    SequenceChanged,
    /// A map for a struct, or the reverse.
    MapChanged,
    /// Only the reader has a variant.
    VariantAdded,
    /// Only the writer has a variant.
    VariantRemoved,
    /// A variant has another name at the same place, or its old name as an alias.
    VariantRenamed,
    /// The same variants are in another order.
    VariantsReordered,
    /// The content of a variant has another form.
    VariantChanged,
    /// The variant of an enum has another representation: `tag`, `content` or `untagged`.
    EnumRepresentationChanged,
    /// A type of another form.
    TypeChanged,
    /// Only one side describes the form of the values: the other has `serde_json::Value` or so.
    AnyValue,
    /// The type cannot be read from a format without field names.
    NeedsNames,
    /// Nothing is known about a type but its Rust name.
    OpaqueType,
    /// The descriptions are too large, or nested too deeply.
    TooLarge,
    /// Only the server has an argument.
    ArgumentAdded,
    /// Only the client has an argument.
    ArgumentRemoved,
    /// An argument has another name at the same place.
    ArgumentRenamed,
    /// The same arguments are in another order.
    ArgumentsReordered,
    /// Only the server has a method.
    MethodAdded,
    /// Only the client has a method.
    MethodRemoved,
    /// A method has another path.
    PathChanged,
    /// Another side sends messages, or another number of them.
    KindChanged,
    /// The messages of a method are formed in another way: enveloped, plain JSON or raw.
    FormatChanged,
    /// Only one side uses protobuf for a method.
    CodecChanged,
    /// Only one side has an error type.
    ErrorChanged,
    /// A method is no longer idempotent, and old clients retry it.
    IdempotentRemoved,
    /// The service has another name.
    ServiceRenamed,
}

/// One difference between two descriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The place, such as `Orders.place(order).items[].colour`. Names in it are escaped.
    pub place: String,
    /// The rule.
    pub rule: Rule,
    /// The consequence of the difference.
    pub verdict: Verdict,
    /// The item at this place in the client; empty if there is none. In a comparison of types: in
    /// the writer.
    pub client: String,
    /// The item at this place in the server; empty if there is none. In a comparison of types: in
    /// the reader.
    pub server: String,
    /// The difference in words, with its place. Names in it are escaped.
    pub text: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// All differences between two descriptions, in the order of the methods and fields.
///
/// [`Display`](fmt::Display) writes one line for each. A report holds 256 differences; of further
/// ones it has the number, and they count in [`verdict`](Self::verdict).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Report {
    /// The differences.
    pub differences: Vec<Difference>,
    /// The number of further differences.
    pub omitted: usize,
    worst: Verdict,
}

impl Report {
    /// The worst verdict of all differences; [`Verdict::Equal`] if there are none.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.worst
    }

    /// The first of the worst differences.
    #[must_use]
    pub fn worst(&self) -> Option<&Difference> {
        let mut all = self.differences.iter();
        all.find(|difference| difference.verdict == self.worst)
    }

    pub(super) fn push(&mut self, difference: Difference) {
        // The first of the worst ones is always among those that are held.
        let is_worse = difference.verdict > self.worst;
        self.worst = self.worst.max(difference.verdict);
        if self.differences.len() < MAX_DIFFERENCES {
            self.differences.push(difference);
            return;
        }
        self.omitted += 1;
        if is_worse {
            self.differences.pop();
            self.differences.push(difference);
        }
    }

    pub(super) fn append(&mut self, other: Self) {
        self.omitted += other.omitted;
        other.differences.into_iter().for_each(|one| self.push(one));
        self.worst = self.worst.max(other.worst);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, difference) in self.differences.iter().enumerate() {
            let line = if at == 0 { "" } else { "\n" };
            write!(f, "{line}{}: {difference}", difference.verdict)?;
        }
        if self.omitted > 0 {
            write!(f, "\nand {} further differences", self.omitted)?;
        }
        Ok(())
    }
}
