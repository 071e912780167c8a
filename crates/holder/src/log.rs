//! The holder's own log: every evaluation that was asked for, chained by hashes, so that its administrator can prove afterwards
//! what this holder was asked, whatever a gateway says.
//!
//! One line of JSON for each request; its `prev` is the SHA-256 of the line before. What must stay true: a line is handed to the
//! system before anything is evaluated; a line that cannot be written refuses the evaluation; lines are on the disk a second
//! later at the latest. Files are closed at a bounded size and never removed: that is for the administrator.

use std::fs;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use volvelle_fragments::Place;

use crate::lock;

/// A file that has so many bytes is followed by another one.
const LARGEST: u64 = 64 * 1024 * 1024;
/// What the first line is chained to.
const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One evaluation that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counted from 1.
    pub seq: u64,
    /// Milliseconds since 1970.
    pub at: u64,
    /// The pin of the gateway that asked.
    pub gateway: String,
    /// `seal`, `open`, `rewrap`, `probe` or `bury`.
    pub operation: String,
    /// The tenant.
    pub realm: String,
    /// The key.
    pub key_id: u32,
    /// The epoch that was asked for.
    pub epoch: u32,
    /// Names the request in everybody's log.
    pub request: String,
    /// Who asked the gateway, as the gateway says.
    pub principal: String,
    /// Who is behind it, as this holder found; empty if it does not look.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub authorization: String,
    /// What it was for, and what became of it.
    pub inputs: Vec<Line>,
    /// SHA-256 of the line before.
    pub prev: String,
}

/// One input of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// 1 = item version, 2 = target version, 0 = probe.
    pub purpose: u8,
    /// The object.
    pub item: String,
    /// Its version.
    pub version: u32,
    /// Its path.
    pub path: String,
    /// `evaluated`, `denied`, `rate`, `tombstone`, `unauthorized` or `bad`; for a burial `buried`, `denied`, `rate` or `bad`.
    pub status: String,
}

impl Entry {
    /// Of a gateway that buries; what becomes of it is in the lines.
    pub(crate) fn of_burial(gateway: &str, realm: &str, inputs: Vec<Line>) -> Self {
        Self {
            seq: 0,
            at: 0,
            gateway: gateway.to_owned(),
            operation: "bury".to_owned(),
            realm: realm.to_owned(),
            key_id: 0,
            epoch: 0,
            request: String::new(),
            principal: String::new(),
            authorization: String::new(),
            inputs,
            prev: String::new(),
        }
    }
}

impl Line {
    /// Of an input that belongs there.
    pub(crate) fn of(place: Place, status: &str) -> Self {
        Self {
            purpose: place.purpose,
            item: hex::encode(place.item),
            version: place.version,
            path: place.path,
            status: status.to_owned(),
        }
    }

    /// Of what is no input, or not one for this request.
    pub(crate) fn unread() -> Self {
        Self { purpose: 0, item: String::new(), version: 0, path: String::new(), status: "bad".to_owned() }
    }
}

struct Open {
    file: fs::File,
    length: u64,
    seq: u64,
    head: String,
    unsynced: bool,
}

/// The log of a running holder.
pub(crate) struct Log {
    folder: PathBuf,
    open: Mutex<Open>,
}

/// What a check of a log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// How many entries there are.
    pub entries: u64,
    /// SHA-256 of the last line; whoever keeps it elsewhere can tell later whether the log was cut.
    pub head: String,
}

impl Log {
    /// Opens the log, or begins it. A line that a crash cut short is removed: nothing was evaluated for it.
    pub(crate) fn open(folder: PathBuf) -> Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let (seq, head, path) = match segments(&folder)?.pop() {
            None => (0, BEGINNING.to_owned(), segment(&folder, 1)),
            Some(path) => {
                let (seq, head, whole) = end_of(&path)?;
                fs::OpenOptions::new().write(true).open(&path)?.set_len(whole)?;
                (seq, head, path)
            }
        };
        let file = append_to(&path)?;
        let length = file.metadata()?.len();
        Ok(Self { folder, open: Mutex::new(Open { file, length, seq, head, unsynced: false }) })
    }

    /// Writes an entry, whose number and chaining are filled in here.
    pub(crate) fn append(&self, mut entry: Entry) -> Result<()> {
        let mut open = lock(&self.open);
        if open.length >= LARGEST {
            open.file.sync_all()?;
            open.file = append_to(&segment(&self.folder, open.seq + 1))?;
            open.length = 0;
        }
        entry.seq = open.seq + 1;
        entry.prev.clone_from(&open.head);
        entry.at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let mut line = serde_json::to_vec(&entry)?;
        let head = hex::encode(digest(&SHA256, &line).as_ref());
        line.push(b'\n');
        if let Err(error) = open.file.write_all(&line) {
            // What was written of it must not stand before the next line.
            let length = open.length;
            open.file.set_len(length).ok();
            return Err(error).context("the log of this holder cannot be written");
        }
        open.length += u64::try_from(line.len())?;
        (open.seq, open.head, open.unsynced) = (entry.seq, head, true);
        Ok(())
    }

    /// Brings what was written to the disk.
    pub(crate) fn sync(&self) {
        let file = {
            let mut open = lock(&self.open);
            if !std::mem::take(&mut open.unsynced) {
                return;
            }
            open.file.try_clone()
        };
        if let Err(error) = file.and_then(|file| file.sync_data()) {
            tracing::error!(%error, "the log of this holder cannot be brought to the disk");
        }
    }
}

