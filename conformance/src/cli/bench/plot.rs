// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How cost grows, drawn: a file each, on white, by powers.

use std::ops::Range;
use std::path::Path;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use vfio_conform::tidy::write_whole;

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
    let y = least.1 * 0.7..most.1 * 1.4;
    let mut text = String::new();
    // Within a power of ten an axis of powers would have one label, or none.
    if most.0 / least.0 < 10.0 {
        plot(&mut text, curve, least.0 - 0.5..most.0 + 0.5, y)?;
    } else {
        plot(&mut text, curve, (least.0 * 0.9..most.0 * 1.1).log_scale(), y)?;
    }
    Ok(Some(text))
}

fn plot<X>(text: &mut String, curve: &Curve, x: X, y: Range<f64>) -> Result<()>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
{
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(curve.title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(90)
        .build_cartesian_2d(x, y.log_scale())?;
    let short = |value: &f64| short(*value);
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(curve.x).y_desc(curve.y).x_label_formatter(&short).y_label_formatter(&short);
    mesh.draw()?;
    for (index, (line, colour)) in curve.lines.iter().zip(COLOURS).enumerate() {
        // The later ones are thinner, so that one on top of another shows.
        let width = 2 * (curve.lines.len() - index) as u32;
        let style = colour.stroke_width(width);
        chart
            .draw_series(LineSeries::new(line.points.clone(), style))?
            // plotters takes text for a little narrower than it is.
            .label(format!("{}  ", line.name))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        let dots = line.points.iter().map(|point| Circle::new(*point, 2 + width, colour.filled()));
        chart.draw_series(dots)?;
    }
    let mut labels = chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperLeft).background_style(WHITE).border_style(BLACK);
    labels.draw()?;
    area.present()?;
    Ok(())
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
