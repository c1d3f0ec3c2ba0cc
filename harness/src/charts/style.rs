//! Colours, sizes and fonts of all charts.

use meter::Phase;
use plotters::style::RGBColor;

pub const INK: RGBColor = RGBColor(33, 37, 41);
pub const MUTED: RGBColor = RGBColor(98, 106, 115);
pub const GRID: RGBColor = RGBColor(226, 229, 233);
pub const GUIDE: RGBColor = RGBColor(120, 128, 137);

/// Okabe and Ito's palette, which the colour-blind can tell apart: device, host, and the host's file pages.
pub const DEVICE: RGBColor = RGBColor(213, 94, 0);
pub const HOST: RGBColor = RGBColor(0, 114, 178);
pub const FILE: RGBColor = RGBColor(150, 205, 238);

/// One colour for each technique of a chart with lines; markers tell them apart as well. Okabe and Ito's,
/// their yellow darkened to show on white.
pub const SERIES: [RGBColor; 8] = [
    RGBColor(90, 90, 90),
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(190, 150, 0),
    RGBColor(0, 0, 0),
];

/// The strip under a timeline: light and dark enough to tell apart without colour, too.
pub fn phase_colour(phase: Phase) -> RGBColor {
    match phase {
        Phase::Open => RGBColor(33, 37, 41),
        Phase::Materialise => RGBColor(204, 121, 167),
        Phase::Read => RGBColor(86, 180, 233),
        Phase::Upload => RGBColor(230, 159, 0),
        Phase::Assign => RGBColor(0, 158, 115),
        Phase::Drop => RGBColor(170, 170, 170),
    }
}

pub const TITLE: u32 = 20;
pub const TEXT: u32 = 15;
pub const SMALL: u32 = 13;
