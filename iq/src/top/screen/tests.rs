//! Drawings of the screen, in memory.

use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};
use serde_json::json;

use super::*;

/// Returns the snapshot of a process with three methods, a failed call, two backends and a
/// connection.
fn snapshot(rate: f64) -> Snapshot {
    let method = |name: &str, source: u64, rate: f64, errors: f64| {
        json!({
            "id": 1, "source": source, "name": name, "rate": rate, "errors": errors, "p50": 1776,
            "p99": 3168, "p999": null, "in_flight": 4, "codes": {"UNAVAILABLE": errors},
            "calls": 4773168, "failed": 0, "second": [1, 0],
        })
    };
    let page = json!({
        "format": 1, "name": "shop", "version": "0.1.0", "pid": 4711, "started": 1000, "now": 4_321_000,
        "tick": 7,
        "verdict": {"level": "problem", "text": "Orders/place of server orders: 9 % of calls fail"},
        "drain": {"available": false, "draining": false},
        "sources": [
            {"id": 0, "kind": "server", "name": "orders"},
            {"id": 1, "kind": "client", "name": "stock", "target": "static:a:1,b:1"},
        ],
        "totals": [{
            "side": "server", "rate": 2209.4, "errors": 0.5, "p50": 1650, "p99": 60416, "p999": null,
            "in_flight": 5,
        }],
        "methods": [
            method("Orders/find", 0, 10.0, 0.0),
            method("Orders/place", 0, rate, 0.5),
            method("Stock/\u{1b}[2Jtake", 1, 1.0, 0.0),
        ],
        "calls": [{
            "n": 12, "at": 4_311_000, "source": 1, "method": "Stock/take", "code": "UNAVAILABLE",
            "took": 1420, "trace": "4bf92f35", "text": "the shelf is being refilled",
            "phases": [{"name": "reply", "us": 1400}],
        }],
        "backends": [
            {"source": 1, "id": "a:1", "address": "a:1", "state": "ready", "weight": 1.0,
             "score": 1290.5, "in_flight": 1, "connections": 1, "reasons": []},
            {"source": 1, "id": "b:1", "address": "b:1", "state": "ejected", "weight": 1.0,
             "score": null, "in_flight": 0, "connections": null, "reasons": ["5 failures in a row"]},
        ],
        "connections": {"total": 1, "listed": [{
            "id": 3, "source": 0, "peer": "10.0.0.9:40311", "since": 4_260_000, "received": 81920,
            "sent": 40960, "unsent": 0, "calls": 1,
        }]},
        "peers": [],
    });
    Snapshot::of_page(page.to_string().as_bytes()).unwrap()
}

struct Fixture {
    screen: Screen,
    terminal: Terminal<TestBackend>,
    now: Instant,
}

impl Fixture {
    fn new(has_colours: bool) -> Self {
        Self {
            screen: Screen::new("http://localhost:9000", has_colours, snapshot(1104.9)),
            terminal: Terminal::new(TestBackend::new(80, 24)).unwrap(),
            now: Instant::now(),
        }
    }

    /// Returns the lines of the screen.
    fn lines(&mut self) -> Vec<String> {
        let (screen, now) = (&mut self.screen, self.now);
        self.terminal
            .draw(|frame| draw(frame, screen, now))
            .unwrap();
        let buffer = self.terminal.backend().buffer();
        let rows = buffer.content.chunks(buffer.area.width.into());
        let row = |cells: &[ratatui::buffer::Cell]| {
            let line: String = cells.iter().map(|cell| cell.symbol()).collect();
            line.trim_end().to_owned()
        };
        rows.map(row).collect()
    }

    fn press(&mut self, keys: &str) -> Vec<String> {
        for c in keys.chars() {
            let code = match c {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                c => KeyCode::Char(c),
            };
            assert_eq!(self.key(code), Next::Draw, "{c:?}");
        }
        self.lines()
    }

    fn key(&mut self, code: KeyCode) -> Next {
        self.screen.on_key(KeyEvent::new(code, KeyModifiers::NONE))
    }
}

/// Returns the first words of the rows below the head of the table.
fn firsts(lines: &[String]) -> Vec<&str> {
    let rows = lines[5..23].iter().filter(|line| !line.is_empty());
    rows.map(|line| line.split_whitespace().next().unwrap())
        .collect()
}

