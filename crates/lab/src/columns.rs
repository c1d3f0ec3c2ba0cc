//! Columns of records, each defined once: a line in `columns!` is the field, the writer, the reader, the
//! summary and the entry in the data dictionary.

use std::fmt;

use meter::CapMechanism;
use serde::Serialize;

/// A column of a record of type `T`.
#[derive(Debug)]
pub struct Column<T> {
    /// The field's name, and the column's.
    pub name: &'static str,
    /// What a value counts.
    pub unit: Unit,
    /// How a value comes about.
    pub how: How,
    /// The first schema with this column.
    pub since: u32,
    /// What a value means: one line.
    pub meaning: &'static str,
    /// The value as it is written; empty where it is absent.
    pub write: fn(&T) -> String,
    /// Reads a value as it was written; the reason where it is none.
    pub read: fn(&mut T, &str) -> Result<(), String>,
    /// The value as a number, where it is one and is there.
    pub number: fn(&T) -> Option<f64>,
}

/// What a column's values count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Bytes, as an integer.
    Bytes,
    /// Seconds, as a decimal.
    Seconds,
    /// A share of one, as a decimal.
    Fraction,
    /// Things.
    Count,
    /// `true` or `false`.
    Boolean,
    /// Words.
    Text,
}

/// How a column's values come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Asked for, or looked up.
    Given,
    /// Exact, by the instrument that keeps the mark.
    Exact,
    /// Read at every phase mark: what rose and fell between two marks is missed.
    Marks,
    /// Sampled every 1 to 4 ms: a shorter peak is missed.
    Sampled,
    /// Computed from other columns.
    Computed,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            How::Given => "given",
            How::Exact => "exact",
            How::Marks => "read at every phase mark",
            How::Sampled => "sampled",
            How::Computed => "computed",
        })
    }
}

/// A value of a column, as text.
pub trait Cell: Sized {
    /// As it is written; empty where it is absent.
    fn write(&self) -> String;

    /// Reads what was written.
    ///
    /// # Errors
    ///
    /// What was expected instead.
    fn read(text: &str) -> Result<Self, String>;

    /// As a number, where it is one.
    fn number(&self) -> Option<f64> {
        None
    }
}

/// A type that is written and read by its own words.
macro_rules! cell {
    ($type:ty, $expected:literal $(, $number:expr)?) => {
        impl Cell for $type {
            fn write(&self) -> String {
                self.to_string()
            }

            fn read(text: &str) -> Result<Self, String> {
                text.parse()
                    .map_err(|_| format!("`{text}` is no {}", $expected))
            }

            $(fn number(&self) -> Option<f64> {
                let number: fn(&Self) -> f64 = $number;
                Some(number(self))
            })?
        }
    };
}

cell!(u32, "count", |value| f64::from(*value));
cell!(u64, "integer", |value| *value as f64);
cell!(bool, "true or false");

/// A character as it may be shown: one that acts on a terminal instead, or turns the direction of writing, is replaced.
pub fn visible(c: char) -> char {
    match checkpoint::is_shown(c) {
        true => c,
        false => '\u{fffd}',
    }
}

/// What cannot be shown is replaced.
impl Cell for String {
    fn write(&self) -> String {
        self.chars().map(visible).collect()
    }

    fn read(text: &str) -> Result<Self, String> {
        Ok(text.chars().map(visible).collect())
    }
}

impl Cell for f64 {
    fn write(&self) -> String {
        self.to_string()
    }

    fn read(text: &str) -> Result<Self, String> {
        let value: Option<f64> = text.parse().ok();
        value
            .filter(|value| value.is_finite())
            .ok_or_else(|| format!("`{text}` is no finite number"))
    }

    fn number(&self) -> Option<f64> {
        Some(*self)
    }
}

impl<T: Cell> Cell for Option<T> {
    fn write(&self) -> String {
        self.as_ref().map_or(String::new(), Cell::write)
    }

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(None),
            text => T::read(text).map(Some),
        }
    }

    fn number(&self) -> Option<f64> {
        self.as_ref().and_then(Cell::number)
    }
}

/// Words that stand for themselves: an enum with `ALL` and a `Display`.
pub fn read_word<T: Copy + fmt::Display>(all: &[T], text: &str) -> Result<T, String> {
    let known = all.iter().copied().find(|word| word.to_string() == text);
    known.ok_or_else(|| {
        let all: Vec<String> = all.iter().map(T::to_string).collect();
        format!("`{text}` is none of {}", all.join(", "))
    })
}

impl Cell for CapMechanism {
    fn write(&self) -> String {
        self.to_string()
    }

    fn read(text: &str) -> Result<Self, String> {
        read_word(&CapMechanism::ALL, text)
    }
}

/// Defines a struct whose fields are columns. A line is `/// meaning`, then `field: Type = Unit, How, first schema;`.
/// Fields behind `beside` are no columns.
#[macro_export]
macro_rules! columns {
    (
        $(#[$about:meta])*
        pub struct $name:ident {
            $($(#[doc = $meaning:literal])+ $field:ident: $type:ty = $unit:ident, $how:ident, $since:literal;)+
        }
        $(beside { $(#[doc = $beside_about:literal] $beside:ident: $beside_type:ty,)+ })?
    ) => {
        $(#[$about])*
        pub struct $name {
            $($(#[doc = $meaning])+ pub $field: $type,)+
            $($(#[doc = $beside_about] pub $beside: $beside_type,)+)?
        }

        impl $name {
            /// Its columns, in their order.
            pub const COLUMNS: &'static [$crate::Column<$name>] = &[
                $($crate::Column {
                    name: stringify!($field),
                    unit: $crate::Unit::$unit,
                    how: $crate::How::$how,
                    since: $since,
                    meaning: concat!($($meaning),+).trim_ascii(),
                    write: |row| $crate::Cell::write(&row.$field),
                    read: |row, text| {
                        row.$field = $crate::Cell::read(text)?;
                        Ok(())
                    },
                    number: |row| $crate::Cell::number(&row.$field),
                },)+
            ];
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_absent_is_empty() {
        assert_eq!(Option::<u64>::read("").unwrap(), None);
        assert_eq!(Option::<u64>::read("7").unwrap(), Some(7));
        assert_eq!(Some(0.25).write(), "0.25");
        assert_eq!(None::<f64>.write(), "");
        for wrong in ["inf", "NaN", "-", "1,5"] {
            assert!(f64::read(wrong).is_err(), "{wrong}");
        }
        for wrong in ["-1", "1.5", "99999999999999999999"] {
            assert!(u64::read(wrong).is_err(), "{wrong}");
        }
    }
}
