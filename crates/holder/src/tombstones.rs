//! What a holder never evaluates again: the marks of deleted versions, in files.
//!
//! A mark is a hash over everything of a record's input but its key and path, so that neither a rename nor a new key brings a
//! deleted version back, and a later item of the same name, whose salt is another one, is not hit. Marks are kept in order in one
//! file, of which memory has every 128th one; the newest lie in a second file and in memory until they are merged into the first.
//! Ten million marks take 320 MB of disk, 2.5 MB of memory, at most 4 MB for the newest, and a lookup reads one page of 4 KiB.
//!
//! What must stay true: a mark that was acknowledged is on the disk; none is ever removed; a crash anywhere loses none; when the files
//! cannot be read nothing is evaluated.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest::{Context as Digest, SHA256};
use volvelle_fragments::Input;

use crate::lock;

/// The name of a deleted version.
pub(crate) type Mark = [u8; 32];
/// Bytes of a mark.
const WIDTH: usize = 32;
/// Marks of one page, of which the first is in memory.
const PAGE: usize = 128;
/// So many newest marks are merged into the file that is in order.
const NEWEST: usize = 65_536;
/// What is in order.
const SORTED: &str = "tombstones.sorted";
/// What came since.
const TAIL: &str = "tombstones.newest";

/// The mark of an input.
pub(crate) fn mark(input: &Input) -> Mark {
    let place = &input.place;
    let mut digest = Digest::new(&SHA256);
    digest.update(b"FDK-tombstone-v1");
    digest.update(&place.realm);
    digest.update(&[place.purpose]);
    digest.update(&place.item);
    digest.update(&place.version.to_be_bytes());
    digest.update(&input.salt);
    let mut mark = [0; WIDTH];
    mark.copy_from_slice(digest.finish().as_ref());
    mark
}

/// Marks in order in a file, and the first one of each page.
struct Sorted {
    file: File,
    count: usize,
    firsts: Vec<Mark>,
}

/// How many marks there are, and all of them combined, whatever their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sum {
    pub(crate) count: u64,
    pub(crate) digest: Mark,
}

impl Sum {
    fn add(&mut self, mark: &Mark) {
        self.count += 1;
        for (all, one) in self.digest.iter_mut().zip(mark) {
            *all ^= one;
        }
    }
}

struct Inner {
    sorted: Sorted,
    newest: HashSet<Mark>,
    sum: Sum,
}

/// The tombstones of a holder.
pub(crate) struct Tombstones {
    folder: PathBuf,
    inner: RwLock<Inner>,
    /// Whoever adds marks has it.
    tail: Mutex<File>,
}

