//! Rows as text: written, and read again by the names of their columns. What cannot be read is named by its line and left out.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use lab::{Column, How, Measures, Unit};
use serde::Serialize;
use serde_json::Value;

use super::{Record, SCHEMA, former};

/// What the data dictionary is called that stands beside the rows.
pub const SCHEMA_FILE: &str = "schema.json";

/// Rows of a file.
#[derive(Debug, Default)]
pub struct Rows {
    pub records: Vec<Record>,
    /// Lines that are no rows of ours, in their order.
    pub dropped: Vec<Dropped>,
}

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
    let own = own.map(|column| (column.write)(record));
    let measured = measured.map(|column| (column.write)(&record.measures));
    writer.write_record(own.chain(measured))?;
    Ok(writer.into_inner()?)
}

/// Reads the rows of a file, of this schema or a former one. `devices` says what a device of the machine is, for rows that do
/// not say it themselves.
///
/// # Errors
///
/// If the first line does not name a record's columns.
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
    for row in reader.records() {
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
            Ok(record) => rows.records.push(record),
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
    fill(Measures::COLUMNS, &mut record.measures, &given, schema)?;
    former::bring_up_to_date(&mut record, &given, devices)?;
    Ok(record)
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
            Some(text) => (column.read)(row, text)
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

/// The data dictionary: every column with its unit, how it comes about, and what it means.
pub fn dictionary() -> String {
    fn entries<T>(columns: &[Column<T>]) -> impl Iterator<Item = Entry> {
        columns.iter().map(|column| Entry {
            name: column.name,
            unit: column.unit,
            how: column.how,
            since_schema: column.since,
            meaning: column.meaning,
        })
    }
    let dictionary = Dictionary {
        schema: SCHEMA,
        about: "Columns of runs.csv: a row is a run in a process of its own. An empty field was not measured. `how`: given was \
                asked for or looked up; exact is by the instrument that keeps the mark; marks was read at every phase mark; \
                sampled was read every 1 to 4 ms; computed follows from other columns.",
        columns: entries(Record::COLUMNS)
            .chain(entries(Measures::COLUMNS))
            .collect(),
    };
    let text = serde_json::to_string_pretty(&dictionary).expect("a dictionary is JSON");
    text + "\n"
}

#[cfg(test)]
mod tests {
    use lab::{Spoiling, Status};

    use super::*;

    fn example() -> Record {
        Record {
            run_id: "a".to_owned(),
            status: Status::Ok,
            reason: Some("with, a comma and \"quotes\"".to_owned()),
            spoilt_by: vec![Spoiling::Disk, Spoiling::Swap],
            threads: Some(2),
            measures: Measures {
                load_seconds: Some(0.125),
                host_heap_peak_bytes: Some(u64::MAX),
                ..Measures::default()
            },
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
        assert_eq!(object["host_heap_peak_bytes"], u64::MAX);
        assert_eq!(object["verified"], false);
        assert_eq!(object["status"], "ok");
        assert_eq!(object["queue_depth"], Value::Null);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named_and_left_out_and_the_others_stay() {
        let mut text = write_row(&example(), true).unwrap();
        text.extend(b"rubbish\n");
        let good = String::from_utf8(write_row(&example(), false).unwrap()).unwrap();
        text.extend(good.replace(",ok,", ",fine,").bytes());
        text.extend(good.replacen("5,", "9,", 1).bytes());
        text.extend(good.replace("0.125", "inf").bytes());
        text.extend(good.bytes());
        let rows = read_text(&text).unwrap();
        assert_eq!(rows.records.len(), 2);
        let lines: Vec<u64> = rows.dropped.iter().map(|dropped| dropped.line).collect();
        assert_eq!(lines, [3, 4, 5, 6]);
        for (dropped, expected) in
            rows.dropped
                .iter()
                .zip(["1 fields", "status", "schema is `9`", "load_seconds"])
        {
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
    fn the_dictionary_has_every_column_with_unit_meaning_and_schema() {
        let dictionary: serde_json::Value = serde_json::from_str(&dictionary()).unwrap();
        let columns = dictionary["columns"].as_array().unwrap();
        let written = String::from_utf8(write_row(&example(), true).unwrap()).unwrap();
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
