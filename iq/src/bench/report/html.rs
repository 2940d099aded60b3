//! The report as a page: one file that loads no other files.

use std::fmt;

use iip_core::Printable;

use super::{explanation, svg, text};
use crate::bench::measured::Measured;
use crate::exit::{Failure, Outcome};

/// The width of the figures, in characters.
const COLUMNS: usize = 80;

/// A text that is escaped for HTML, between tags or in quotes.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => fmt::Write::write_char(f, c)?,
            }
        }
        Ok(())
    }
}

/// Returns the page with the figures of a run.
pub(in crate::bench) fn page(measured: &Measured) -> Outcome<String> {
    let data = serde_json::to_string(measured)
        .map_err(|error| Failure::Own(format!("the page cannot be written: {error}")))?;
    // The data must not end the element that contains it.
    let data = data.replace('<', "\\u003c");
    let plan = &measured.plan;
    let figures = text::figures(measured, COLUMNS).join("\n");
    let method = Printable(&plan.method).to_string();
    let (method, targets) = (Escaped(&method), plan.targets.join(", "));
    let key = match measured.service {
        Some(_) => "<p><b class=\"key-due\">from due</b>, <b class=\"key-sent\">from sent</b></p>",
        None => "",
    };
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{method} under load</title><style>\n{style}</style></head>\n\
         <body><h1>{method}</h1>\n<p>{targets}<br>{load}</p>\n\
         <pre>{figures}</pre>\n\
         <p>{explanation}</p>\n\
         <h2>Latency by percentile</h2>\n{key}{percentiles}\n\
         <h2>Calls per second</h2>\n\
         <p><b class=\"key-due\">successful</b>, <b class=\"key-errors\">errors</b>, \
         <b class=\"key-skipped\">skipped</b></p>\n{over_time}\n\
         <h2>Calls by latency</h2>\n{key}{histograms}\n\
         <script type=\"application/json\" id=\"figures\">{data}</script>\n</body></html>\n",
        style = include_str!("page.css"),
        targets = Escaped(&targets),
        load = Escaped(&plan.load),
        figures = Escaped(&figures),
        explanation = Escaped(&explanation(measured)),
        percentiles = svg::percentiles(measured),
        over_time = svg::over_time(measured),
        histograms = svg::histograms(measured),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measured::{Failures, PlanText};

    #[test]
    fn texts_of_servers_are_shown_as_texts() {
        let hostile = "</script><script>alert('\"&1')</script>";
        let measured = Measured {
            plan: PlanText {
                method: hostile.to_owned(),
                targets: vec![hostile.to_owned()],
                load: hostile.to_owned(),
                ..PlanText::default()
            },
            failures: vec![Failures {
                code: "INTERNAL".to_owned(),
                count: 1,
                example: hostile.to_owned(),
            }],
            ..Measured::default()
        };
        let page = page(&measured).unwrap();
        assert!(!page.contains("<script>"), "{page}");
        assert_eq!(page.matches("</script>").count(), 1);
        let (_, data) = page.split_once("id=\"figures\">").unwrap();
        let (data, _) = data.split_once("</script>").unwrap();
        let read: Measured = serde_json::from_str(data).unwrap();
        assert_eq!(read.plan.method, hostile);
    }
}
