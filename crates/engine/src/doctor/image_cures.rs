//! How an image that is missing, damaged or wrong is put right.

use vrs_vdisk::{MendedHead, VdiHead, VdiHeader};

use super::finding::Cure;
use super::images::Images;
use super::memory::{Memory, Remembered, StoredImage};
use super::repair::{FetchedFile, ImageIdentity, NewHead, RepairAction, RepairPlan};
use crate::error::Result;
use crate::manifest::MediumRecord;

const RESTORE: &str = "`vrs restore` brings the whole machine back to a snapshot";

/// The file is gone: the repository has it as it was.
pub(super) fn of_missing(
    images: &Images<'_, '_>,
    image: &MediumRecord,
    kind: &'static str,
) -> Result<Cure> {
    let identity = ImageIdentity::of(image);
    let memory = images.patient.memory()?;
    let stored = memory.and_then(|memory| Some((memory, memory.images(identity).next()?)));
    let Some((memory, stored)) = stored else {
        return Ok(Cure::Advice(images.patient.without_source(RESTORE)));
    };
    let action = RepairAction::Fetch {
        path: stored.medium.path.clone(),
        target: image.location.clone(),
        what: FetchedFile::Image(identity),
        aside: None,
    };
    let plan = images
        .patient
        .plan(kind, vec![action])
        .with_source(memory.source(stored.of));
    Ok(with_age(images, image, stored.of, plan, kind).into_cure())
}

/// What it means that the image is one of an earlier time.
fn with_age(
    images: &Images<'_, '_>,
    image: &MediumRecord,
    of: &Remembered,
    plan: RepairPlan,
    kind: &str,
) -> RepairPlan {
    let now: Vec<_> = images.children_of(image.id).collect();
    let then: Vec<_> = of.children_of(image.id).collect();
    let title = of.title();
    if !now.is_empty() && now.iter().all(|child| then.contains(child)) {
        return plan.note(format!(
            "it is from snapshot {title}; the image was not written to any more then, so nothing is lost"
        ));
    }
    let plan = plan.note(format!(
        "it is as of snapshot {title}: what the guest wrote to it later is lost"
    ));
    if !now.is_empty() {
        return plan.only_if_named(
            kind,
            image.id.uuid(),
            "the images that are based on it are later than it and may not fit it: the file system in the guest may be \
             damaged",
        );
    }
    if images.is_saved {
        return plan.only_if_named(
            kind,
            image.id.uuid(),
            "the saved state belongs to the later disk and may spoil this one when it is resumed: discard it first",
        );
    }
    plan
}

/// The header or the block map is garbage: the repository has an earlier one.
pub(super) fn of_damage(
    images: &Images<'_, '_>,
    image: &MediumRecord,
    kind: &'static str,
) -> Result<Cure> {
    let identity = ImageIdentity::of(image);
    let memory = images.patient.memory()?;
    let earlier = memory.and_then(|memory| {
        let with_head = |stored| Some((memory, stored, memory.head(stored, identity)?));
        memory.images(identity).find_map(with_head)
    });
    let Some((memory, stored, earlier)) = earlier else {
        return Ok(Cure::Advice(images.patient.without_source(RESTORE)));
    };
    let mended = match earlier.mend(&image.location) {
        Ok(mended) => mended,
        Err(vrs_vdisk::Error::Head { fault, .. }) => {
            return Ok(Cure::Advice(format!("{fault}; {RESTORE}")));
        }
        Err(error) => return Err(error.into()),
    };
    mended_cure(images, image, memory, stored, mended, kind)
}

fn mended_cure(
    images: &Images<'_, '_>,
    image: &MediumRecord,
    memory: &Memory<'_>,
    stored: StoredImage<'_>,
    mended: MendedHead,
    kind: &'static str,
) -> Result<Cure> {
    let title = stored.of.title();
    let mut plan =
        write_head(images, image, mended.head, kind).with_source(memory.source(stored.of));
    if mended.map_is_kept {
        plan = plan.note(format!(
            "the header comes from snapshot {title}; the block map is sound and stays, so nothing is lost"
        ));
    } else {
        let stats = memory.compare(stored, &image.location, images.patient.progress)?;
        let (same, all) = (stats.in_place_bytes, stats.total_bytes);
        if same.saturating_mul(2) < all {
            return Ok(Cure::Advice(format!(
                "only {same} of {all} bytes are where they were in snapshot {title}: the image was compacted or \
                 rewritten since, and its block map of that time would mix its blocks up; {RESTORE}"
            )));
        }
        plan = plan.note(format!(
            "header and block map come from snapshot {title}; {same} of {all} bytes are where they were then"
        ));
    }
    if mended.unplaced_blocks == 0 {
        return Ok(plan.into_cure());
    }
    let reason = format!(
        "{} that the guest wrote since cannot be placed and will be lost; keep a copy of the image",
        blocks(mended.unplaced_blocks)
    );
    Ok(plan
        .only_if_named(kind, image.id.uuid(), reason)
        .into_cure())
}

fn blocks(count: u64) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} block{ending}")
}

/// Only the count of stored blocks is too low: the map itself says what it must be.
pub(super) fn of_miscount(
    images: &Images<'_, '_>,
    image: &MediumRecord,
    head: VdiHead,
    kind: &'static str,
) -> Cure {
    write_head(images, image, head.counted(), kind)
        .note("only the count of stored blocks is wrong; nothing is lost")
        .into_cure()
}

fn write_head(
    images: &Images<'_, '_>,
    image: &MediumRecord,
    head: VdiHead,
    kind: &'static str,
) -> RepairPlan {
    let mut plan = images.patient.plan(kind, Vec::new());
    let place = plan.intent.keep_in.join("new-head.vdi");
    plan.intent.actions.push(RepairAction::WriteHead {
        image: image.location.clone(),
        image_bytes: image.location.metadata().map_or(0, |file| file.len()),
        head: place.clone(),
    });
    plan.heads.push(NewHead { place, head });
    plan
}

/// The header names another parent than the registry: changed where only one image can be meant.
pub(super) fn of_mismatch(
    images: &Images<'_, '_>,
    image: &MediumRecord,
    header: &VdiHeader,
    kind: &'static str,
) -> Cure {
    let advice = |reason: &str| Cure::Advice(format!("{reason}; {RESTORE}"));
    let (Some(recorded), Some(registered)) = (header.parent(), image.parent) else {
        return advice("a base image and a differencing image cannot be exchanged");
    };
    let own = images.all.iter().map(|other| other.id);
    let mut known = own.chain(images.patient.media.iter().map(|other| other.id));
    if known.any(|id| id.uuid() == recorded) {
        return advice(
            "both are images that VirtualBox knows, and it cannot be told which one is meant",
        );
    }
    let parent = images.all.iter().find(|other| other.id == registered);
    let Some(parent) = parent.and_then(|parent| VdiHeader::read(&parent.location).ok()) else {
        return advice("the parent that the registry names cannot be read; repair that first");
    };
    if parent.uuids.creation != registered.uuid() || parent.capacity_bytes != header.capacity_bytes
    {
        return advice(
            "the parent that the registry names does not fit: its UUID or its size differs",
        );
    }
    let action = RepairAction::SetParent {
        image: image.location.clone(),
        own: image.id.uuid(),
        parent: registered.uuid(),
    };
    images
        .patient
        .plan(kind, vec![action])
        .note("only the header of the image is changed; look at the guest's file systems when it runs again")
        .into_cure()
}
