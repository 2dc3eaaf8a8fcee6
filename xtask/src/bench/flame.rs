//! Flame graphs as SVG, drawn by ourselves: the crates that do it have licences that this project does not link.

use std::collections::BTreeMap;
use std::fmt::Write as _;

const WIDTH: f64 = 1400.0;
const ROW: f64 = 17.0;
const TOP: f64 = 34.0;
/// Of a letter at the size of the frames' names.
const LETTER: f64 = 6.6;
/// What is narrower is not drawn.
const LEAST_WIDTH: f64 = 0.2;

/// Zooms into the frame that is clicked; a click on the lowest shows all again.
const SCRIPT: &str = r#"<script><![CDATA[
const frames = [...document.querySelectorAll("g")].map(g => {
  const [rect, text, title] = ["rect", "text", "title"].map(name => g.querySelector(name));
  const number = name => parseFloat(rect.getAttribute(name));
  return { g, rect, text, name: title.textContent.replace(/, \d+ samples, .*/, ""), x: number("x"), y: number("y"), width: number("width") };
});
function zoom(to) {
  const scale = WIDTH / to.width;
  for (const frame of frames) {
    const below = frame.y > to.y;
    const within = frame.x >= to.x - 0.01 && frame.x + frame.width <= to.x + to.width + 0.01;
    const around = below && frame.x <= to.x + 0.01 && frame.x + frame.width >= to.x + to.width - 0.01;
    frame.g.style.display = within && !below || around ? "" : "none";
    const x = around ? 0 : (frame.x - to.x) * scale;
    const width = around ? WIDTH : frame.width * scale;
    frame.rect.setAttribute("x", x);
    frame.rect.setAttribute("width", width);
    frame.text.setAttribute("x", x + 3);
    const letters = Math.floor((width - 4) / LETTER);
    frame.text.textContent = letters < 3 ? "" : frame.name.slice(0, letters);
  }
}
for (const frame of frames) frame.g.addEventListener("click", () => zoom(frame));
]]></script>
"#;

/// Counted stacks, as a tree from the outermost frame in.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    samples: u64,
    inner: BTreeMap<String, Stacks>,
}

impl Stacks {
    /// The outermost frame comes first.
    pub(super) fn add(&mut self, frames: &[String]) {
        let mut at = self;
        at.samples += 1;
        for frame in frames {
            at = at.inner.entry(frame.clone()).or_default();
            at.samples += 1;
        }
    }

    /// None without samples.
    pub(super) fn draw(&self, title: &str) -> Option<String> {
        if self.samples == 0 {
            return None;
        }
        let height = TOP + ROW * self.depth() as f64 + 6.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"11\">\n\
             <style>g {{ cursor: pointer }} g:hover rect {{ stroke: black }} text {{ pointer-events: none }}</style>\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
             <text x=\"6\" y=\"20\" font-size=\"15\">{}</text>\n",
            escaped(title)
        );
        let picture = Picture { samples: self.samples as f64, floor: height - ROW - 4.0 };
        picture.frame(&mut svg, "all", self, 0, 0.0).ok()?;
        svg += &SCRIPT.replace("WIDTH", &WIDTH.to_string()).replace("LETTER", &LETTER.to_string());
        svg += "</svg>\n";
        Some(svg)
    }

    fn depth(&self) -> usize {
        1 + self.inner.values().map(Self::depth).max().unwrap_or(0)
    }
}

struct Picture {
    samples: f64,
    /// Where the lowest row begins.
    floor: f64,
}

impl Picture {
    /// Draws a frame, and on top of it those that it called.
    fn frame(
        &self,
        svg: &mut String,
        name: &str,
        stacks: &Stacks,
        row: usize,
        before: f64,
    ) -> std::fmt::Result {
        let width = WIDTH * stacks.samples as f64 / self.samples;
        if width < LEAST_WIDTH {
            return Ok(());
        }
        let (x, y) = (WIDTH * before / self.samples, self.floor - ROW * row as f64);
        let letters = ((width - 4.0) / LETTER).max(0.0) as usize;
        let shown: String = if letters < 3 { String::new() } else { name.chars().take(letters).collect() };
        writeln!(
            svg,
            "<g><title>{}, {} samples, {:.2} %</title><rect x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{}\" \
             fill=\"{}\"/><text x=\"{:.2}\" y=\"{}\">{}</text></g>",
            escaped(name),
            stacks.samples,
            100.0 * stacks.samples as f64 / self.samples,
            ROW - 1.0,
            colour(name),
            x + 3.0,
            y + 12.0,
            escaped(&shown)
        )?;
        let mut at = before;
        for (name, inner) in &stacks.inner {
            self.frame(svg, name, inner, row + 1, at)?;
            at += inner.samples as f64;
        }
        Ok(())
    }
}

/// The kernel's frames are blue, Penstock's own green, those of libraries in shades from red to yellow.
fn colour(name: &str) -> String {
    let shade = name.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let shade = shade % 60;
    // Not as hues: some programs that draw SVG know none.
    let (red, green, blue) = if name.ends_with("_[k]") {
        (130 + shade, 190, 240)
    } else if name.contains("penstock::") {
        (140 + shade, 225, 130)
    } else {
        (245, 160 + shade, 120)
    };
    format!("rgb({red},{green},{blue})")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(frames: &[&str]) -> Vec<String> {
        frames.iter().map(|frame| (*frame).to_owned()).collect()
    }

    #[test]
    fn a_frame_is_as_wide_as_its_share_of_the_samples() {
        let mut stacks = Stacks::default();
        stacks.add(&stack(&["a", "b"]));
        stacks.add(&stack(&["a", "c<T>"]));
        stacks.add(&stack(&["a"]));
        stacks.add(&stack(&["d"]));
        let svg = stacks.draw("x & y").unwrap();
        assert!(svg.contains("<title>a, 3 samples, 75.00 %</title><rect x=\"0.00\""), "{svg}");
        assert!(svg.contains("<title>c&lt;T&gt;, 1 samples, 25.00 %</title><rect x=\"350.00\""), "{svg}");
        assert!(svg.contains("x &amp; y"));
    }

    #[test]
    fn without_samples_there_is_no_picture() {
        assert!(Stacks::default().draw("").is_none());
    }
}
