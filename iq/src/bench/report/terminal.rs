//! The width of the terminal.

/// The width if the output is not a terminal.
const DEFAULT: usize = 80;

/// The minimum and the maximum width.
const BOUNDS: (usize, usize) = (40, 160);

/// Returns the number of columns for plots: that of the terminal, or of the variable `COLUMNS`.
pub(super) fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok();
    let columns = columns.and_then(|columns| columns.parse().ok());
    let width = columns.or_else(of_terminal).unwrap_or(DEFAULT);
    width.clamp(BOUNDS.0, BOUNDS.1)
}

#[cfg(unix)]
fn of_terminal() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then(|| size.ws_col.into())
}

#[cfg(not(unix))]
fn of_terminal() -> Option<usize> {
    None
}
