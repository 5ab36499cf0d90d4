//! Volumes in a storage pool of libvirt: by its own interface, so that it is the same on this box and elsewhere.
//!
//! A volume has no room for a mark. Its name begins with the machine's UUID, which follows from its host's id, and its machine is there
//! before it and after it: so it is never nobody's.

use std::collections::BTreeSet;

use serde::Serialize;
use shoal_agent::Fault;
use shoal_machine::Word;
use uuid::Uuid;
use virt::connect::Connect;
use virt::error::ErrorNumber;
use virt::storage_pool::StoragePool;
use virt::storage_vol::StorageVol;
use virt::stream::Stream;

use super::daemon::fault;
use super::domain::Amount;

/// What a volume is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    /// Its pool, and its name there.
    pub(super) pool: String,
    pub(super) volume: String,
}

/// A volume that a machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) format: &'static str,
    /// In octets, at least.
    pub(super) size: u64,
    pub(super) base: Option<Base>,
}

/// What the names of a machine's volumes begin with.
pub(super) fn prefix(uuid: Uuid) -> String {
    format!("shoal-{uuid}-")
}

#[derive(Serialize)]
#[serde(rename = "volume")]
struct Document<'a> {
    name: &'a str,
    allocation: Amount,
    capacity: Amount,
    target: Target,
    #[serde(rename = "backingStore", skip_serializing_if = "Option::is_none")]
    base: Option<Backing>,
}

#[derive(Serialize)]
struct Target {
    format: Format,
}

#[derive(Serialize)]
struct Format {
    #[serde(rename = "@type")]
    kind: String,
}

#[derive(Serialize)]
struct Backing {
    path: String,
    format: Format,
}

/// What is read of a volume.
#[derive(serde::Deserialize)]
struct Said {
    target: SaidTarget,
}

#[derive(serde::Deserialize)]
struct SaidTarget {
    format: Option<SaidFormat>,
}

#[derive(serde::Deserialize)]
struct SaidFormat {
    #[serde(rename = "@type")]
    kind: String,
}

/// The pool of this name, which is active.
pub(super) fn pool(connection: &Connect, name: &str) -> Result<StoragePool, Fault> {
    let what = || format!("open the storage pool {name}");
    let pool = StoragePool::lookup_by_name(connection, name).map_err(|e| fault(what(), &e))?;
    match pool.is_active().map_err(|e| fault(what(), &e))? {
        true => Ok(pool),
        false => {
            let next = format!("start it (virsh pool-start {name}), and have it start by itself");
            Err(Fault::new(what(), "it is not active").next(next))
        }
    }
}

/// The volume of this name; `None`: it is not there.
fn find(pool: &StoragePool, name: &str) -> Result<Option<StorageVol>, Fault> {
    match StorageVol::lookup_by_name(pool, name) {
        Ok(volume) => Ok(Some(volume)),
        Err(e) if e.code() == ErrorNumber::NoStorageVolume => Ok(None),
        Err(e) => Err(fault(format!("find the volume {name}"), &e)),
    }
}

fn known(connection: &Connect, at: &str, name: &str) -> Result<StorageVol, Fault> {
    let none =
        || Fault::new(format!("find the volume {name}"), format!("it is not in the storage pool {at}"));
    find(&pool(connection, at)?, name)?.ok_or_else(none)
}

/// What a volume is to be over. One that was put into the pool's folder by hand is seen after a second look.
fn image(connection: &Connect, base: &Base) -> Result<StorageVol, Fault> {
    let pool = pool(connection, &base.pool)?;
    if let Some(volume) = find(&pool, &base.volume)? {
        return Ok(volume);
    }
    pool.refresh(0).map_err(|e| fault(format!("read the storage pool {} anew", base.pool), &e))?;
    known(connection, &base.pool, &base.volume)
}

/// Makes a volume; one that is there is left as it is.
pub(super) fn make(connection: &Connect, at: &str, volume: &Volume) -> Result<(), Fault> {
    let pool = pool(connection, at)?;
    if find(&pool, &volume.name)?.is_some() {
        return Ok(());
    }
    let what = || format!("make the volume {}", volume.name);
    let (mut size, mut base) = (volume.size, None);
    if let Some(under) = &volume.base {
        let under = image(connection, under)?;
        let info = under.get_info().map_err(|e| fault(what(), &e))?;
        size = size.max(info.capacity);
        let text = under.get_xml_desc(0).map_err(|e| fault(what(), &e))?;
        let said: Said = quick_xml::de::from_str(&text).map_err(|e| Fault::new(what(), e))?;
        let kind = said.target.format.map_or_else(|| "raw".to_owned(), |format| format.kind);
        base =
            Some(Backing { path: under.get_path().map_err(|e| fault(what(), &e))?, format: Format { kind } });
    }
    let document = Document {
        name: &volume.name,
        allocation: Amount::bytes(0),
        capacity: Amount::bytes(size),
        target: Target { format: Format { kind: volume.format.to_owned() } },
        base,
    };
    let text = quick_xml::se::to_string(&document).map_err(|e| Fault::new(what(), e))?;
    StorageVol::create_xml(&pool, &text, 0).map_err(|e| fault(what(), &e))?;
    Ok(())
}