impl Tombstones {
    /// Opens the files in a folder, or begins them.
    pub(crate) fn open(folder: PathBuf) -> Result<Self> {
        let mut sum = Sum::default();
        let sorted = Sorted::open(&folder.join(SORTED), &mut sum)?;
        let path = folder.join(TAIL);
        let tail = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        let tail = tail.with_context(|| format!("cannot write {}", path.display()))?;
        let bytes = fs::read(&path)?;
        // A mark that a crash cut short was acknowledged to nobody.
        let (marks, cut) = bytes.as_chunks::<WIDTH>();
        if !cut.is_empty() {
            tail.set_len(u64::try_from(bytes.len() - cut.len())?)?;
        }
        let mut newest = HashSet::new();
        for mark in marks {
            // A crash between the two steps of a merge leaves marks in both files.
            if !sorted.contains(mark)? && newest.insert(*mark) {
                sum.add(mark);
            }
        }
        Ok(Self { folder, inner: RwLock::new(Inner { sorted, newest, sum }), tail: Mutex::new(tail) })
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an input is of a deleted version.
    pub(crate) fn hit(&self, input: &Input) -> Result<bool> {
        let inner = self.read();
        Ok(inner.sum.count > 0 && inner.contains(&mark(input))?)
    }

    /// Whether there is this mark.
    pub(crate) fn contains(&self, mark: &Mark) -> Result<bool> {
        self.read().contains(mark)
    }

    /// How many there are, and all of them combined.
    pub(crate) fn sum(&self) -> Sum {
        self.read().sum
    }

    /// Adds marks, durably, and tells how many are new.
    pub(crate) fn add(&self, marks: &[Mark]) -> Result<usize> {
        let mut tail = lock(&self.tail);
        let (mut fresh, mut seen): (Vec<Mark>, _) = (Vec::with_capacity(marks.len()), HashSet::new());
        {
            let inner = self.read();
            for mark in marks {
                if seen.insert(mark) && !inner.contains(mark)? {
                    fresh.push(*mark);
                }
            }
        }
        if fresh.is_empty() {
            return Ok(0);
        }
        let length = tail.metadata()?.len();
        let written = tail.write_all(fresh.as_flattened()).and_then(|()| tail.sync_data());
        if let Err(error) = written {
            // What was written of them must not stand before the next ones.
            tail.set_len(length).ok();
            return Err(error).context("the tombstones of this holder cannot be written");
        }
        let full = {
            let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
            for mark in &fresh {
                if inner.newest.insert(*mark) {
                    inner.sum.add(mark);
                }
            }
            inner.newest.len() >= NEWEST
        };
        if full && let Err(error) = self.merge(&mut tail) {
            // They are on the disk all the same; the next ones try it again.
            tracing::error!(error = format!("{error:#}"), "the tombstones of this holder cannot be merged");
        }
        Ok(fresh.len())
    }

    /// Brings the newest marks into the file that is in order. Nobody waits for it but who adds marks.
    fn merge(&self, tail: &mut File) -> Result<()> {
        let path = self.folder.join(SORTED);
        let temporary = path.with_extension("merging");
        fs::remove_file(&temporary).ok();
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        {
            let inner = self.read();
            let mut newest: Vec<Mark> = inner.newest.iter().copied().collect();
            newest.sort_unstable();
            let mut newest = newest.into_iter().peekable();
            let mut out = BufWriter::new(&file);
            if inner.sorted.count > 0 {
                each(&path, |old| {
                    while let Some(new) = newest.next_if(|new| new < old) {
                        out.write_all(&new)?;
                    }
                    Ok(out.write_all(old)?)
                })?;
            }
            for new in newest {
                out.write_all(&new)?;
            }
            out.flush()?;
        }
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(&self.folder)?.sync_all()?;
        let mut sum = Sum::default();
        let sorted = Sorted::open(&path, &mut sum)?;
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        ensure!(sum == inner.sum, "the tombstones of this holder changed while they were merged");
        (inner.sorted, inner.newest) = (sorted, HashSet::new());
        tail.set_len(0)?;
        Ok(tail.sync_all()?)
    }

    /// Marks in order after `after`, at most `limit`.
    pub(crate) fn page(&self, after: Option<&Mark>, limit: usize) -> Result<Vec<Mark>> {
        let inner = self.read();
        let mut marks = inner.sorted.page(after, limit)?;
        marks.extend(inner.newest.iter().filter(|mark| after.is_none_or(|after| *mark > after)));
        marks.sort_unstable();
        marks.truncate(limit);
        Ok(marks)
    }
}

impl Inner {
    fn contains(&self, mark: &Mark) -> Result<bool> {
        Ok(self.newest.contains(mark) || self.sorted.contains(mark)?)
    }
}

impl Sorted {
    /// Reads the file once, checking its order. Adds its marks to `sum`.
    fn open(path: &Path, sum: &mut Sum) -> Result<Self> {
        let file = fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
        let file = file.with_context(|| format!("cannot read {}", path.display()))?;
        let (mut firsts, mut count, mut before) = (Vec::new(), 0_usize, None);
        each(path, |mark| {
            ensure!(before.is_none_or(|before| before < *mark), "{} is damaged at mark {count}", path.display());
            if count.is_multiple_of(PAGE) {
                firsts.push(*mark);
            }
            before = Some(*mark);
            count += 1;
            sum.add(mark);
            Ok(())
        })?;
        Ok(Self { file, count, firsts })
    }

    /// The marks of the page numbered so.
    fn read_page(&self, page: usize) -> Result<Vec<Mark>> {
        let first = page * PAGE;
        let mut marks = vec![[0; WIDTH]; PAGE.min(self.count.saturating_sub(first))];
        let read = self.file.read_exact_at(marks.as_flattened_mut(), u64::try_from(first * WIDTH)?);
        read.context("the tombstones of this holder cannot be read")?;
        Ok(marks)
    }

    fn contains(&self, mark: &Mark) -> Result<bool> {
        let page = self.firsts.partition_point(|first| first <= mark);
        Ok(page > 0 && self.read_page(page - 1)?.binary_search(mark).is_ok())
    }

