//! The faces that texts of charts are set in, and how wide a text is in each.

use std::sync::Once;

use plotters::style::{FontDesc, FontStyle, IntoFont, register_font};

use super::style::{SMALL, TEXT, TITLE};

/// The font of all charts.
pub const FAMILY: &str = "Inter";
pub const REGULAR: &[u8] = include_bytes!("../../assets/Inter-Regular.otf");
pub const BOLD: &[u8] = include_bytes!("../../assets/Inter-SemiBold.otf");

/// A size and a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    Title,
    Text,
    Bold,
    Small,
}

impl Face {
    /// The font to draw with.
    pub fn font(self) -> FontDesc<'static> {
        static FONTS: Once = Once::new();
        FONTS.call_once(|| {
            for (style, bytes) in [(FontStyle::Normal, REGULAR), (FontStyle::Bold, BOLD)] {
                // Cannot fail: the fonts are part of the program, and a test draws with them.
                let _ = register_font(FAMILY, style, bytes);
            }
        });
        let (size, style) = match self {
            Face::Title => (TITLE, FontStyle::Bold),
            Face::Text => (TEXT, FontStyle::Normal),
            Face::Bold => (TEXT, FontStyle::Bold),
            Face::Small => (SMALL, FontStyle::Normal),
        };
        (FAMILY, size).into_font().style(style)
    }

    /// The width of a text, in pixels.
    pub fn width(self, text: &str) -> i32 {
        let size = self.font().box_size(text);
        size.map_or(8 * text.len() as i32, |(width, _)| width as i32)
    }

    /// The width of the widest of these; 0 where there is none.
    pub fn widest<T: AsRef<str>>(self, texts: impl IntoIterator<Item = T>) -> i32 {
        let widths = texts.into_iter().map(|text| self.width(text.as_ref()));
        widths.max().unwrap_or(0)
    }
}
