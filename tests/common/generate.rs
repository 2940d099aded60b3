//! Bodies and paths that a transcript describes instead of holding them.

/// `LEN` bytes of `lin:SEED:LEN`: byte i is `(SEED + i + (i >> 8)) mod 256`.
pub(crate) fn lin(seed: u8, len: usize) -> Vec<u8> {
    lin_slice(seed, 0, len)
}

/// Bytes `from..to` of the same sequence.
pub(crate) fn lin_slice(seed: u8, from: usize, to: usize) -> Vec<u8> {
    // Within a block of 256 bytes the value only counts up, so a block is a slice of 0..=255 twice
    // over; copying slices is what keeps 16 MiB bodies cheap in an unoptimised test build.
    let count: Vec<u8> = (0..512).map(|i: u32| (i % 256) as u8).collect();
    let mut bytes = Vec::with_capacity(to - from);
    let mut at = from;
    while at < to {
        let end = (at / 256 + 1) * 256;
        let start = (usize::from(seed) + at + (at >> 8)) % 256;
        bytes.extend_from_slice(&count[start..start + end.min(to) - at]);
        at = end.min(to);
    }
    bytes
}

/// The bytes of a body description: `lin:SEED:LEN`, `lin:SEED:LEN[a..b]` or `hex:XX+` in front of
/// either.
pub(crate) fn body(description: &str) -> Vec<u8> {
    if let Some(rest) = description.strip_prefix("hex:") {
        let (digits, rest) = rest
            .split_once('+')
            .expect("hex is followed by another generator");
        let mut bytes = hex(digits);
        bytes.extend(body(rest));
        return bytes;
    }
    let rest = description
        .strip_prefix("lin:")
        .expect("a body is described by lin or hex");
    let (numbers, slice) = match rest.split_once('[') {
        Some((numbers, slice)) => (
            numbers,
            Some(
                slice
                    .strip_suffix(']')
                    .expect("a slice ends with a bracket"),
            ),
        ),
        None => (rest, None),
    };
    let (seed, len) = numbers
        .split_once(':')
        .expect("lin has a seed and a length");
    let (seed, len): (u8, usize) = (number(seed), number(len));
    match slice.map(|slice| slice.split_once("..").expect("a slice has two ends")) {
        Some((from, to)) => {
            let (from, to) = (number(from), number(to));
            assert!(
                to <= len,
                "{description}: the slice ends after the sequence"
            );
            lin_slice(seed, from, to)
        }
        None => lin(seed, len),
    }
}

/// The bytes of a path description `text:T+repeat:a:N`.
pub(crate) fn path(description: &str) -> Vec<u8> {
    let rest = description
        .strip_prefix("text:")
        .expect("a path starts with its text");
    let (text, repeat) = rest
        .rsplit_once("+repeat:")
        .expect("and is continued by a repetition");
    let (letter, times) = repeat.split_once(':').expect("of a letter, n times");
    let mut bytes = text.as_bytes().to_vec();
    bytes.extend(letter.as_bytes().repeat(number(times)));
    bytes
}

/// Bytes from hexadecimal digits.
pub(crate) fn hex(digits: &str) -> Vec<u8> {
    assert!(
        digits.len().is_multiple_of(2),
        "an odd number of hexadecimal digits"
    );
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits"))
        .collect()
}

fn number<T: std::str::FromStr>(digits: &str) -> T {
    match digits.parse() {
        Ok(number) => number,
        Err(_) => panic!("{digits:?} is not a number in range"),
    }
}
