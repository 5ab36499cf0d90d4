//! Printing: tables and texts for people, JSON and YAML for programs.
//!
//! Tables fit the terminal; when the output is not one, they are as wide as they need to be. Colours are used on
//! a terminal only, and never with `NO_COLOR`.

use std::io::Write;

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, Width};
use serde::Serialize;
use serde_json::Value;
use shoal_core::codec::{self, Format};

use crate::args::Output;
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;

/// Where and how a command prints.
pub(crate) struct Out {
    format: Output,
    width: Option<u16>,
    colours: bool,
    sink: Box<dyn Write + Send>,
    /// Whether what is printed and what is said meanwhile are seen on one terminal.
    shared: bool,
    /// Whether it is standard output.
    stdout: bool,
    progress: Option<Progress>,
}

impl Out {
    /// Standard output.
    pub(crate) fn stdout(format: Output) -> Self {
        let stdout = std::io::stdout();
        let colours = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
        let width = if std::io::IsTerminal::is_terminal(&stdout) { Table::new().width() } else { None };
        let shared = std::io::IsTerminal::is_terminal(&stdout);
        let sink = Box::new(anstream::AutoStream::auto(stdout));
        Self { format, width, colours, sink, shared, stdout: true, progress: None }
    }

    /// Somewhere else, without colours.
    pub(crate) fn to(format: Output, width: Option<u16>, sink: Box<dyn Write + Send>) -> Self {
        Self { format, width, colours: false, sink, shared: true, stdout: false, progress: None }
    }

    /// Prints a result: `text` for people, `value` for programs.
    pub(crate) fn print<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        text: impl FnOnce(&Self) -> String,
    ) -> Outcome {
        let text = match self.format {
            Output::Text => text(self),
            Output::Json => self.encode(value, Format::Json)?,
            Output::Yaml => self.encode(value, Format::Yaml)?,
        };
        self.write(&text)
    }

    /// Prints several documents: a stream of them in YAML, a list in JSON.
    pub(crate) fn documents<T: Serialize>(&mut self, all: &[T]) -> Outcome {
        let text = match (self.format, all) {
            (Output::Json, [one]) => self.encode(one, Format::Json)?,
            (Output::Json, all) => self.encode(all, Format::Json)?,
            (Output::Text | Output::Yaml, all) => {
                let parts: Outcome<Vec<String>> =
                    all.iter().map(|one| self.encode(one, Format::Yaml)).collect();
                parts?.join("---\n")
            }
        };
        self.write(&text)
    }

    /// How results are printed.
    pub(crate) fn format(&self) -> Output {
        self.format
    }

    /// Whether people read it.
    pub(crate) fn is_text(&self) -> bool {
        self.format == Output::Text
    }

    /// Says on a terminal what is being done, once it takes long.
    pub(crate) fn begin(&mut self, what: &str) {
        self.progress = Progress::begin(what);
    }

    /// The same of something else.
    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        if let Some(progress) = &self.progress {
            progress.say(what());
        }
    }

    /// How much of how much of it is done.
    pub(crate) fn at(&self, done: u64, of: u64) {
        if let Some(progress) = &self.progress {
            progress.at(done, of);
        }
    }

    /// Writes text as it is.
    pub(crate) fn write(&mut self, text: &str) -> Outcome {
        if self.shared {
            self.progress = None;
        }
        self.sink.write_all(text.as_bytes()).and_then(|()| self.sink.flush()).map_err(Failure::printing)
    }

    /// Writes what programs read, with a line end: JSON, in which nothing means a colour, so that nobody has to look for one.
    pub(crate) fn json(&mut self, text: &[u8]) -> Outcome {
        if self.shared {
            self.progress = None;
        }
        let write = |sink: &mut dyn Write| {
            sink.write_all(text)?;
            sink.write_all(b"\n")?;
            sink.flush()
        };
        let written = if self.stdout { write(&mut std::io::stdout().lock()) } else { write(&mut self.sink) };
        written.map_err(Failure::printing)
    }

    fn encode<T: Serialize + ?Sized>(&self, value: &T, format: Format) -> Outcome<String> {
        codec::write(value, format)
            .map_err(|e| Failure::Other(anyhow::anyhow!("cannot print the result: {e}")))
    }

    /// One line that is only an impression of something long, beside `taken` columns: cut on a terminal, whole for
    /// whoever reads a pipe.
    pub(crate) fn glance(&self, text: &str, taken: u16) -> String {
        let room = self.width.map_or(usize::MAX, |width| usize::from(width.saturating_sub(taken).max(20)));
        if text.chars().count() > room {
            text.chars().take(room - 1).chain(['…']).collect()
        } else {
            text.to_owned()
        }
    }

    /// A table as text; `empty` when it has no rows.
    pub(crate) fn table(&self, header: &[&str], rows: Vec<Vec<String>>, empty: &str) -> String {
        if rows.is_empty() {
            return format!("{empty}\n");
        }
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        if let Some(width) = self.width {
            table.set_width(width).set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        if self.colours {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        // A column in which nothing stands only takes room.
        let used = |at: usize| rows.iter().any(|row| row.get(at).is_some_and(|cell| !cell.is_empty()));
        let used: Vec<bool> = (0..header.len()).map(used).collect();
        let shown = |at: usize| used.get(at).copied().unwrap_or(true);
        let header = header.iter().enumerate().filter(|(at, _)| shown(*at));
        table.set_header(header.map(|(_, h)| Cell::new(h).add_attribute(Attribute::Bold)));
        for row in rows {
            let cells = row.into_iter().enumerate().filter(|(at, _)| shown(*at));
            table.add_row(cells.map(|(_, cell)| coloured(cell)));
        }
        if let Some(first) = table.column_mut(0) {
            first.set_padding((0, 1));
        }
        if let Some(width) = self.width {
            keep_short_columns(&mut table, width);
        }
        let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n") + "\n"
    }

    /// A line of a diff, coloured by its first character.
    pub(crate) fn diff_line(&self, line: &str) -> String {
        let colour = match line.trim_start().chars().next() {
            Some('+') => "\u{1b}[32m",
            Some('-') => "\u{1b}[31m",
            Some('@') => "\u{1b}[36m",
            _ => return line.to_owned(),
        };
        if self.colours { format!("{colour}{line}\u{1b}[0m") } else { line.to_owned() }
    }
}

/// The widest column that is never broken: a time with its date.
const SHORT: u16 = 20;
/// What a column that may be broken needs, with the room around it.
const BROKEN: u16 = 12;

/// Breaks long cells only, where the terminal has room for that: a time on two lines or a heading of two halves costs more
/// than it saves.
fn keep_short_columns(table: &mut Table, width: u16) {
    let widths = table.column_max_content_widths();
    let short = |width: &&u16| **width <= SHORT;
    let taken: u16 = widths.iter().filter(short).map(|width| width + 2).sum();
    let long = u16::try_from(widths.iter().filter(|width| **width > SHORT).count()).unwrap_or(u16::MAX);
    if long.saturating_mul(BROKEN).saturating_add(taken) > width {
        return;
    }
    for (at, found) in widths.iter().enumerate().filter(|(_, width)| **width <= SHORT) {
        if let Some(column) = table.column_mut(at) {
            let (left, right) = if at == 0 { (0, 1) } else { (1, 1) };
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(found + left + right)));
        }
    }
}

