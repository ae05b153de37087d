//! The latency of a run by percentile, as an SVG file.
//!
//! The horizontal axis is the share of *slower* operations on a logarithmic scale, as is usual for
//! histograms of this kind: each step to the right (90 %, 99 %, 99.9 %, ...) has a tenth of the
//! operations of the one before, so that the tail is as wide as the middle.

use std::fmt;
use std::path::{Path, PathBuf};

use plotters::prelude::{
    BLACK, ChartBuilder, Color, IntoDrawingArea, IntoFont, LineSeries, RGBColor, SVGBackend, WHITE,
};

use crate::number::float;
use crate::report::Report;

/// Pixels.
const SIZE: (u32, u32) = (900, 500);

/// Points of the curve per factor of ten.
const STEPS_PER_DECADE: u32 = 40;

/// The plot could not be written.
#[derive(Debug)]
pub struct PlotError {
    path: PathBuf,
    reason: String,
}

impl fmt::Display for PlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write the plot {}: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for PlotError {}

/// Writes the latencies of `report` to the file `path`, which is overwritten.
///
/// # Errors
/// The file cannot be written.
pub fn write(report: &Report, path: &Path) -> Result<(), PlotError> {
    let mut text = String::new();
    draw(report, &mut text).map_err(|reason| PlotError { path: path.to_path_buf(), reason })?;
    std::fs::write(path, text)
        .map_err(|error| PlotError { path: path.to_path_buf(), reason: error.to_string() })
}

fn draw(report: &Report, text: &mut String) -> Result<(), String> {
    let points = curve(report);
    let right = points.last().map_or(1.0, |(decades, _)| decades.max(1.0));
    let top = points.iter().fold(1.0_f64, |top, (_, latency)| top.max(*latency)) * 1.05;
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(|error| error.to_string())?;
    let caption = format!(
        "{}: {} connections x depth {}, {:.0}/s, p50 {:.1} us, p99 {:.1} us",
        report.operation,
        report.connections,
        report.depth,
        report.per_second,
        report.latency_us.p50,
        report.latency_us.p99
    );
    let mut chart = ChartBuilder::on(&root)
        .caption(caption, ("sans-serif", 18).into_font())
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(78)
        .build_cartesian_2d(0.0..right, 0.0..top)
        .map_err(|error| error.to_string())?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc("latency, microseconds")
        .x_labels(8)
        .x_label_formatter(&|decades| percentile_label(*decades))
        .light_line_style(WHITE)
        .axis_style(BLACK.mix(0.6))
        .draw()
        .map_err(|error| error.to_string())?;
    chart
        .draw_series(LineSeries::new(points, RGBColor(0x1f, 0x5f, 0xa8).stroke_width(2)))
        .map_err(|error| error.to_string())?;
    root.present().map_err(|error| error.to_string())
}

/// (factors of ten of rarity, latency in microseconds), up to the slowest single operation.
fn curve(report: &Report) -> Vec<(f64, f64)> {
    let latencies = &report.latencies;
    if latencies.is_empty() {
        return vec![(0.0, 0.0)];
    }
    let decades_max = float(latencies.len()).log10();
    (0..)
        .map(|step: u32| f64::from(step) / f64::from(STEPS_PER_DECADE))
        .take_while(|decades| *decades < decades_max)
        .chain([decades_max])
        .map(|decades| {
            let quantile = 1.0 - 10.0_f64.powf(-decades);
            (decades, float(latencies.value_at_quantile(quantile)) / 1e3)
        })
        .collect()
}

fn percentile_label(decades: f64) -> String {
    let percentile = 100.0 - 10.0_f64.powf(2.0 - decades);
    let text = format!("{percentile:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}%")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn the_curve_never_falls_and_ends_at_the_slowest_operation() {
        let report = example();
        let points = curve(&report);
        assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
        let (decades, slowest) = points.last().expect("points");
        assert!((decades - 3.0).abs() < 1e-9);
        assert!((slowest / 1_000.0 - 1.0).abs() < 0.002, "{slowest}");
    }

    #[test]
    fn a_plot_is_an_svg_document_even_without_operations() {
        let mut text = String::new();
        let mut report = example();
        draw(&report, &mut text).expect("drawn");
        assert!(text.trim_start().starts_with("<svg"), "{}", &text[..60]);
        assert!(text.contains("99.9%"), "the tail is labelled");
        report.latencies.reset();
        text.clear();
        draw(&report, &mut text).expect("drawn");
        assert!(text.contains("</svg>"));
    }

    #[test]
    fn percentiles_are_labelled_in_short() {
        assert_eq!(percentile_label(0.0), "0%");
        assert_eq!(percentile_label(1.0), "90%");
        assert_eq!(percentile_label(3.0), "99.9%");
    }
}
