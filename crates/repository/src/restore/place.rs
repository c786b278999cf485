//! Where chunks have to go. A restore may need millions of them: a place takes four bytes.

use crate::error::{Error, Result};
use crate::index::ChunkNumber;
use crate::layout::StoredChunk;

use super::Restore;
use super::sources::Sources;
use super::survey::State;
use super::target::Target;

/// A chunk of a target, by its number among all chunks of all targets.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u32);

impl Place {
    /// The place behind so many chunks of a target that begins at this one.
    fn behind(self, chunks: usize) -> Option<Self> {
        let chunks = u32::try_from(chunks).ok()?;
        self.0.checked_add(chunks).map(Self)
    }

    /// How many chunks lie between another place and this one.
    const fn since(self, first: Self) -> usize {
        self.0.saturating_sub(first.0) as usize
    }
}

/// Tells all targets where they begin.
pub(super) fn number(targets: &mut [Target]) -> Result<()> {
    let mut next = Place(0);
    for target in targets {
        target.first = next;
        next = next
            .behind(target.states.len())
            .ok_or_else(|| Error::InvalidRequest {
                subject: "the files to be restored".to_owned(),
                reason: "they have more than four thousand million chunks",
            })?;
    }
    Ok(())
}

impl Target {
    fn places(&self) -> impl Iterator<Item = Place> {
        (self.first.0..).map(Place)
    }
}

impl Restore<'_> {
    /// The places of all chunks that some targets lack, sorted by chunk, so that all places of one are
    /// neighbours.
    pub(super) fn needs(&self, is_meant: impl Fn(&Target) -> bool) -> Vec<Place> {
        let missing = || self.missing_of(&is_meant);
        // As long as needed and no longer: grown by doubling it could take as much as the index.
        let mut needs = Vec::with_capacity(missing().count());
        needs.extend(missing().map(|(place, _)| place));
        needs.sort_unstable_by_key(|place| (self.number(*place), *place));
        needs
    }

    /// All chunks that are not in place.
    pub(super) fn missing(&self) -> impl Iterator<Item = (Place, ChunkNumber)> + '_ {
        self.missing_of(|_| true)
    }

    fn missing_of(
        &self,
        is_meant: impl Fn(&Target) -> bool,
    ) -> impl Iterator<Item = (Place, ChunkNumber)> {
        let targets = self.targets.iter().filter(move |target| is_meant(target));
        targets.flat_map(|target| {
            let chunks = target.places().zip(target.chunks.numbers());
            let missing = chunks.zip(&target.states);
            let missing = missing.filter(|(_, state)| **state == State::Missing);
            missing.map(|(chunk, _)| chunk)
        })
    }

    /// Takes out those that have to be fetched. Of a restore to nothing that is all of them, without a copy.
    pub(super) fn split_sought(&self, needs: &mut Vec<Place>, sources: &Sources) -> Vec<Place> {
        let number = |place: &Place| self.number(*place);
        let is_sought = |place: &Place| number(place).is_some_and(|chunk| sources.is_sought(chunk));
        let count = needs.iter().filter(|place| is_sought(place)).count();
        if count == needs.len() {
            return std::mem::take(needs);
        }
        let mut sought = Vec::with_capacity(count);
        sought.extend(needs.extract_if(.., |place| is_sought(place)));
        sought
    }

    /// The needs of each chunk.
    pub(super) fn by_chunk<'n>(
        &self,
        needs: &'n [Place],
    ) -> impl Iterator<Item = (ChunkNumber, &'n [Place])> {
        let same = |one: &Place, other: &Place| self.number(*one) == self.number(*other);
        let groups = needs.chunk_by(same);
        groups.filter_map(|all| Some((self.number(*all.first()?)?, all)))
    }

    /// Those of all needs that are of one chunk.
    pub(super) fn needs_of<'n>(&self, needs: &'n [Place], chunk: ChunkNumber) -> &'n [Place] {
        let from = needs.partition_point(|place| self.number(*place) < Some(chunk));
        let rest = needs.get(from..).unwrap_or_default();
        let is_of = |place: &&Place| self.number(**place) == Some(chunk);
        let count = rest.iter().take_while(is_of).count();
        rest.get(..count).unwrap_or_default()
    }

    /// The target of a place, and which of its chunks it is.
    pub(super) fn target(&self, place: Place) -> Option<(&Target, usize)> {
        let target = self.targets.get(self.target_number(place)?)?;
        Some((target, place.since(target.first)))
    }

    pub(super) fn target_number(&self, place: Place) -> Option<usize> {
        let after = self.targets.partition_point(|target| target.first <= place);
        after.checked_sub(1)
    }

    pub(super) fn number(&self, place: Place) -> Option<ChunkNumber> {
        let (target, position) = self.target(place)?;
        target.chunks.number(position)
    }

    pub(super) fn stored(&self, place: Place) -> Option<StoredChunk> {
        let (target, position) = self.target(place)?;
        target.chunks.get(position)
    }
}
