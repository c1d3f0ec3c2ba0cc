//! Rows as text: written, and read again by the names of their columns. What cannot be read is named by its line and left out.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use lab::{Column, How, Measures, Unit};
use serde::Serialize;
use serde_json::Value;

use super::{Record, SCHEMA, former};
use crate::escape;

/// What the data dictionary is called that stands beside the rows.
pub const SCHEMA_FILE: &str = "schema.json";

/// Rows of a file.
#[derive(Debug, Default)]
pub struct Rows {
    pub records: Vec<Record>,
    /// Lines that are no rows of ours, in their order.
    pub dropped: Vec<Dropped>,
}

/// A row takes some 2 KiB of memory.
const MOST_ROWS: usize = 1_000_000;

/// A line that could not be read.
#[derive(Debug, PartialEq)]
pub struct Dropped {
    pub line: u64,
    pub reason: String,
}

/// A row as text, with the names of the columns before it if it is the first.
pub fn write_row(record: &Record, with_names: bool) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let own = Record::COLUMNS.iter();
    let measured = Measures::COLUMNS.iter();
    if with_names {
        let names = own.clone().map(|column| column.name);
        writer.write_record(names.chain(measured.clone().map(|column| column.name)))?;
    }
    let own = own.map(|column| field(column.unit, &(column.write)(record)));
    let measured = measured.map(|column| field(column.unit, &(column.write)(&record.measures)));
    writer.write_record(own.chain(measured))?;
    Ok(writer.into_inner()?)
}

/// Numbers are as they are: a spreadsheet is to compute with them.
fn field(unit: Unit, text: &str) -> String {
    match unit {
        Unit::Text => escape::csv(text),
        _ => text.to_owned(),
    }
}

/// Reads the rows of a file, of this schema or a former one. `devices` says what a device of the machine is, for rows that do
/// not say it themselves.
///
/// # Errors
///
/// If the first line does not name a record's columns, or if there are more than [`MOST_ROWS`].
pub fn read(bytes: &[u8], path: &Path, devices: &BTreeMap<String, String>) -> anyhow::Result<Rows> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let names = reader.headers();
    let names = names.with_context(|| format!("{}: line 1 cannot be read", path.display()))?;
    let names: Vec<String> = names.iter().map(str::to_owned).collect();
    let mut rows = Rows::default();
    if names.iter().all(String::is_empty) {
        return Ok(rows);
    }
    anyhow::ensure!(
        ["schema", "run_id", "experiment", "status"]
            .iter()
            .all(|needed| names.iter().any(|name| name == needed)),
        "{}: line 1 does not name the columns of a record of runs",
        path.display()
    );
    let mut ids = HashSet::new();
    for (at, row) in reader.records().enumerate() {
        anyhow::ensure!(
            at < MOST_ROWS,
            "{}: has more than {MOST_ROWS} rows: divide it among folders",
            path.display()
        );
        let (line, fields) = match &row {
            Ok(row) => (
                row.position().map_or(0, csv::Position::line),
                Ok(row.iter().map(str::to_owned).collect::<Vec<_>>()),
            ),
            Err(error) => (
                error.position().map_or(0, csv::Position::line),
                Err("it is no text in UTF-8".to_owned()),
            ),
        };
        let record = fields.and_then(|fields| record(&names, &fields, devices));
        match record {
            Ok(record) if ids.insert(record.run_id.clone()) => rows.records.push(record),
            Ok(record) => rows.dropped.push(Dropped {
                line,
                reason: format!("it is a second row of run {}", record.run_id),
            }),
            Err(reason) => rows.dropped.push(Dropped { line, reason }),
        }
    }
    Ok(rows)
}