/// A cell whose text says how things are, in the colour of that.
fn coloured(text: String) -> Cell {
    let colour = match text.as_str() {
        "live" | "active" | "converged" => Some(Color::Green),
        "dead" | "failed" | "failing" => Some(Color::Red),
        "held" | "draining" | "behind" | "paused" => Some(Color::Yellow),
        _ => None,
    };
    let cell = Cell::new(text);
    match colour {
        Some(colour) => cell.fg(colour),
        None => cell,
    }
}

/// A value as people read it, on one line: text as it stands, lists and maps in YAML's short form, with quotes only
/// where it would mean something else without.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if !text.contains('\n') => text.clone(),
        value => inner(value),
    }
}

fn inner(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => {
            let bare = !text.is_empty()
                && !text.contains(|c: char| c.is_control() || ",[]{}#\"'".contains(c))
                && !text.contains(": ")
                && text.trim() == text
                && codec::read::<Value>(text.as_bytes(), Format::Yaml).is_ok_and(|read| read == *value);
            if bare { text.clone() } else { value.to_string() }
        }
        Value::Array(list) => format!("[{}]", list.iter().map(inner).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let fields: Vec<String> =
                map.iter().map(|(name, value)| format!("{name}: {}", inner(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        let row = |name: &str| vec![name.to_owned(), String::new(), "active".to_owned()];
        vec![row("web1.example.com"), row("web2.example.com")]
    }

    fn out(colours: bool, width: Option<u16>) -> Out {
        Out { colours, ..Out::to(Output::Text, width, Box::new(std::io::sink())) }
    }

    #[test]
    fn values_are_text_for_people() {
        let of = |value: serde_json::Value| plain(&value);
        assert_eq!(of(serde_json::json!("10 10 443 {name}.")), "10 10 443 {name}.");
        assert_eq!(
            of(serde_json::json!(["ns1.example.com", "7", 7, true])),
            "[ns1.example.com, \"7\", 7, true]"
        );
        assert_eq!(
            of(serde_json::json!([{"type": "A", "ttl": 60, "data": ["192.0.2.1", "a, b"]}])),
            "[{type: A, ttl: 60, data: [192.0.2.1, \"a, b\"]}]"
        );
        assert_eq!(
            of(serde_json::json!({"address": "2001:db8::1", "x": null, "e": ""})),
            "{address: 2001:db8::1, x: null, e: \"\"}"
        );
    }

    #[test]
    fn columns_without_content_are_left_out() {
        let text = out(false, None).table(&["HOST", "OWNER", "STATE"], rows(), "");
        assert_eq!(text, "HOST              STATE\nweb1.example.com  active\nweb2.example.com  active\n");
    }

    #[test]
    fn what_is_long_is_cut_for_eyes_and_whole_for_programs() {
        let long = "x".repeat(500);
        assert_eq!(out(false, Some(100)).glance(&long, 4).chars().count(), 96);
        assert_eq!(out(false, None).glance(&long, 4), long);
    }

    #[test]
    fn what_is_short_is_not_broken() {
        let rows = vec![vec!["7".to_owned(), "2026-11-28 13:21:09Z".to_owned(), "words ".repeat(30)]];
        let text = out(false, Some(60)).table(&["REVISION", "TIME", "MESSAGE"], rows, "");
        assert!(text.contains("2026-11-28 13:21:09Z") && text.contains("REVISION  TIME"), "{text}");
        assert!(text.lines().count() > 3 && text.lines().all(|line| line.chars().count() <= 60), "{text}");
    }

    #[test]
    fn tables_fit_the_terminal_and_colours_lose_nothing() {
        let plain = out(false, Some(18)).table(&["HOST", "OWNER", "STATE"], rows(), "");
        assert!(plain.lines().all(|line| line.chars().count() <= 18), "{plain}");
        let coloured = out(true, Some(40)).table(&["HOST", "OWNER", "STATE"], rows(), "");
        assert!(coloured.contains("HOST") && coloured.contains("\u{1b}["), "{coloured}");
        assert_eq!(anstream::adapter::strip_str(&coloured).to_string().lines().count(), 3);
    }
}
