//! The smallest host cap that each technique survives in, beside what it takes where nothing is capped.

use super::canvas::Canvas;
use super::pen::Align;
use super::scale::{Scale, short};
use super::style::{FILE, GUIDE, HOST, INK, MUTED};
use crate::smallest_cap::Found;
use crate::table::caps_title;
use crate::units;

const WIDTH: i32 = 960;
const TOP: i32 = 118;
const LEFT: i32 = 150;
const BAR: i32 = 15;
const GAP: i32 = 3;
const PITCH: i32 = 2 * (BAR + GAP) + 16;

pub fn draw(scene: &[&Found]) -> anyhow::Result<Canvas> {
    let bottom = TOP + PITCH * scene.len() as i32;
    let times = |found: &Found, bytes: u64| bytes as f64 / found.model_bytes as f64;
    let bars = |found: &Found| {
        [
            (HOST, found.smallest_bytes()),
            (FILE, found.uncapped_rss_peak_bytes),
        ]
    };
    let all = scene.iter().flat_map(|found| {
        let known = bars(found).into_iter().filter_map(|(_, bytes)| bytes);
        known.map(|bytes| times(found, bytes))
    });
    let scale = Scale {
        max: all.fold(1.0, f64::max) * 1.2,
        from: LEFT,
        to: WIDTH - 24,
        ticks: 6,
    };
    Canvas::draw(WIDTH, bottom + 54, |pen| {
        pen.title(
            "The smallest host memory that each technique survives in",
            &caps_title(scene),
        )?;
        let legend = [
            (HOST, "smallest host cap survived".to_owned()),
            (FILE, "resident peak without a cap".to_owned()),
        ];
        pen.legend((20, 82), &legend)?;
        pen.x_axis(&scale, TOP - 8, bottom, |tick| format!("{}×", short(tick)))?;
        pen.dashes(scale.pixel(1.0), TOP - 8, bottom, &GUIDE)?;
        pen.small(
            (WIDTH - 24, bottom + 36),
            "multiples of the model's bytes",
            &MUTED,
            Align::Right,
        )?;
        for (row, found) in scene.iter().enumerate() {
            let top = TOP + PITCH * row as i32;
            let name = &found.configuration.experiment;
            pen.bold((LEFT - 12, top + BAR + GAP / 2), name, Align::Right)?;
            for (place, (colour, bytes)) in bars(found).into_iter().enumerate() {
                let y = top + place as i32 * (BAR + GAP);
                let Some(bytes) = bytes else {
                    pen.small(
                        (LEFT + 6, y + BAR / 2),
                        "none was found",
                        &MUTED,
                        Align::Left,
                    )?;
                    continue;
                };
                let end = scale.pixel(times(found, bytes)).max(LEFT + 1);
                pen.rectangle((LEFT, y), (end, y + BAR), &colour)?;
                let label = format!("{:.2}× · {}", times(found, bytes), units::bytes(bytes));
                pen.small((end + 6, y + BAR / 2), &label, &INK, Align::Left)?;
            }
        }
        Ok(())
    })
}