fn record(
    names: &[String],
    fields: &[String],
    devices: &BTreeMap<String, String>,
) -> Result<Record, String> {
    if fields.len() != names.len() {
        let (found, expected) = (fields.len(), names.len());
        return Err(format!(
            "it has {found} fields, and there are {expected} columns"
        ));
    }
    let given: BTreeMap<&str, &str> = names
        .iter()
        .zip(fields)
        .map(|(name, field)| (&**name, &**field))
        .collect();
    let schema = given.get("schema").copied().unwrap_or_default();
    let schema: u32 = schema
        .parse()
        .ok()
        .filter(|schema| (1..=SCHEMA).contains(schema))
        .ok_or_else(|| format!("its schema is `{schema}`, and this harness reads 1 to {SCHEMA}"))?;
    let mut record = Record::unmeasured();
    fill(Record::COLUMNS, &mut record, &given, schema)?;
    let mut measures = Measures::default();
    fill(Measures::COLUMNS, &mut measures, &given, schema)?;
    record.measures = Arc::new(measures);
    former::bring_up_to_date(&mut record, &given, devices)?;
    check(&record)?;
    Ok(record)
}

/// That nothing in it is impossible.
fn check(record: &Record) -> Result<(), String> {
    for column in Measures::COLUMNS {
        let value = (column.number)(&record.measures);
        let seconds = value.filter(|_| column.unit == Unit::Seconds);
        if let Some(seconds) = seconds.filter(|seconds| !(0.0..MOST_SECONDS).contains(seconds)) {
            return Err(format!(
                "column {}: a run of {seconds} s is none",
                column.name
            ));
        }
        let bytes = value.filter(|_| column.unit == Unit::Bytes);
        if let Some(bytes) = bytes.filter(|bytes| *bytes > MOST_BYTES) {
            return Err(format!(
                "column {}: {bytes} bytes are in no machine",
                column.name
            ));
        }
    }
    if record.is_measured()
        && (record.model_bytes == 0 || record.measures.load_seconds == Some(0.0))
    {
        return Err("a model without bytes, or a load in no time".to_owned());
    }
    // They become parts of paths.
    let names = [
        ("run_id", &record.run_id),
        ("manifest", &record.manifest),
        ("machine", &record.machine),
        ("model", &record.model),
        ("device", &record.device),
        ("dtype", &record.dtype),
        ("cache", &record.cache),
        ("experiment", &record.experiment),
        ("backend", &record.backend),
        ("memory_model", &record.memory_model),
    ];
    if let Some((column, name)) = names.iter().find(|(_, name)| name.len() > MOST_NAME_BYTES) {
        let bytes = name.len();
        return Err(format!("column {column}: a name of {bytes} bytes is none"));
    }
    let leads_away = |name: &str| name.contains(['/', '\\']) || matches!(name, "." | "..");
    if let Some((column, name)) = names.iter().find(|(_, name)| leads_away(name)) {
        return Err(format!("column {column}: `{name}` is no name, but a path"));
    }
    Ok(())
}

/// Charts are as wide as their longest name.
const MOST_NAME_BYTES: usize = 256;

/// No run takes a year.
const MOST_SECONDS: f64 = 3e7;

/// No machine has an exbibyte.
const MOST_BYTES: f64 = 1.2e18;

/// Until schema 5, texts stood there as they were.
fn from_field(unit: Unit, text: &str, schema: u32) -> &str {
    match unit {
        Unit::Text if schema > 5 => escape::from_csv(text),
        _ => text,
    }
}

fn fill<T>(
    columns: &[Column<T>],
    row: &mut T,
    given: &BTreeMap<&str, &str>,
    schema: u32,
) -> Result<(), String> {
    for column in columns {
        match given.get(column.name) {
            // Was something else under this name.
            Some(_) if former::is_read_apart(column.name, schema) => {}
            Some(text) => (column.read)(row, from_field(column.unit, text, schema))
                .map_err(|reason| format!("column {}: {reason}", column.name))?,
            None if column.since > schema => {}
            None => return Err(format!("column {} is missing", column.name)),
        }
    }
    Ok(())
}

