//! A drawing in pixels, by plotters, saved as SVG with its font inside and as PNG at twice its size.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use plotters::prelude::*;
use resvg::{tiny_skia, usvg};

use super::face::{BOLD, FAMILY, REGULAR};
use super::pen::Pen;

const REGULAR_WEB: &[u8] = include_bytes!("../../assets/Inter-Regular.woff2");
const BOLD_WEB: &[u8] = include_bytes!("../../assets/Inter-SemiBold.woff2");
const PNG_SCALE: f32 = 2.0;

/// A chart of `width` × `height` pixels, drawn in steps.
pub struct Canvas {
    pub width: i32,
    pub height: i32,
    svg: String,
}

impl Canvas {
    /// A white canvas, with what `draw` puts on it.
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
        Ok(Canvas { width, height, svg })
    }

    /// Writes `path.svg` and `path.png`.
    pub fn save(self, path: &Path) -> anyhow::Result<()> {
        let written = |path: &Path| format!("{}: the chart cannot be written", path.display());
        let svg = path.with_extension("svg");
        std::fs::write(&svg, self.with_font()).with_context(|| written(&svg))?;
        let png = path.with_extension("png");
        std::fs::write(&png, self.png()?).with_context(|| written(&png))
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

    fn tree(&self) -> anyhow::Result<usvg::Tree> {
        let mut options = usvg::Options::default();
        let fonts = Arc::make_mut(&mut options.fontdb);
        fonts.load_font_data(REGULAR.to_vec());
        fonts.load_font_data(BOLD.to_vec());
        Ok(usvg::Tree::from_str(&self.svg, &options)?)
    }

    fn png(&self) -> anyhow::Result<Vec<u8>> {
        let tree = self.tree()?;
        let pixels = |length: i32| (length as f32 * PNG_SCALE) as u32;
        let mut picture = tiny_skia::Pixmap::new(pixels(self.width), pixels(self.height))
            .ok_or_else(|| anyhow!("a chart of {} × {} pixels", self.width, self.height))?;
        let scale = tiny_skia::Transform::from_scale(PNG_SCALE, PNG_SCALE);
        resvg::render(&tree, scale, &mut picture.as_mut());
        Ok(picture.encode_png()?)
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
impl Canvas {
    /// Every text that is drawn, and those that reach over an edge of the canvas.
    pub fn texts(&self) -> (Vec<String>, Vec<String>) {
        fn collect(group: &usvg::Group, found: &mut Vec<(String, tiny_skia::Rect)>) {
            for node in group.children() {
                match node {
                    usvg::Node::Group(group) => collect(group, found),
                    usvg::Node::Text(text) => {
                        let chunks = text.chunks().iter().map(|chunk| chunk.text());
                        found.push((chunks.collect(), text.abs_bounding_box()));
                    }
                    _ => {}
                }
            }
        }
        let tree = self.tree().unwrap();
        let mut found = Vec::new();
        collect(tree.root(), &mut found);
        let (width, height) = (self.width as f32, self.height as f32);
        let is_clipped = |area: &tiny_skia::Rect| {
            area.left() < 0.0 || area.top() < 0.0 || area.right() > width || area.bottom() > height
        };
        let clipped = found.iter().filter(|(_, area)| is_clipped(area));
        let clipped = clipped.map(|(text, _)| text.clone()).collect();
        (found.into_iter().map(|(text, _)| text).collect(), clipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_is_saved_with_its_font_as_svg_and_at_twice_its_size_as_png() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chart");
        let canvas = Canvas::draw(200, 80, |pen| pen.title("Peak", "of it"));
        canvas.unwrap().save(&path).unwrap();
        let svg = std::fs::read_to_string(path.with_extension("svg")).unwrap();
        assert!(svg.contains("font/woff2;base64,") && svg.contains("Peak"));
        let png = tiny_skia::Pixmap::load_png(path.with_extension("png")).unwrap();
        assert_eq!((png.width(), png.height()), (400, 160));
        // The title is drawn: with a font that is not found, resvg leaves texts out in silence.
        let dark = png.pixels().iter().filter(|pixel| pixel.red() < 100);
        assert!(dark.count() > 100);
    }
}