/// Makes a volume larger where it is smaller than this, in octets.
pub(super) fn grow(connection: &Connect, at: &str, name: &str, size: u64) -> Result<(), Fault> {
    let what = || format!("resize the volume {name}");
    let volume = known(connection, at, name)?;
    if volume.get_info().map_err(|e| fault(what(), &e))?.capacity < size {
        volume.resize(size, 0).map_err(|e| fault(what(), &e))?;
    }
    Ok(())
}

/// The names of volumes that begin so.
pub(super) fn names(connection: &Connect, at: &str, prefix: &str) -> Result<Vec<String>, Fault> {
    let all = pool(connection, at)?.list_volumes();
    let all = all.map_err(|e| fault(format!("list the storage pool {at}"), &e))?;
    Ok(all.into_iter().filter(|name| name.starts_with(prefix)).collect())
}

/// Those of them that Shoal makes for a machine with these disks, or where nobody knows which it had, with any. What else begins so is
/// somebody's: a copy, or a snapshot.
pub(super) fn parts(
    connection: &Connect,
    at: &str,
    prefix: &str,
    disks: Option<&BTreeSet<Word>>,
) -> Result<Vec<String>, Fault> {
    let is_disk =
        |name: &str| name.parse::<Word>().is_ok_and(|name| disks.is_none_or(|disks| disks.contains(&name)));
    let is_part = |part: &str| {
        matches!(part, "root" | "seed" | "report") || part.strip_prefix("disk-").is_some_and(is_disk)
    };
    let mut all = names(connection, at, prefix)?;
    all.retain(|name| name.strip_prefix(prefix).is_some_and(is_part));
    Ok(all)
}

/// Removes a volume; where it is not there, it is well.
pub(super) fn remove(connection: &Connect, at: &str, name: &str) -> Result<(), Fault> {
    let Some(volume) = find(&pool(connection, at)?, name)? else { return Ok(()) };
    match volume.delete(0) {
        Err(e) if e.code() != ErrorNumber::NoStorageVolume => {
            Err(fault(format!("remove the volume {name}"), &e))
        }
        _ => Ok(()),
    }
}

/// Writes this to the beginning of a volume.
pub(super) fn write(connection: &Connect, at: &str, name: &str, octets: &[u8]) -> Result<(), Fault> {
    let failed = |e: virt::error::Error| fault(format!("write the volume {name}"), &e);
    let volume = known(connection, at, name)?;
    let stream = Stream::new(connection, 0).map_err(failed)?;
    let length = u64::try_from(octets.len()).unwrap_or(u64::MAX);
    volume.upload(&stream, 0, length, 0).map_err(failed)?;
    let mut left = octets;
    while !left.is_empty() {
        match stream.send(left) {
            Ok(sent) => left = left.get(sent..).unwrap_or_default(),
            Err(e) => {
                let _ = stream.abort();
                return Err(failed(e));
            }
        }
    }
    stream.finish().map_err(failed)
}

/// Reads so many octets from the beginning of a volume, or as many as there are.
pub(super) fn read(connection: &Connect, at: &str, name: &str, length: usize) -> Result<Vec<u8>, Fault> {
    let failed = |e: virt::error::Error| fault(format!("read the volume {name}"), &e);
    let volume = known(connection, at, name)?;
    let stream = Stream::new(connection, 0).map_err(failed)?;
    volume.download(&stream, 0, u64::try_from(length).unwrap_or(u64::MAX), 0).map_err(failed)?;
    let (mut octets, mut part) = (Vec::new(), vec![0; length]);
    loop {
        match stream.recv(&mut part) {
            Ok(0) => break,
            Ok(more) => octets.extend(part.iter().take(more)),
            Err(e) => {
                let _ = stream.abort();
                return Err(failed(e));
            }
        }
    }
    stream.finish().map_err(failed)?;
    octets.truncate(length);
    Ok(octets)
}
