//! Where a chart's plot lies between its labels: margins are as wide as the texts that stand in them.

use super::face::Face;

/// From the edge of a canvas to what is drawn first.
pub const EDGE: i32 = 20;
/// Between a text and what it belongs to.
const GAP: i32 = 12;
const WIDTH: i32 = 960;
const NARROWEST_PLOT: i32 = 420;

/// The plot's left and right edge, and the canvas's width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub left: i32,
    pub right: i32,
    pub width: i32,
}

impl Frame {
    /// With margins for texts of these widths. The canvas grows where the plot would become too narrow.
    pub fn around(left_text: i32, right_text: i32) -> Frame {
        let left = EDGE + left_text + GAP;
        let beside = GAP + right_text + EDGE;
        let width = WIDTH.max(left + NARROWEST_PLOT + beside);
        Frame {
            left,
            right: width - beside,
            width,
        }
    }

    /// For rows with a bold name at the left and small labels at the right.
    pub fn of_rows<N: AsRef<str>, L: AsRef<str>>(
        names: impl IntoIterator<Item = N>,
        labels: impl IntoIterator<Item = L>,
    ) -> Frame {
        Frame::around(Face::Bold.widest(names), Face::Small.widest(labels))
    }

    /// Where names that are set to the right end.
    pub fn names_end(self) -> i32 {
        self.left - GAP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_are_as_wide_as_what_stands_in_them() {
        let usual = Frame::around(80, 100);
        assert_eq!((usual.left, usual.width), (112, WIDTH));
        assert_eq!(usual.width - usual.right, 132);
        let wide = Frame::around(900, 100);
        assert_eq!(wide.right - wide.left, NARROWEST_PLOT);
        assert!(wide.width > WIDTH);
    }
}