#[test]
fn the_first_picture_answers_the_first_questions_at_80_columns() {
    let lines = Fixture::new(false).lines();
    let expected = [
        "shop (version 0.1.0, process 4711, up 1:12 h)              http://localhost:9000",
        "PROBLEM: Orders/place of server orders: 9 % of calls fail",
        "2209 calls/s served, 0.5 errors/s, p50 1.6ms, p99 60.4ms, 5 in flight",
        " 1 methods 3   2 calls 1   3 backends 2, 1 out   4 connections 1",
    ];
    assert_eq!(lines[..4], expected);
    let head: Vec<&str> = lines[4].split_whitespace().collect();
    assert_eq!(
        head,
        [
            "method",
            "calls/s↓",
            "errors/s",
            "p50",
            "p99",
            "p99.9",
            "in",
            "flight"
        ]
    );
    let row: Vec<&str> = lines[5].split_whitespace().collect();
    assert_eq!(
        row,
        ["Orders/place", "1105", "0.5", "1.8ms", "3.2ms", "-", "4"]
    );
    assert_eq!(lines.len(), 24);
    assert!(lines[23].starts_with("q quit"), "{}", lines[23]);
}

#[test]
fn more_room_shows_more_columns_and_less_room_fewer() {
    let mut fixture = Fixture::new(false);
    fixture.terminal.backend_mut().resize(160, 50);
    let lines = fixture.lines();
    assert!(lines[4].contains("codes/s"), "{}", lines[4]);
    assert!(lines[5].contains("UNAVAILABLE 0.5"), "{}", lines[5]);
    for (width, height) in [(30, 10), (10, 5), (1, 1), (200, 3)] {
        fixture.terminal.backend_mut().resize(width, height);
        assert_eq!(fixture.lines().len(), usize::from(height));
    }
}

#[test]
fn rows_are_sorted_by_any_column_in_both_orders() {
    let mut fixture = Fixture::new(false);
    let hostile = r"Stock/\u{1b}[2Jtake";
    let by_rate = fixture.lines();
    assert_eq!(firsts(&by_rate), ["Orders/place", "Orders/find", hostile]);
    let reversed = fixture.press("r");
    assert!(reversed[4].contains("calls/s↑"), "{}", reversed[4]);
    assert_eq!(firsts(&reversed), [hostile, "Orders/find", "Orders/place"]);
    // Errors, back to calls, the source, and the names.
    let by_name = fixture.press("sSSS");
    assert!(by_name[4].starts_with("method↑"), "{}", by_name[4]);
    assert_eq!(firsts(&by_name), ["Orders/find", "Orders/place", hostile]);
}

#[test]
fn rows_are_filtered_by_a_text() {
    let mut fixture = Fixture::new(false);
    fixture.lines();
    let typing = fixture.press("/PLACq");
    assert_eq!(typing[23], "/PLACq_");
    assert_eq!(typing[4], "no methods with this text");
    assert_eq!(fixture.key(KeyCode::Backspace), Next::Draw);
    let found = fixture.press("\n");
    assert_eq!(firsts(&found), ["Orders/place"]);
    assert!(
        found[23].starts_with("only rows with `PLAC`"),
        "{}",
        found[23]
    );
    let all = fixture.press("\u{1b}");
    assert_eq!(firsts(&all).len(), 3);
    assert_eq!(fixture.key(KeyCode::Esc), Next::Quit);
}

#[test]
fn each_part_has_its_table_and_rows_their_fields() {
    let mut fixture = Fixture::new(false);
    let calls = fixture.press("2");
    let call: Vec<&str> = calls[5].split_whitespace().collect();
    assert_eq!(call[..5], ["10", "s", "UNAVAILABLE", "1.4ms", "Stock/take"]);
    let fields = fixture.press("\n");
    let has = |text: &str| fields.iter().any(|line| line.contains(text));
    assert!(
        has("message       the shelf is being refilled"),
        "{fields:?}"
    );
    assert!(has("trace         4bf92f35"), "{fields:?}");
    assert!(has("phases        reply 1.4ms"), "{fields:?}");
    fixture.screen.update(snapshot(5.0));
    assert_eq!(fixture.lines(), fields, "it is being read");
    let backends = fixture.press("\n3");
    assert!(backends[6].contains("ejected"), "{}", backends[6]);
    assert!(backends[6].contains("5 failures in"), "{}", backends[6]);
    let connections = fixture.press("4");
    assert!(
        connections[5].starts_with("10.0.0.9:40311"),
        "{}",
        connections[5]
    );
    assert!(connections[5].contains("80.0 KiB"), "{}", connections[5]);
    let help = fixture.press("?");
    assert!(
        help.iter().any(|line| line.contains("sort by the next")),
        "{help:?}"
    );
}

