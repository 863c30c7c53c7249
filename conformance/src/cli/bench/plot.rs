// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How cost grows, drawn: a file each, both axes by powers, legible in light and dark.

use std::path::Path;

use plotters::prelude::*;
use vfio_conform::system::write_whole;

use super::super::Result;
use super::Curve;

const SIZE: (u32, u32) = (800, 500);

/// Okabe and Ito's, which all eyes tell apart.
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

pub(super) fn draw(directory: &Path, curves: &[Curve]) -> Result<()> {
    std::fs::create_dir_all(directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    for curve in curves {
        let Some(svg) = svg(curve)? else { continue };
        let path = directory.join(format!("{}.svg", curve.name));
        write_whole(&path, |output| output.write_all(svg.as_bytes()))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Nothing where there is nothing to be drawn.
fn svg(curve: &Curve) -> Result<Option<String>> {
    let points = || curve.lines.iter().flat_map(|line| &line.points);
    let least = points().copied().reduce(|(x, y), (a, b)| (x.min(a), y.min(b)));
    let most = points().copied().reduce(|(x, y), (a, b)| (x.max(a), y.max(b)));
    let (Some(least), Some(most)) = (least, most) else { return Ok(None) };
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let x = (least.0 * 0.9..most.0 * 1.1).log_scale();
        let y = (least.1 * 0.7..most.1 * 1.4).log_scale();
        let mut chart = ChartBuilder::on(&area)
            .caption(curve.title, ("sans-serif", 20))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(90)
            .build_cartesian_2d(x, y)?;
        let short = |value: &f64| short(*value);
        chart
            .configure_mesh()
            .x_desc(curve.x)
            .y_desc(curve.y)
            .x_label_formatter(&short)
            .y_label_formatter(&short)
            .draw()?;
        for (line, colour) in curve.lines.iter().zip(COLOURS.iter().cycle()) {
            let colour = *colour;
            chart
                .draw_series(LineSeries::new(line.points.clone(), colour.stroke_width(2)))?
                .label(line.name.as_str())
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2))
                });
            let dots = line.points.iter().map(|point| Circle::new(*point, 4, colour.filled()));
            chart.draw_series(dots)?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(BLACK)
            .draw()?;
        area.present()?;
    }
    Ok(Some(text))
}

/// With the letter of its thousands.
fn short(value: f64) -> String {
    for (unit, letter) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value >= unit {
            return format!("{}{letter}", round(value / unit));
        }
    }
    round(value)
}

fn round(value: f64) -> String {
    if (value - value.round()).abs() < 1e-6 { format!("{value:.0}") } else { format!("{value:.1}") }
}
