//! Small line charts with logarithmic axes, as SVG.

use std::fmt::Write as _;

/// Width and height of a panel.
const PANEL: (f64, f64) = (360.0, 240.0);
/// Around the axes of a panel: left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (58.0, 30.0, 14.0, 34.0);
/// Panels beside each other.
const COLUMNS: usize = 2;

/// Points joined by a line.
pub struct Line {
    /// Its name in the legend.
    pub name: &'static str,
    /// Its colour.
    pub color: &'static str,
    /// Positive numbers, ascending by the first.
    pub points: Vec<(f64, f64)>,
}

/// One chart.
pub struct Panel {
    /// Above it.
    pub title: String,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// The panels in one picture.
pub fn draw(panels: &[Panel]) -> String {
    let rows = panels.len().div_ceil(COLUMNS);
    let width = PANEL.0 * small(COLUMNS);
    let height = PANEL.1 * small(rows);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (at, panel) in panels.iter().enumerate() {
        let left = PANEL.0 * small(at % COLUMNS);
        let top = PANEL.1 * small(at / COLUMNS);
        let _ = writeln!(svg, "<g transform=\"translate({left} {top})\">");
        draw_panel(&mut svg, panel);
        svg += "</g>\n";
    }
    svg + "</svg>\n"
}

fn draw_panel(svg: &mut String, panel: &Panel) {
    let points = || panel.lines.iter().flat_map(|line| &line.points);
    let x = Axis::over(points().map(|point| point.0), MARGIN.0, PANEL.0 - MARGIN.2);
    let y = Axis::over(points().map(|point| point.1), PANEL.1 - MARGIN.3, MARGIN.1);
    let (bottom, right) = (PANEL.1 - MARGIN.3, PANEL.0 - MARGIN.2);
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"16\" font-weight=\"bold\">{}, us by keys</text>",
        MARGIN.0, panel.title
    );
    for decade in x.decades() {
        let at = x.place(decade);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {} V{bottom}\" stroke=\"#dddddd\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            MARGIN.1,
            bottom + 15.0,
            label(decade)
        );
    }
    for decade in y.decades() {
        let at = y.place(decade);
        let _ = writeln!(
            svg,
            "<path d=\"M{} {at:.1} H{right}\" stroke=\"#dddddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            MARGIN.0,
            MARGIN.0 - 5.0,
            at + 4.0,
            label(decade)
        );
    }
    let mut legend = right - 64.0;
    for line in panel
        .lines
        .iter()
        .rev()
        .filter(|line| !line.points.is_empty())
    {
        let path: Vec<String> = line
            .points
            .iter()
            .map(|(keys, cost)| format!("{:.1},{:.1}", x.place(*keys), y.place(*cost)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>",
            path.join(" "),
            line.color
        );
        for point in &path {
            let (at_x, at_y) = point.split_once(',').unwrap_or_default();
            let _ = writeln!(
                svg,
                "<circle cx=\"{at_x}\" cy=\"{at_y}\" r=\"3\" fill=\"{}\"/>",
                line.color
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{legend}\" y=\"16\" fill=\"{}\">{}</text>",
            line.color, line.name
        );
        legend -= 64.0;
    }
}

/// A logarithmic axis of whole decades.
struct Axis {
    first: i32,
    last: i32,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(numbers: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut first, mut last) = (i32::MAX, i32::MIN);
        for number in numbers {
            let decade = number.max(1e-9).log10();
            #[expect(clippy::cast_possible_truncation, reason = "decades are few")]
            let (below, above) = (decade.floor() as i32, decade.ceil() as i32);
            first = first.min(below);
            last = last.max(above);
        }
        if first >= last {
            last = first.saturating_add(1);
        }
        Self {
            first,
            last,
            from,
            to,
        }
    }

    fn decades(&self) -> impl Iterator<Item = f64> {
        (self.first..=self.last).map(|decade| 10_f64.powi(decade))
    }

    fn place(&self, number: f64) -> f64 {
        let span = f64::from(self.last) - f64::from(self.first);
        let share = (number.max(1e-9).log10() - f64::from(self.first)) / span;
        self.from + share * (self.to - self.from)
    }
}

fn label(number: f64) -> String {
    if number >= 1e6 {
        format!("{}M", number / 1e6)
    } else if number >= 1e3 {
        format!("{}k", number / 1e3)
    } else {
        number.to_string()
    }
}

fn small(count: usize) -> f64 {
    u32::try_from(count).map_or(0.0, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_runs_from_one_edge_to_the_other_on_whole_decades() {
        let axis = Axis::over([10.0, 1000.0].into_iter(), 0.0, 100.0);
        assert!((axis.place(10.0) - 0.0).abs() < 1e-9);
        assert!((axis.place(100.0) - 50.0).abs() < 1e-9);
        assert!((axis.place(1000.0) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn every_line_is_drawn_and_named() {
        let line = |name, points| Line {
            name,
            color: "#000000",
            points,
        };
        let panel = Panel {
            title: "put".to_owned(),
            lines: vec![
                line("a", vec![(10.0, 2.0), (100.0, 3.0)]),
                line("b", vec![]),
            ],
        };
        let svg = draw(&[panel]);
        assert_eq!(svg.matches("<polyline").count(), 1);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains(">a</text>") && !svg.contains(">b</text>"));
    }
}
