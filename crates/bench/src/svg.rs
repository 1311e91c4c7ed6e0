//! The goals as a chart: how far each is, where 1 is met and further right is better.

use std::fmt::Write as _;

use crate::{
    goals::{Goal, Limit, round},
    report::{Report, figure},
};

const WIDTH: f64 = 900.0;
const ROW: f64 = 26.0;
const TOP: f64 = 64.0;
/// Where the bars begin, how long one of reach 1 is, and the longest that is drawn.
const LEFT: f64 = 360.0;
const ONE: f64 = 200.0;
const LONGEST: f64 = 2.0;

/// The chart, as a file.
pub(crate) fn draw(report: &Report) -> String {
    let height = TOP + ROW * report.goals.len() as f64 + 40.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"16\" fill=\"#1f2328\">How far each goal is (1 = met, further is better)</text>\n"
    );
    let machine = &report.machine;
    let under = format!("{}, {}, {} cores, load {}", machine.date, machine.cpu, machine.cores, machine.load);
    text(&mut svg, 12.0, 44.0, "#59636e", "start", &under);
    for (number, goal) in report.goals.iter().enumerate() {
        bar(&mut svg, TOP + ROW * number as f64, goal);
    }
    let (x, end) = (LEFT + ONE, TOP + ROW * report.goals.len() as f64);
    let _ = writeln!(
        svg,
        "<line x1=\"{x}\" y1=\"{}\" x2=\"{x}\" y2=\"{end}\" stroke=\"#1f2328\" stroke-dasharray=\"4 3\"/>",
        TOP - 6.0
    );
    text(&mut svg, x, end + 18.0, "#1f2328", "middle", "goal");
    text(&mut svg, 12.0, end + 32.0, "#59636e", "start", &report.command);
    svg.push_str("</svg>\n");
    svg
}

fn bar(svg: &mut String, top: f64, goal: &Goal) {
    let width = goal.reached().min(LONGEST) * ONE;
    let colour = if goal.met { "#2da44e" } else { "#d4a72c" };
    text(svg, LEFT - 8.0, top + 15.0, "#1f2328", "end", goal.what);
    let _ = writeln!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{}\" width=\"{width:.1}\" height=\"16\" rx=\"2\" fill=\"{colour}\"/>",
        top + 2.0
    );
    let (sign, limit) = match goal.goal {
        Limit::AtLeast(least) => ('≥', least),
        Limit::AtMost(most) => ('≤', most),
    };
    let value = if goal.ceiling == 1.0 {
        format!("{} {}", figure(goal.measured), goal.unit.name())
    } else {
        figure(goal.ratio)
    };
    let label = format!("{value} ({sign} {})", round(limit));
    text(svg, LEFT + width.max(ONE) + 8.0, top + 15.0, "#59636e", "start", &label);
}

fn text(svg: &mut String, x: f64, y: f64, colour: &str, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ =
        writeln!(svg, "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\" text-anchor=\"{anchor}\">{text}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn a_chart_has_a_bar_for_each_goal_and_is_well_formed() {
        let report = sample();
        let svg = draw(&report);
        assert_eq!(svg.matches("rx=\"2\"").count(), report.goals.len());
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        // Every `<` begins a tag that ends, and what people wrote is escaped.
        assert_eq!(svg.matches('<').count(), svg.matches('>').count());
        assert!(svg.contains("--svg &lt;file&gt;"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
