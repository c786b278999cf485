//! A list that is never copied while it grows: it has at most one block more than it needs.

const BLOCK_ITEMS: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct BlockList<T> {
    /// All full but the last.
    blocks: Vec<Vec<T>>,
}

impl<T> Default for BlockList<T> {
    fn default() -> Self {
        Self { blocks: Vec::new() }
    }
}

impl<T> BlockList<T> {
    pub(crate) fn push(&mut self, item: T) {
        match self.blocks.last_mut() {
            Some(last) if last.len() < BLOCK_ITEMS => last.push(item),
            // A short list stays small.
            _ => self.blocks.push(vec![item]),
        }
    }

    pub(crate) fn len(&self) -> usize {
        let before = self.blocks.len().saturating_sub(1);
        let last = self.blocks.last().map_or(0, Vec::len);
        before.saturating_mul(BLOCK_ITEMS).saturating_add(last)
    }

    pub(crate) fn get(&self, position: usize) -> Option<&T> {
        let block = self.blocks.get(position / BLOCK_ITEMS)?;
        block.get(position % BLOCK_ITEMS)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flatten()
    }
}

impl<T> Extend<T> for BlockList<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        items.into_iter().for_each(|item| self.push(item));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list() {
        let mut list = BlockList::default();
        assert_eq!((list.len(), list.get(0)), (0, None));
        let items = 0..2 * BLOCK_ITEMS + 1;
        list.extend(items.clone());
        assert_eq!(list.len(), items.end);
        assert!(list.iter().copied().eq(items.clone()));
        assert!(items.clone().all(|item| list.get(item) == Some(&item)));
        assert_eq!(list.get(items.end), None);
    }
}
