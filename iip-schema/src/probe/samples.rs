//! Values that an observed `Deserialize` is given, in the order in which they are tried.

/// The number of rounds until nothing new is tried.
pub(super) const ROUNDS: usize = TEXTS.len();

/// Texts that common types accept.
const TEXTS: [&str; 32] = [
    "1",
    "a",
    "67e55044-10b1-426f-9247-bb680e5fe0c8",
    "http://example.com/",
    "1.2.3",
    "127.0.0.1",
    "::1",
    "127.0.0.1:80",
    "[::1]:80",
    "10.0.0.0/8",
    "2001:db8::/32",
    "2024-01-02T03:04:05Z",
    "2024-01-02",
    "2024-01-02T03:04:05",
    "03:04:05",
    "2024-01-02 03:04:05 +00:00:00",
    "user@example.com",
    "",
    "1.5",
    "true",
    "10s",
    "P1D",
    "Monday",
    "January",
    "en",
    "USD",
    "#ffffff",
    "AQ==",
    "UTC",
    "GET",
    "text/plain",
    "0000000000000000000000000000000000000000000000000000000000000001",
];

const NUMBERS: [u8; 8] = [1, 0, 2, 10, 16, 100, 24, 127];

const LENGTHS: [usize; 9] = [16, 0, 1, 4, 8, 12, 20, 32, 64];

static BYTES: [u8; 64] = [b'1'; 64];

pub(super) fn text(round: usize) -> &'static str {
    TEXTS[round % TEXTS.len()]
}

pub(super) fn number(round: usize) -> u8 {
    NUMBERS[round % NUMBERS.len()]
}

pub(super) fn bytes(round: usize) -> &'static [u8] {
    &BYTES[..LENGTHS[round % LENGTHS.len()]]
}