#[test]
fn a_row_and_the_help_are_scrolled_on_a_small_terminal() {
    let mut fixture = Fixture::new(false);
    fixture.terminal = Terminal::new(TestBackend::new(40, 10)).unwrap();
    let text = "the shelf is being refilled by somebody who is slow ".repeat(4);
    fixture.screen.shown.calls[0].text = Some(crate::live::Text::new(&text));
    fixture.press("2");
    for (keys, first, last) in [("\n", "ago  ", "4bf92f35"), ("\u{1b}?", "1 2 3 4", "quit")] {
        let lines = fixture.press(keys);
        let shown = |lines: &[String], text| lines.iter().any(|line| line.contains(text));
        assert!(shown(&lines, first) && !shown(&lines, last), "{lines:#?}");
        assert!(lines[0].contains(", lines 1 to 7 of "), "{lines:#?}");
        assert!(lines[9].starts_with("Up Down scroll"), "{lines:#?}");
        let mut all = lines;
        for _ in 0..40 {
            all.extend(fixture.press("j"));
        }
        assert!(shown(&all[all.len() - 10..], last), "{all:#?}");
        assert!(!all.iter().any(|line| line.contains('…')), "{all:#?}");
        let lines = fixture.press("g");
        assert!(shown(&lines, first), "{lines:#?}");
    }
}

#[test]
fn a_pause_keeps_the_numbers_until_it_ends() {
    let mut fixture = Fixture::new(false);
    let paused = fixture.press("p");
    assert!(paused[0].ends_with("PAUSED"), "{}", paused[0]);
    fixture.screen.update(snapshot(5.0));
    assert!(fixture.lines()[5].contains("1105"));
    let lines = fixture.press("p");
    assert_eq!(firsts(&lines)[..2], ["Orders/find", "Orders/place"]);
}

#[test]
fn a_lost_connection_is_said_until_there_are_new_numbers() {
    let mut fixture = Fixture::new(false);
    let since = fixture.now;
    fixture.screen.fail("the first reason".to_owned(), since);
    fixture.screen.fail("connection refused".to_owned(), since);
    fixture.now += Duration::from_secs(12);
    let line = "NOT CONNECTED for 12 s, trying again: connection refused";
    assert_eq!(fixture.lines()[1], line);
    fixture.screen.update(snapshot(5.0));
    assert!(fixture.lines()[1].starts_with("PROBLEM"));
}

#[test]
fn the_selected_row_stays_on_the_screen() {
    let mut fixture = Fixture::new(false);
    let rows = (0..100).map(|n| {
        let mut method = snapshot(1.0).methods.remove(0);
        method.name = crate::live::Text::new(&format!("m{n:02}"));
        method
    });
    fixture.screen.shown.methods = rows.collect();
    fixture.lines();
    for (key, first) in [
        (KeyCode::End, "m82"),
        (KeyCode::Up, "m82"),
        (KeyCode::PageUp, "m80"),
        (KeyCode::Home, "m00"),
        (KeyCode::PageDown, "m01"),
        (KeyCode::Down, "m02"),
    ] {
        fixture.key(key);
        let lines = fixture.lines();
        assert_eq!((firsts(&lines)[0], key), (first, key));
    }
}

#[test]
fn there_are_colours_only_if_they_are_allowed() {
    for has_colours in [true, false] {
        let mut fixture = Fixture::new(has_colours);
        fixture.lines();
        let buffer = fixture.terminal.backend().buffer();
        let coloured = buffer.content.iter().any(|cell| cell.fg != Color::Reset);
        assert_eq!(coloured, has_colours);
        let verdict = &buffer[(0, 1)];
        assert!(verdict.modifier.contains(Modifier::BOLD));
    }
}

#[test]
fn control_keys_interrupt_and_redraw() {
    let mut fixture = Fixture::new(false);
    let mut press = |c| {
        let key = KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
        fixture.screen.on_key(key)
    };
    assert_eq!((press('c'), press('l')), (Next::Interrupt, Next::Redraw));
    assert_eq!(fixture.key(KeyCode::Char('q')), Next::Quit);
}