/// A row as an object: numbers as numbers, and null for what is absent.
pub fn as_json(record: &Record) -> Value {
    fn values<T>(columns: &[Column<T>], row: &T) -> impl Iterator<Item = (String, Value)> {
        columns.iter().map(move |column| {
            let text = (column.write)(row);
            let value = match column.unit {
                _ if text.is_empty() => Value::Null,
                Unit::Text => Value::String(text),
                // Numbers and truth values are written as JSON writes them.
                _ => text.parse().unwrap_or(Value::String(text)),
            };
            (column.name.to_owned(), value)
        })
    }
    let own = values(Record::COLUMNS, record);
    Value::Object(
        own.chain(values(Measures::COLUMNS, &record.measures))
            .collect(),
    )
}

/// A column in the data dictionary.
#[derive(Serialize)]
struct Entry {
    name: &'static str,
    unit: Unit,
    /// How a value comes about.
    how: How,
    since_schema: u32,
    meaning: &'static str,
}

#[derive(Serialize)]
struct Dictionary {
    schema: u32,
    about: &'static str,
    columns: Vec<Entry>,
}

/// The data dictionary of a file with these columns, of this schema: each with its unit, how it comes about, and what it means.
pub fn dictionary(schema: u32, names: &[String]) -> String {
    let dictionary = Dictionary {
        schema,
        about: "Columns of runs.csv: a row is a run in a process of its own. An empty field was not measured. `how`: given was \
                asked for or looked up; exact is by the instrument that keeps the mark; marks was read at every phase mark; \
                sampled was read every 1 to 4 ms; computed follows from other columns.",
        columns: names
            .iter()
            .filter_map(|name| entry(name, schema))
            .collect(),
    };
    let text = serde_json::to_string_pretty(&dictionary).expect("a dictionary is JSON");
    text + "\n"
}

/// What is said of a column in files of a schema.
fn entry(name: &str, schema: u32) -> Option<Entry> {
    fn of<T>(columns: &[Column<T>], name: &str) -> Option<Entry> {
        let column = columns.iter().find(|column| column.name == name)?;
        Some(Entry {
            name: column.name,
            unit: column.unit,
            how: column.how,
            since_schema: column.since,
            meaning: column.meaning,
        })
    }
    if let Some((name, since_schema, meaning)) = former::column(name, schema) {
        return Some(Entry {
            name,
            unit: Unit::Text,
            how: How::Given,
            since_schema,
            meaning,
        });
    }
    of(Record::COLUMNS, name).or_else(|| of(Measures::COLUMNS, name))
}

/// The columns that a file names, and the newest schema of its rows.
pub fn columns_of(bytes: &[u8]) -> (u32, Vec<String>) {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let names: Vec<String> = match reader.headers() {
        Ok(names) => names.iter().map(str::to_owned).collect(),
        Err(_) => Vec::new(),
    };
    let place = names.iter().position(|name| name == "schema");
    let rows = reader.records().flatten();
    let schemas = rows.filter_map(|row| row.get(place?)?.parse::<u32>().ok());
    let schema = schemas.filter(|schema| *schema <= SCHEMA).max();
    (schema.unwrap_or(SCHEMA), names)
}

#[cfg(test)]
mod tests {
    use lab::{Spoiling, Status};

    use super::*;

    fn example() -> Record {
        Record {
            run_id: "a".to_owned(),
            model_bytes: 1,
            status: Status::Ok,
            reason: Some("with, a comma and \"quotes\"".to_owned()),
            spoilt_by: vec![Spoiling::Disk, Spoiling::Swap],
            threads: Some(2),
            measures: Measures {
                load_seconds: Some(0.125),
                host_heap_peak_bytes: Some(1 << 60),
                ..Measures::default()
            }
            .into(),
            ..Record::unmeasured()
        }
    }

