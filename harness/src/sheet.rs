//! A table with a title and remarks, as text for a terminal and as Markdown.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::escape::markdown;

/// What stands for a value that was not measured.
pub const ABSENT: &str = "–";

/// A table.
pub struct Sheet {
    pub title: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<String>>,
    /// Sentences below it.
    pub remarks: Vec<String>,
}

/// A column's name, and whether numbers stand in it, which are set to the right.
#[derive(Clone)]
pub struct Column {
    name: String,
    is_number: bool,
}

/// A column of words.
pub fn words(name: impl Into<String>) -> Column {
    Column {
        name: name.into(),
        is_number: false,
    }
}

/// A column of numbers.
pub fn numbers(name: impl Into<String>) -> Column {
    Column {
        name: name.into(),
        is_number: true,
    }
}

impl Sheet {
    /// Leaves out what is too much in its place.
    pub fn drop_last_column(&mut self) {
        self.columns.pop();
        for row in &mut self.rows {
            row.pop();
        }
    }

    /// For a terminal.
    pub fn terminal(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        if self
            .columns
            .iter()
            .filter(|column| !column.is_number)
            .count()
            > 1
        {
            // Sentences are broken to the terminal's width; numbers are better seen whole.
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        table.set_header(self.columns.iter().map(|column| &column.name));
        table.add_rows(&self.rows);
        for (column, about) in table.column_iter_mut().zip(&self.columns) {
            if about.is_number {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let remarks = self.remarks.iter().map(|remark| format!("  {remark}\n"));
        format!("\n{}\n{table}\n{}", self.title, remarks.collect::<String>())
    }

    /// For a write-up.
    pub fn markdown(&self) -> String {
        let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut out = String::new();
        if !self.title.is_empty() {
            write!(out, "**{}**\n\n", markdown(&self.title)).expect("a string grows");
        }
        out += &row(self
            .columns
            .iter()
            .map(|column| markdown(&column.name))
            .collect());
        let rule = self.columns.iter().map(|column| match column.is_number {
            true => "---:".to_owned(),
            false => "---".to_owned(),
        });
        out += &row(rule.collect());
        for cells in &self.rows {
            out += &row(cells.iter().map(|text| markdown(text)).collect());
        }
        for remark in &self.remarks {
            write!(out, "\n{}\n", markdown(remark)).expect("a string grows");
        }
        out + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_is_the_same_on_a_terminal_and_in_markdown() {
        let sheet = Sheet {
            title: "what".to_owned(),
            columns: vec![words("technique"), numbers("peak")],
            rows: vec![vec!["a|b".to_owned(), "1.00×".to_owned()]],
            remarks: vec!["so it is".to_owned()],
        };
        assert_eq!(
            sheet.markdown(),
            "**what**\n\n| technique | peak |\n| --- | ---: |\n| a\\|b | 1.00× |\n\nso it is\n\n"
        );
        let terminal = sheet.terminal();
        for part in ["what", "technique", "a|b", "1.00×", "so it is"] {
            assert!(terminal.contains(part), "{terminal}");
        }
    }
}
