//! Several numbers of workers beside each other, as JSON and as a picture.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use super::super::load::to_f64;
use super::super::report::{Report, Row};

/// The numbers of workers.
pub(super) const SIZES: [usize; 4] = [1_000, 10_000, 50_000, 100_000];
/// The largest of them.
pub(super) const LARGEST: usize = SIZES[SIZES.len() - 1];
/// The number that the aims are for.
const AIMED: usize = 50_000;
/// Width and height of a panel, in pixels.
const PANEL: (f64, f64) = (360.0, 240.0);
/// Around the axes of a panel: left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (58.0, 30.0, 14.0, 34.0);
/// What is drawn: the row, its title, and the aim.
const PANELS: [(&str, &str, Option<f64>); 4] = [
    ("beat_ms_p99", "p99 of a beat, ms", Some(10.0)),
    (
        "leader_core_share",
        "share of a core on the leader",
        Some(0.1),
    ),
    ("bytes_per_worker", "bytes for a worker", Some(2048.0)),
    ("registrations_per_s", "registrations per second", None),
];

/// The rows of one number of workers.
#[derive(Debug, Clone, Serialize)]
pub(in crate::bench) struct Size {
    pub(super) workers: usize,
    pub(super) rows: Vec<Row>,
}

impl Size {
    pub(in crate::bench) fn new(workers: usize, rows: Vec<Row>) -> Self {
        Self { workers, rows }
    }

    /// What was measured with it.
    pub(in crate::bench) fn rows(&self) -> &[Row] {
        &self.rows
    }
}

/// Writes both files; the report has the rows that the aims are for.
pub(super) fn write(folder: &Path, data: &Path, sizes: Vec<Size>) -> anyhow::Result<Report> {
    let save = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    };
    save("workers.svg", &draw(&sizes))?;
    let aimed = sizes.iter().find(|size| size.workers == AIMED);
    let rows = aimed.map(|size| size.rows.clone()).unwrap_or_default();
    let report = Report::new("workers", data, rows).with_growth(sizes);
    save(
        "workers.json",
        &(serde_json::to_string_pretty(&report)? + "\n"),
    )?;
    Ok(report)
}

fn draw(sizes: &[Size]) -> String {
    let (width, height) = (PANEL.0 * 2.0, PANEL.1 * 2.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (at, (what, title, aim)) in PANELS.into_iter().enumerate() {
        let points: Vec<(f64, f64)> = sizes
            .iter()
            .filter_map(|size| {
                let row = size.rows.iter().find(|row| row.what == what)?;
                Some((to_f64(size.workers), row.ours))
            })
            .collect();
        let (left, top) = (PANEL.0 * to_f64(at % 2), PANEL.1 * to_f64(at / 2));
        let _ = writeln!(svg, "<g transform=\"translate({left} {top})\">");
        draw_panel(&mut svg, title, &points, aim);
        svg += "</g>\n";
    }
    svg + "</svg>\n"
}

/// One line over a logarithmic axis of workers; the aim is dashed.
fn draw_panel(svg: &mut String, title: &str, points: &[(f64, f64)], aim: Option<f64>) {
    let (right, bottom) = (PANEL.0 - MARGIN.2, PANEL.1 - MARGIN.3);
    let (first, last) = (to_f64(SIZES[0]).ln(), to_f64(SIZES[SIZES.len() - 1]).ln());
    let x = |workers: f64| MARGIN.0 + (workers.ln() - first) / (last - first) * (right - MARGIN.0);
    let highest = points.iter().map(|point| point.1).chain(aim);
    let highest = highest.fold(f64::EPSILON, f64::max) * 1.1;
    let y = |value: f64| bottom - value / highest * (bottom - MARGIN.1);
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"18\" font-weight=\"bold\">{title}</text>\n\
         <path d=\"M{0} {} V{bottom} H{right}\" fill=\"none\" stroke=\"#444444\"/>",
        MARGIN.0, MARGIN.1
    );
    for size in SIZES {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{size}</text>",
            x(to_f64(size)),
            bottom + 16.0
        );
    }
    let label = |svg: &mut String, value: f64, color: &str| {
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{color}\">{}</text>",
            MARGIN.0 - 5.0,
            y(value) + 4.0,
            (value * 1000.0).round() / 1000.0
        );
    };
    if let Some(aim) = aim {
        let _ = writeln!(
            svg,
            "<path d=\"M{} {:.1} H{right}\" stroke=\"#b04040\" stroke-dasharray=\"5 4\"/>",
            MARGIN.0,
            y(aim)
        );
        label(svg, aim, "#b04040");
    }
    let line: Vec<String> = points
        .iter()
        .map(|(workers, value)| format!("{:.1},{:.1}", x(*workers), y(*value)))
        .collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#2060a0\" stroke-width=\"2\"/>",
        line.join(" ")
    );
    for (workers, value) in points {
        let (x, y) = (x(*workers), y(*value));
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#2060a0\"/>"
        );
        label(svg, *value, "#2060a0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_that_has_a_panel_is_drawn_for_every_size() {
        let rows: Vec<Row> = PANELS.map(|(what, ..)| Row::new(what, "", 1.0)).into();
        let sizes: Vec<Size> = SIZES
            .map(|workers| Size {
                workers,
                rows: rows.clone(),
            })
            .into();
        let svg = draw(&sizes);
        assert_eq!(svg.matches("<circle").count(), PANELS.len() * SIZES.len());
        assert!(!svg.contains("NaN"));
    }
}
