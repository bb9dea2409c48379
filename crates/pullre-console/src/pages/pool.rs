//! How busy the pool was, and how long people waited.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};
use pullre::ops::OpsError;
use pullre::store::{Busy, Store, TickRow};
use pullre::words;

use super::parts::{Table, ago, or_dash};
use super::{Frame, Section, page};
use crate::guard::Visit;
use crate::session::Said;

/// The times that can be looked at, in pieces that make a chart of about ninety bars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub name: &'static str,
    pub words: &'static str,
    hours: i64,
    piece_minutes: u64,
}

pub const SPANS: [Span; 3] = [
    Span { name: "24h", words: "24 hours", hours: 24, piece_minutes: 15 },
    Span { name: "7d", words: "7 days", hours: 7 * 24, piece_minutes: 120 },
    Span { name: "30d", words: "30 days", hours: 30 * 24, piece_minutes: 480 },
];

impl Span {
    pub fn since(&self, now: Timestamp) -> Timestamp {
        now.saturating_sub(SignedDuration::from_hours(self.hours)).unwrap_or(now)
    }

    fn piece(&self) -> Duration {
        Duration::from_secs(self.piece_minutes * 60)
    }
}

/// The middle and the slow end of some durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantiles {
    pub count: usize,
    pub median: Duration,
    pub slow: Duration,
}

/// By nearest rank; None of nothing.
pub fn quantiles(mut durations: Vec<Duration>) -> Option<Quantiles> {
    durations.sort_unstable();
    let at = |percent: usize| {
        let rank = (durations.len() * percent).div_ceil(100).max(1);
        durations.get(rank - 1).copied()
    };
    Some(Quantiles { count: durations.len(), median: at(50)?, slow: at(95)? })
}

pub struct Measured {
    pub span: Span,
    pub busy: Vec<Busy>,
    /// For each of [`SPANS`]: waiting for a server, and from push to ready.
    pub waits: Vec<(Option<Quantiles>, Option<Quantiles>)>,
    pub last: Option<TickRow>,
}

pub fn measure(store: &mut Store, span: Span, now: Timestamp) -> Result<Measured, OpsError> {
    let longest = SPANS[SPANS.len() - 1].since(now);
    let (waits, ready) = (store.waits_since(longest)?, store.push_to_ready_since(longest)?);
    let since = |all: &[(Timestamp, Duration)], span: &Span| {
        let from = span.since(now);
        quantiles(all.iter().filter(|(at, _)| *at >= from).map(|(_, took)| *took).collect())
    };
    Ok(Measured {
        span,
        busy: store.busy_since(span.since(now), span.piece())?,
        waits: SPANS.iter().map(|span| (since(&waits, span), since(&ready, span))).collect(),
        last: store.last_tick()?,
    })
}

pub fn pool(visit: &Visit, said: Option<Said>, measured: &Measured, now: Timestamp) -> Markup {
    let span = measured.span;
    let content = html! {
        div class="title" {
            h1 { "Pool" }
            @if let Some(last) = &measured.last {
                p class="quiet" {
                    "The last tick began " (ago(last.began_at, now)) " and took " (words::duration(last.took))
                    @if last.failed > 0 { "; " (last.failed) " things failed in it" }
                }
            }
        }
        section aria-labelledby="busy" {
            div class="title" {
                h2 id="busy" { "How busy it was" }
                nav aria-label="Time" class="spans" {
                    @for other in SPANS {
                        a href={ "/pool?span=" (other.name) } aria-current=[(other == span).then_some("true")] { (other.words) }
                    }
                }
            }
            @if measured.busy.is_empty() {
                p class="empty" { "No tick was recorded in this time. Ticks come from cron or from this server, each minute; their measures appear here." }
            } @else {
                (chart(measured, now))
            }
        }
        section aria-labelledby="waits" {
            h2 id="waits" { "How long people waited" }
            (waits(measured))
            p class="quiet" {
                "From push to ready: from the moment at which a commit was first seen until its server reported \
                 that it serves it. The 95th percentile is what all but the slowest twentieth stayed under."
            }
        }
    };
    let frame =
        Frame { title: "Pool", section: Some(Section::Pool), visit: Some(visit), said, live: None };
    page(frame, content)
}

