//! What programs needed, side by side: figures, and in brackets their part of the best other program's.

use crate::measured::median_by;
use crate::programs::Program;

/// What is compared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) decimals: usize,
    /// Whether less is better.
    pub(crate) has_ratio: bool,
}

/// A program with its figures, by column.
pub(crate) struct Contender<const N: usize> {
    name: &'static str,
    is_peer: bool,
    rounds: Vec<[f64; N]>,
}

impl<const N: usize> Contender<N> {
    pub(crate) const fn of(program: &Program) -> Self {
        Self {
            name: program.name(),
            is_peer: program.is_peer(),
            rounds: Vec::new(),
        }
    }

    /// NaN where nothing was measured.
    pub(crate) fn push(&mut self, figures: [f64; N]) {
        self.rounds.push(figures);
    }

    /// Each figure by itself; nothing where there was no round.
    pub(crate) fn medians(&self) -> Option<[f64; N]> {
        let median = |column| {
            let all: Vec<f64> = self.rounds.iter().map(|figures| figures[column]).collect();
            median_by(&all, f64::total_cmp)
        };
        (!self.rounds.is_empty()).then(|| std::array::from_fn(median))
    }
}

pub(crate) fn heading(title: &str, columns: &[Column]) -> String {
    let titles = columns.iter();
    let titles: String = titles
        .map(|column| format!("{:>9} {:<6}", column.title, ""))
        .collect();
    format!("{title:<32}{titles}").trim_end().to_owned()
}

/// Those of the contenders that have figures. There may be fewer columns than figures.
pub(crate) fn rows<const N: usize>(
    columns: &[Column],
    contenders: &[Contender<N>],
) -> impl Iterator<Item = String> {
    let best = best_peer(contenders);
    contenders.iter().filter_map(move |contender| {
        let figures = contender.medians()?.into_iter().zip(best);
        let cells = columns.iter().zip(figures);
        let cells: String = cells
            .map(|(column, figures)| column.cell(figures))
            .collect();
        let row = format!("  {:<30}{cells}", contender.name);
        Some(row.trim_end().to_owned())
    })
}

/// The lowest of each figure; infinite where there is none.
fn best_peer<const N: usize>(contenders: &[Contender<N>]) -> [f64; N] {
    let peers = contenders.iter().filter(|contender| contender.is_peer);
    let peers = peers.filter_map(Contender::medians);
    peers.fold([f64::INFINITY; N], |best, figures| {
        std::array::from_fn(|column| best[column].min(figures[column]))
    })
}

impl Column {
    fn cell(&self, (figure, best): (f64, f64)) -> String {
        if figure.is_nan() {
            return format!("{:>16}", "");
        }
        let has_ratio = self.has_ratio && best.is_finite() && best > 0.0;
        let ratio = if has_ratio {
            format!("({:.2})", figure / best)
        } else {
            String::new()
        };
        format!("{figure:>9.*} {ratio:<6}", self.decimals)
    }
}