fn append_to(path: &Path) -> Result<fs::File> {
    let file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

fn segment(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.jsonl"))
}

/// The files of a log, in order.
fn segments(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    Ok(paths)
}

/// The last whole line of a file: its number, its hash, and where it ends. An empty file follows the one before it.
fn end_of(path: &Path) -> Result<(u64, String, u64)> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    // A line is at most a few hundred kilobytes long.
    file.seek(SeekFrom::Start(length.saturating_sub(1024 * 1024)))?;
    let mut tail = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut tail)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else {
        return before(path);
    };
    let begin = tail[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let line = &tail[begin..end];
    let entry: Entry = serde_json::from_slice(line).with_context(|| format!("{} is damaged", path.display()))?;
    let whole = length - u64::try_from(tail.len() - end - 1)?;
    Ok((entry.seq, hex::encode(digest(&SHA256, line).as_ref()), whole))
}

/// As [`end_of`], of the file before one that has no whole line.
fn before(path: &Path) -> Result<(u64, String, u64)> {
    let folder = path.parent().context("a file has a folder")?;
    match segments(folder)?.into_iter().rfind(|other| other.as_path() < path) {
        Some(previous) => end_of(&previous).map(|(seq, head, _)| (seq, head, 0)),
        None => Ok((0, BEGINNING.to_owned(), 0)),
    }
}

/// Every entry of a log, from the first one on, in order, as far as the chain holds.
///
/// # Errors
/// Says at which entry the chain is broken.
pub fn read(folder: &Path, mut each: impl FnMut(Entry)) -> Result<Checked> {
    walk(folder, Some(&(0, BEGINNING.to_owned())), |entry, _| {
        each(entry);
        Ok(())
    })
}

/// The same of a folder or an exported file that may begin later: what was before its first entry is not asked for.
///
/// # Errors
/// As [`read`].
pub fn read_part(path: &Path, mut each: impl FnMut(Entry)) -> Result<Checked> {
    walk(path, None, |entry, _| {
        each(entry);
        Ok(())
    })
}

/// Writes the lines of a log as they are, as far as the chain holds.
///
/// # Errors
/// As [`read`], or nothing can be written.
pub fn export(path: &Path, out: &mut impl std::io::Write) -> Result<Checked> {
    walk(path, None, |_, line| {
        out.write_all(line)?;
        Ok(out.write_all(b"\n")?)
    })
}

fn walk(
    path: &Path,
    begin: Option<&(u64, String)>,
    mut each: impl FnMut(Entry, &[u8]) -> Result<()>,
) -> Result<Checked> {
    let (mut entries, mut last) = (0_u64, begin.cloned());
    let files = if path.is_dir() { segments(path)? } else { vec![path.to_owned()] };
    let newest = files.last().cloned();
    for file in &files {
        let mut lines = BufReader::new(fs::File::open(file)?);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            // A holder that runs may be writing its last line just now.
            if line.pop_if(|end| *end == b'\n').is_none() && Some(file) == newest.as_ref() && begin.is_none() {
                break;
            }
            let next = last.as_ref().map_or(entries, |(seq, _)| *seq) + 1;
            let entry: Entry = serde_json::from_slice(&line).with_context(|| format!("entry {next} cannot be read"))?;
            let follows = last.as_ref().is_none_or(|(seq, head)| entry.seq == seq + 1 && entry.prev == *head);
            ensure!(follows, "the chain is broken at entry {next}");
            last = Some((entry.seq, hex::encode(digest(&SHA256, &line).as_ref())));
            entries += 1;
            each(entry, &line)?;
            line.clear();
        }
    }
    Ok(Checked { entries, head: last.map(|(_, head)| head).unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Entry {
        let line = Line { purpose: 1, item: "01".into(), version: 1, path: path.into(), status: "evaluated".into() };
        Entry {
            seq: 0,
            at: 0,
            gateway: "aa".into(),
            operation: "open".into(),
            realm: "07".into(),
            key_id: 1,
            epoch: 0,
            request: "00".into(),
            principal: String::new(),
            authorization: String::new(),
            inputs: vec![line],
            prev: String::new(),
        }
    }

    fn checked(folder: &Path) -> Result<Checked> {
        read(folder, |_| ())
    }

    #[test]
    fn the_chain_goes_on_after_a_restart_and_a_cut_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("log");
        for n in 0..3 {
            let log = Log::open(dir.clone()).expect("opens");
            log.append(entry(&format!("/{n}"))).expect("writes");
            log.append(entry("/x")).expect("writes");
            log.sync();
            drop(log);
            let mut file = append_to(&segments(&dir).expect("lists")[0]).expect("opens");
            file.write_all(b"{\"seq\":").expect("half a line");
        }
        drop(Log::open(dir.clone()).expect("opens"));
        assert_eq!(checked(&dir).expect("whole").entries, 6);
    }

    #[test]
    fn a_changed_or_missing_entry_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Log::open(folder.path().to_owned()).expect("opens");
        for n in 0..5 {
            log.append(entry(&format!("/{n}"))).expect("writes");
        }
        let path = segments(folder.path()).expect("lists").remove(0);
        let text = fs::read_to_string(&path).expect("reads");
        let head = checked(folder.path()).expect("whole").head;
        fs::write(&path, text.replace("/2", "/9")).expect("writes");
        assert_eq!(checked(folder.path()).expect_err("changed").to_string(), "the chain is broken at entry 4");
        let without: Vec<&str> = text.lines().filter(|line| !line.contains("/1")).collect();
        fs::write(&path, without.join("\n")).expect("writes");
        assert_eq!(checked(folder.path()).expect_err("missing").to_string(), "the chain is broken at entry 2");
        // Cutting the end is seen by whoever kept the head.
        let cut: String = text.lines().take(4).map(|line| format!("{line}\n")).collect();
        fs::write(&path, cut).expect("writes");
        assert_ne!(checked(folder.path()).expect("whole as far as it goes").head, head);
    }
}