    fn read_text(text: &[u8]) -> anyhow::Result<Rows> {
        read(text, Path::new("runs.csv"), &BTreeMap::new())
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let written = write_row(&example(), true).unwrap();
        let rows = read_text(&written).unwrap();
        assert!(rows.dropped.is_empty(), "{:?}", rows.dropped);
        assert_eq!(write_row(&rows.records[0], true).unwrap(), written);
    }

    #[test]
    fn a_row_as_an_object_has_numbers_and_nulls() {
        let object = as_json(&example());
        assert_eq!(object["load_seconds"], 0.125);
        assert_eq!(object["host_heap_peak_bytes"], 1u64 << 60);
        assert_eq!(object["verified"], false);
        assert_eq!(object["status"], "ok");
        assert_eq!(object["queue_depth"], Value::Null);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named_and_left_out_and_the_others_stay() {
        let mut text = write_row(&example(), true).unwrap();
        text.extend(b"rubbish\n");
        let good = String::from_utf8(write_row(&example(), false).unwrap()).unwrap();
        let named = |id: &str, row: &str| row.replacen(",a,", &format!(",{id},"), 1);
        let wrong = [
            (named("b", &good.replace(",ok,", ",fine,")), "status"),
            (named("c", &good.replacen("6,", "9,", 1)), "schema is `9`"),
            (named("d", &good.replace("0.125", "inf")), "load_seconds"),
            (named("e", &good.replace("0.125", "-1")), "a run of -1 s"),
            (named(&"f".repeat(300), &good), "a name of 300 bytes"),
            (good.clone(), "a second row of run a"),
        ];
        for (row, _) in &wrong {
            text.extend(row.bytes());
        }
        text.extend(named("z", &good).bytes());
        let rows = read_text(&text).unwrap();
        let ids: Vec<&str> = rows.records.iter().map(|row| &*row.run_id).collect();
        assert_eq!(ids, ["a", "z"]);
        let lines: Vec<u64> = rows.dropped.iter().map(|dropped| dropped.line).collect();
        assert_eq!(lines, [3, 4, 5, 6, 7, 8, 9]);
        assert!(rows.dropped[0].reason.contains("1 fields"));
        for (dropped, (_, expected)) in rows.dropped[1..].iter().zip(&wrong) {
            assert!(dropped.reason.contains(expected), "{dropped:?}");
        }
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let error = read_text(b"a,b\n1,2\n").unwrap_err().to_string();
        assert!(error.contains("runs.csv: line 1"), "{error}");
        assert!(read_text(b"").unwrap().records.is_empty());
    }

    #[test]
    fn more_lines_than_a_record_has_are_refused_whatever_stands_in_them() {
        let mut text = write_row(&example(), true).unwrap();
        text.extend(b"x\n".repeat(MOST_ROWS));
        let error = read_text(&text).unwrap_err().to_string();
        assert!(error.contains("more than 1000000 rows"), "{error}");
    }

    #[test]
    fn the_dictionary_has_every_column_with_unit_meaning_and_schema() {
        let written = String::from_utf8(write_row(&example(), true).unwrap()).unwrap();
        let (schema, names) = columns_of(written.as_bytes());
        assert_eq!(schema, SCHEMA);
        let dictionary = dictionary(schema, &names);
        let dictionary: serde_json::Value = serde_json::from_str(&dictionary).unwrap();
        let columns = dictionary["columns"].as_array().unwrap();
        let header: Vec<&str> = written.lines().next().unwrap().split(',').collect();
        let names: Vec<&str> = columns
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, header);
        for column in columns {
            let name = column["name"].as_str().unwrap();
            assert!(!column["meaning"].as_str().unwrap().is_empty(), "{name}");
            assert_eq!(
                name.ends_with("_bytes"),
                column["unit"] == "bytes" && name != "bytes_read",
                "{name}"
            );
            assert_eq!(
                name.ends_with("_seconds"),
                column["unit"] == "seconds",
                "{name}"
            );
        }
    }
}
