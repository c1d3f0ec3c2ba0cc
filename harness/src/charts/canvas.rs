//! A drawing in pixels, by plotters, saved as SVG with its font inside, and as PNG where that is built in.

use std::path::Path;

use plotters::prelude::*;

use super::face::FAMILY;
use super::pen::Pen;
use crate::atomic;

const REGULAR_WEB: &[u8] = include_bytes!("../../assets/Inter-Regular.woff2");
const BOLD_WEB: &[u8] = include_bytes!("../../assets/Inter-SemiBold.woff2");

/// A chart, drawn in steps.
pub struct Canvas {
    pub(super) svg: String,
}

impl Canvas {
    /// A white canvas of `width` × `height` pixels, with what `draw` puts on it.
    pub fn draw(
        width: i32,
        height: i32,
        draw: impl FnOnce(&Pen<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Canvas> {
        let mut svg = String::new();
        {
            let size = (width as u32, height as u32);
            let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            area.fill(&WHITE)?;
            let pen = Pen::new(area);
            draw(&pen)?;
            pen.present()?;
        }
        Ok(Canvas { svg })
    }

    /// Writes `path.svg`, and `path.png` where that is built in.
    pub fn save(self, path: &Path) -> anyhow::Result<()> {
        atomic::write(&path.with_added_extension("svg"), self.with_font())?;
        #[cfg(feature = "png")]
        atomic::write(
            &path.with_added_extension("png"),
            super::png::encode(&self)?,
        )?;
        Ok(())
    }

    /// The SVG with the font inside: a picture in a web page cannot load one.
    fn with_font(&self) -> String {
        let face = |weight: u32, bytes: &[u8]| {
            format!(
                "@font-face{{font-family:{FAMILY};font-weight:{weight};\
                 src:url(data:font/woff2;base64,{}) format('woff2')}}",
                base64(bytes)
            )
        };
        let faces = face(400, REGULAR_WEB) + &face(700, BOLD_WEB);
        let end_of_tag = self.svg.find('>').map_or(0, |end| end + 1);
        let (tag, rest) = self.svg.split_at(end_of_tag);
        format!("{tag}\n<style>{faces}</style>{rest}")
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_is_saved_as_svg_with_its_font_inside() {
        let folder = tempfile::tempdir().unwrap();
        // A size may have a dot in it.
        let path = folder.path().join("chart-eps0.001");
        let canvas = Canvas::draw(200, 80, |pen| pen.title("Peak", "of it"));
        canvas.unwrap().save(&path).unwrap();
        let svg = std::fs::read_to_string(path.with_added_extension("svg")).unwrap();
        assert!(svg.contains("font/woff2;base64,") && svg.contains("Peak"));
    }

    #[test]
    #[cfg(unix)]
    fn a_chart_takes_the_place_of_a_link_and_leaves_what_it_led_to() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let mine = elsewhere.path().join("mine");
        std::fs::write(&mine, "mine").unwrap();
        let path = folder.path().join("chart");
        for extension in ["svg", "png"] {
            std::os::unix::fs::symlink(&mine, path.with_added_extension(extension)).unwrap();
        }
        let hard = folder.path().join("hard");
        std::fs::hard_link(&mine, hard.with_added_extension("svg")).unwrap();
        for path in [&path, &hard] {
            let canvas = Canvas::draw(200, 80, |pen| pen.title("Peak", "of it"));
            canvas.unwrap().save(path).unwrap();
            let svg = std::fs::read_to_string(path.with_added_extension("svg")).unwrap();
            assert!(svg.contains("Peak"));
        }
        assert_eq!(std::fs::read_to_string(&mine).unwrap(), "mine");
    }
}
