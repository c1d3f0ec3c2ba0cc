//! The smallest host cap that each technique survives in, beside what it takes where nothing is capped.

use super::canvas::Canvas;
use super::frame::{EDGE, Frame};
use super::pen::Align;
use super::scale::{Scale, short};
use super::style::{FILE, GUIDE, HOST, INK, MUTED};
use crate::smallest_cap::Found;
use crate::table::caps_title;
use crate::units;

const TOP: i32 = 118;
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
    let label = |found: &Found, bytes: Option<u64>| match bytes {
        Some(bytes) => format!("{:.2}× · {}", times(found, bytes), units::bytes(bytes)),
        None => "none was found".to_owned(),
    };
    let all = || {
        let found = scene.iter().copied();
        found.flat_map(|found| bars(found).map(|(_, bytes)| (found, bytes)))
    };
    let multiples = all().filter_map(|(found, bytes)| Some(times(found, bytes?)));
    let frame = Frame::of_rows(
        scene.iter().map(|found| &found.configuration.experiment),
        all().map(|(found, bytes)| label(found, bytes)),
    );
    let scale = Scale {
        max: multiples.fold(1.0, f64::max),
        from: frame.left,
        to: frame.right,
        ticks: 6,
    };
    Canvas::draw(frame.width, bottom + 54, |pen| {
        pen.title(
            "The smallest host memory that each technique survives in",
            &caps_title(scene),
        )?;
        let legend = [
            (HOST, "smallest host cap survived".to_owned()),
            (FILE, "resident peak without a cap".to_owned()),
        ];
        pen.legend((EDGE, 82), &legend)?;
        pen.x_axis(&scale, TOP - 8, bottom, |tick| format!("{}×", short(tick)))?;
        pen.dashes(scale.pixel(1.0), TOP - 8, bottom, &GUIDE)?;
        pen.small(
            (frame.width - EDGE, bottom + 36),
            "multiples of the model's bytes",
            &MUTED,
            Align::Right,
        )?;
        for (row, found) in scene.iter().enumerate() {
            let top = TOP + PITCH * row as i32;
            let name = &found.configuration.experiment;
            let at = (frame.names_end(), top + BAR + GAP / 2);
            pen.bold(at, name, Align::Right)?;
            for (place, (colour, bytes)) in bars(found).into_iter().enumerate() {
                let y = top + place as i32 * (BAR + GAP);
                let label = label(found, bytes);
                let Some(bytes) = bytes else {
                    let at = (frame.left + 6, y + BAR / 2);
                    pen.small(at, &label, &MUTED, Align::Left)?;
                    continue;
                };
                let end = scale.pixel(times(found, bytes)).max(frame.left + 1);
                pen.rectangle((frame.left, y), (end, y + BAR), &colour)?;
                pen.small((end + 6, y + BAR / 2), &label, &INK, Align::Left)?;
            }
        }
        Ok(())
    })
}