fn waits(measured: &Measured) -> Markup {
    let cell = |quantiles: &Option<Quantiles>, read: fn(&Quantiles) -> Duration| {
        or_dash(quantiles.as_ref().map(|q| words::duration(read(q))))
    };
    let rows = SPANS.iter().zip(&measured.waits).map(|(span, (wait, ready))| {
        vec![
            html! { (span.words) },
            cell(wait, |q| q.median),
            cell(wait, |q| q.slow),
            cell(ready, |q| q.median),
            cell(ready, |q| q.slow),
            html! { (ready.map_or(0, |q| q.count)) },
        ]
    });
    html! {
        (Table {
            caption: "Waiting times",
            caption_hidden: true,
            head: &["Last", "For a server, median", "95th percentile", "Push to ready, median", "95th percentile", "Pushes"],
            rows: rows.collect(),
        })
    }
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 220.0;

/// Bars: servers in use; a line above: servers in the pool; below, in another colour: those waiting.
fn chart(measured: &Measured, now: Timestamp) -> Markup {
    let span = measured.span;
    let (from, all) = (span.since(now).as_millisecond() as f64, span.hours as f64 * 3_600_000.0);
    let most = measured.busy.iter().map(|b| b.pool.max(b.busy + b.queued)).fold(1.0, f64::max);
    let x = |t: Timestamp| ((t.as_millisecond() as f64 - from) / all * WIDTH).clamp(0.0, WIDTH);
    let y = |n: f64| HEIGHT - n / most * (HEIGHT - 10.0);
    let width = WIDTH * span.piece_minutes as f64 / 60.0 / span.hours as f64;
    let line: Vec<_> = measured
        .busy
        .iter()
        .flat_map(|b| [(x(b.from), y(b.pool)), ((x(b.from) + width).min(WIDTH), y(b.pool))])
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let mean = |read: fn(&Busy) -> f64| {
        measured.busy.iter().map(read).sum::<f64>() / measured.busy.len().max(1) as f64
    };
    let summary = format!(
        "On average {:.1} of {:.1} servers were in use, and {:.1} pull requests waited.",
        mean(|b| b.busy),
        mean(|b| b.pool),
        mean(|b| b.queued)
    );
    html! {
        p { (summary) }
        figure {
            svg viewBox=(format!("0 0 {WIDTH} {}", HEIGHT + 4.0)) role="img" aria-labelledby="chart-title" class="chart" preserveAspectRatio="none" {
                title id="chart-title" { "Servers in use during the last " (span.words) ". " (summary) }
                @for b in &measured.busy {
                    rect class="busy" x=(format!("{:.1}", x(b.from))) width=(format!("{:.1}", (width - 1.0).max(1.0)))
                        y=(format!("{:.1}", y(b.busy))) height=(format!("{:.1}", HEIGHT - y(b.busy))) {}
                    @if b.queued > 0.0 {
                        rect class="queued" x=(format!("{:.1}", x(b.from))) width=(format!("{:.1}", (width - 1.0).max(1.0)))
                            y=(format!("{:.1}", y(b.busy + b.queued)))
                            height=(format!("{:.1}", y(b.busy) - y(b.busy + b.queued))) {}
                    }
                }
                polyline class="pool" points=(line.join(" ")) {}
            }
            figcaption {
                span class="key busy" {} "in use "
                span class="key queued" {} "waiting "
                span class="key pool" {} "servers in the pool, " (format!("{:.0}", measured.busy.last().map_or(0.0, |b| b.pool)))
                " now; the height is " (format!("{most:.0}"))
            }
        }
        details {
            summary { "The numbers" }
            (Table {
                caption: "Means of each piece of time",
                caption_hidden: false,
                head: &["From", "In use", "Waiting", "In the pool"],
                rows: measured.busy.iter().rev().map(|b| vec![
                    super::parts::moment(b.from),
                    html! { (format!("{:.1}", b.busy)) },
                    html! { (format!("{:.1}", b.queued)) },
                    html! { (format!("{:.1}", b.pool)) },
                ]).collect(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_durations_that_really_were() {
        let of = |seconds: &[u64]| {
            let q = quantiles(seconds.iter().map(|s| Duration::from_secs(*s)).collect());
            q.map(|q| (q.count, q.median.as_secs(), q.slow.as_secs()))
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[7]), Some((1, 7, 7)));
        assert_eq!(of(&[9, 1]), Some((2, 1, 9)));
        let hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(of(&hundred), Some((100, 50, 95)));
    }
}
