//! Trees of images and of VirtualBox snapshots.

/// A node of a tree and all below it, parents first.
pub(super) fn walk<'a, T>(
    root: &'a T,
    children: fn(&'a T) -> &'a [T],
) -> impl Iterator<Item = &'a T> {
    let mut waiting = vec![root];
    std::iter::from_fn(move || {
        let next = waiting.pop()?;
        waiting.extend(children(next).iter().rev());
        Some(next)
    })
}