    fn page(&self, after: Option<&Mark>, limit: usize) -> Result<Vec<Mark>> {
        let first = after.map_or(0, |after| self.firsts.partition_point(|first| first <= after).saturating_sub(1));
        let mut marks = Vec::new();
        for page in first..self.firsts.len() {
            marks.extend(self.read_page(page)?.into_iter().filter(|mark| after.is_none_or(|after| mark > after)));
            if marks.len() >= limit {
                break;
            }
        }
        marks.truncate(limit);
        Ok(marks)
    }
}

/// Every mark of a file, in order.
fn each(path: &Path, mut mark: impl FnMut(&Mark) -> Result<()>) -> Result<()> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    ensure!(length.is_multiple_of(WIDTH as u64), "{} is damaged: its length is odd", path.display());
    let mut file = BufReader::with_capacity(1024 * 1024, file);
    let mut buffer = [0; WIDTH];
    for _ in 0..length / WIDTH as u64 {
        file.read_exact(&mut buffer)?;
        mark(&buffer)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use volvelle_fragments::{Place, Suite};

    use super::*;

    /// A mark like a hash: evenly spread.
    fn nth(n: u64) -> Mark {
        let mut mark = [0; WIDTH];
        mark.copy_from_slice(aws_lc_rs::digest::digest(&SHA256, &n.to_be_bytes()).as_ref());
        mark
    }

    fn input(path: &str, key_id: u32, salt: u8) -> Input {
        let place = Place { realm: [1; 16], key_id, purpose: 1, item: [2; 16], version: 3, path: path.to_owned() };
        Input { suite: Suite::Ristretto255, place, salt: [salt; 32] }
    }

    #[test]
    fn a_mark_outlives_rename_and_new_key_and_hits_no_other_record() {
        let buried = mark(&input("/a", 1, 9));
        assert_eq!(buried, mark(&input("/renamed", 2, 9)));
        assert_eq!(buried, mark(&Input { suite: Suite::P256, ..input("/a", 2, 9) }), "in whichever suite");
        assert_ne!(buried, mark(&input("/a", 1, 8)), "a later item of the same name has another salt");
    }

    #[test]
    fn marks_survive_restarts_merges_and_cut_writes() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || Tombstones::open(folder.path().to_owned()).expect("opens");
        let tombstones = open();
        let marks: Vec<Mark> = (0..NEWEST as u64 + 700).map(nth).collect();
        for chunk in marks.chunks(500) {
            assert_eq!(tombstones.add(chunk).expect("adds"), chunk.len());
            assert_eq!(tombstones.add(chunk).expect("adds"), 0, "each once");
        }
        let all = |tombstones: &Tombstones| {
            assert!(marks.iter().all(|mark| tombstones.contains(mark).expect("reads")));
            assert!((1..2000).all(|n| !tombstones.contains(&nth(u64::MAX - n)).expect("reads")));
            assert_eq!(tombstones.sum().count, marks.len() as u64);
        };
        all(&tombstones);
        assert_eq!(fs::metadata(folder.path().join(SORTED)).expect("there").len() % (NEWEST as u64 * 32), 464 * 32);
        let sum = tombstones.sum();
        drop(tombstones);
        // A crash in the middle of a write.
        let mut tail = fs::OpenOptions::new().append(true).open(folder.path().join(TAIL)).expect("opens");
        tail.write_all(&[1; 17]).expect("writes");
        let tombstones = open();
        all(&tombstones);
        assert_eq!(tombstones.sum(), sum);
        assert_eq!(tombstones.add(&[nth(1 << 40)]).expect("adds"), 1);
        drop(tombstones);
        let tombstones = open();
        assert!(tombstones.contains(&nth(1 << 40)).expect("reads"));
        // In order, page by page, everything once.
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = tombstones.page(after.as_ref(), 999).expect("reads");
            let Some(last) = page.last() else { break };
            after = Some(*last);
            seen.extend(page);
        }
        assert!(seen.is_sorted());
        assert_eq!(seen.len(), marks.len() + 1);
    }

    #[test]
    fn a_crash_between_the_steps_of_a_merge_counts_no_mark_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut marks: Vec<Mark> = (0..300).map(nth).collect();
        fs::write(folder.path().join(TAIL), marks.as_flattened()).expect("writes");
        marks.sort_unstable();
        fs::write(folder.path().join(SORTED), marks.as_flattened()).expect("writes");
        let tombstones = Tombstones::open(folder.path().to_owned()).expect("opens");
        assert_eq!(tombstones.sum().count, 300);
        assert_eq!(tombstones.page(None, 1000).expect("reads"), marks);
    }

    #[test]
    fn a_damaged_file_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(SORTED), [[9; 32], [3; 32]].as_flattened()).expect("writes");
        let error = Tombstones::open(folder.path().to_owned()).err().expect("damaged").to_string();
        assert!(error.contains("damaged at mark 1"), "{error}");
    }
}
