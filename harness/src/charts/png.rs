//! A drawing as PNG at twice its size, by resvg from the very SVG.

use std::sync::Arc;

use anyhow::anyhow;
use resvg::{tiny_skia, usvg};

use super::canvas::Canvas;
use super::face::{BOLD, REGULAR};

const SCALE: f32 = 2.0;

/// The bytes of the PNG file.
pub fn encode(canvas: &Canvas) -> anyhow::Result<Vec<u8>> {
    let tree = tree(canvas)?;
    let size = tree.size();
    let pixels = |length: f32| (length * SCALE) as u32;
    let mut picture = tiny_skia::Pixmap::new(pixels(size.width()), pixels(size.height()))
        .ok_or_else(|| anyhow!("a chart of {} × {} pixels", size.width(), size.height()))?;
    let scale = tiny_skia::Transform::from_scale(SCALE, SCALE);
    resvg::render(&tree, scale, &mut picture.as_mut());
    Ok(picture.encode_png()?)
}

fn tree(canvas: &Canvas) -> anyhow::Result<usvg::Tree> {
    let mut options = usvg::Options::default();
    let fonts = Arc::make_mut(&mut options.fontdb);
    fonts.load_font_data(REGULAR.to_vec());
    fonts.load_font_data(BOLD.to_vec());
    Ok(usvg::Tree::from_str(&canvas.svg, &options)?)
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
        let tree = tree(self).unwrap();
        let mut found = Vec::new();
        collect(tree.root(), &mut found);
        let (width, height) = (tree.size().width(), tree.size().height());
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
    fn a_chart_is_drawn_at_twice_its_size_with_its_texts() {
        let canvas = Canvas::draw(200, 80, |pen| pen.title("Peak", "of it"));
        let png = encode(&canvas.unwrap()).unwrap();
        let png = tiny_skia::Pixmap::decode_png(&png).unwrap();
        assert_eq!((png.width(), png.height()), (400, 160));
        // With a font that is not found, resvg leaves texts out in silence.
        let dark = png.pixels().iter().filter(|pixel| pixel.red() < 100);
        assert!(dark.count() > 100);
    }
}
