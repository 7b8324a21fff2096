//! Sessions as files beside the events: `ID.session`, for their owner only.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, RenameFlags, openat, statat};
use rustix::process::geteuid;

use super::dir_entry::DirEntry;
use super::fault::{failed, lock_held};
use super::name::{session_group, session_name};
use super::publisher::{LOCK_PAUSE, OWNER_RW, TempFile};
use super::{FileStore, PUBLISH_LIMIT};
use crate::error::Error;
use crate::event::session::SessionId;
use crate::event::{Cursor, Since};
use crate::process::sys;
use crate::store::{Allowance, Reading, Sessions};

/// The longest log that still grows, in bytes. A client that changes its subscriptions without
/// an end would otherwise fill the store.
const MAX_LOG: u64 = 65_536;

/// The bytes of a log that are read. Notes are added beyond its limit.
const MAX_READ: u64 = 4 * MAX_LOG;

/// The bytes of the directory that are read at once.
const LISTING: usize = 16_384;

/// The place in a session's topic after this many bytes: a log never shrinks while somebody
/// watches it, and its time moves only every few milliseconds.
fn place(bytes: u64) -> Cursor {
    Cursor::from_micros(Cursor::SMALLEST.micros() + 1 + bytes)
}

/// What a subscriber to a session's topic is to know. A log that is gone, or another one,
/// is news too.
pub(super) fn read_session(path: &Path, since: Since) -> Result<Reading, Error> {
    let found = match statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => place(u64::try_from(found.st_size).unwrap_or(0)),
        Err(rustix::io::Errno::NOENT) => Cursor::SMALLEST,
        Err(error) => return Err(failed("look at", path)(error.into())),
    };
    let gap = matches!(since, Since::Cursor(since) if found < since);
    Ok(Reading { gap, ..Reading::quiet(found) })
}

impl FileStore {
    fn log_of(&self, id: &SessionId) -> Log<'_> {
        self.log_named(session_name(id))
    }

    fn log_named(&self, name: PathBuf) -> Log<'_> {
        Log { store: self, path: self.path.join(&name), name }
    }

    /// How many logs there are, and how many of them of this address. Old ones of the address,
    /// and some others, are removed first.
    fn count(&self, id: &SessionId, kept: Duration) -> io::Result<(usize, usize)> {
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(&self.directory, ".", how, Mode::empty())?;
        let mut buffer = [MaybeUninit::uninit(); LISTING];
        let mut entries = RawDir::new(opened.as_fd(), &mut buffer);
        let (mut all, mut here) = (0, 0);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let Some(group) = session_group(name) else { continue };
            let is_here = group == id.group();
            let log = self.log_named(OsStr::from_bytes(name).into());
            if (is_here || all % SWEEP == 0) && log.is_old(kept) {
                let _ = log.entry().remove();
                continue;
            }
            all += 1;
            here += usize::from(is_here);
        }
        Ok((all, here))
    }
}

/// One of so many logs of other addresses is looked at when a session begins.
const SWEEP: usize = 8;

/// The log of one session.
struct Log<'s> {
    store: &'s FileStore,
    name: PathBuf,
    path: PathBuf,
}

impl Log<'_> {
    fn entry(&self) -> DirEntry<'_> {
        DirEntry { directory: self.store.directory.as_fd(), name: &self.name, path: &self.path }
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        failed(doing, &self.path)
    }

    /// `None` if there is none, or if another user may have written it.
    fn open(&self, access: OFlags) -> Result<Option<(File, Metadata)>, Error> {
        let file = match self.entry().open(access) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("open")(error)),
        };
        let found = file.metadata().map_err(self.failed("look at"))?;
        Ok(is_own(&found).then_some((file, found)))
    }

    fn is_old(&self, kept: Duration) -> bool {
        let found = self.open(OFlags::RDONLY).ok().flatten();
        let age = |found: &Metadata| found.modified().ok()?.elapsed().ok();
        found.and_then(|(_, found)| age(&found)).is_some_and(|age| age > kept)
    }

    /// Opens the log and locks it against those that shorten it.
    fn locked(&self) -> Result<Option<(File, Metadata)>, Error> {
        let deadline = Instant::now() + PUBLISH_LIMIT;
        loop {
            let Some((file, _)) = self.open(OFlags::WRONLY | OFlags::APPEND)? else {
                return Ok(None);
            };
            while !sys::try_lock(&file).map_err(self.failed("lock"))? {
                if Instant::now() >= deadline {
                    return Err(lock_held(&self.path));
                }
                thread::sleep(LOCK_PAUSE);
            }
            let found = file.metadata().map_err(self.failed("look at"))?;
            // One that was replaced meanwhile has no name.
            if found.nlink() > 0 {
                return Ok(Some((file, found)));
            }
        }
    }
}

/// Whether nobody else may have written it.
fn is_own(found: &Metadata) -> bool {
    let is_open = Mode::from_raw_mode(found.mode()).intersects(Mode::RWXG | Mode::RWXO);
    let is_mine = found.uid() == geteuid().as_raw() && !is_open;
    is_mine && found.is_file() && found.nlink() <= 1
}

/// An entry begins a line too, because the one before may be torn.
fn line(entry: &str) -> Vec<u8> {
    format!("\n{entry}\n").into_bytes()
}

impl Sessions for FileStore {
    fn begin(&self, id: &SessionId, entry: &str, most: &Allowance) -> Result<bool, Error> {
        let log = self.log_of(id);
        let (all, here) = self.count(id, most.kept).map_err(failed("list", &self.path))?;
        if all >= most.sessions || here >= most.of_address {
            return Ok(false);
        }
        self.quota().check_space(1, entry.len())?;
        let created = log.entry().create(Mode::from_raw_mode(OWNER_RW));
        let mut file = created.map_err(log.failed("create"))?;
        file.write_all(&line(entry)).map(|()| true).map_err(|error| {
            // It would count, though nobody knows its name.
            let _ = log.entry().remove();
            log.failed("write to")(error)
        })
    }

    fn read(&self, id: &SessionId) -> Result<Option<String>, Error> {
        let log = self.log_of(id);
        let Some((file, _)) = log.open(OFlags::RDONLY)? else { return Ok(None) };
        let mut entries = Vec::new();
        file.take(MAX_READ).read_to_end(&mut entries).map_err(log.failed("read"))?;
        Ok(Some(String::from_utf8_lossy(&entries).into_owned()))
    }

    fn append(&self, id: &SessionId, entry: &str, _: Duration) -> Result<Option<Cursor>, Error> {
        let log = self.log_of(id);
        let Some((mut file, found)) = log.locked()? else { return Ok(None) };
        if found.len() > MAX_LOG {
            return Err(Error::TooLarge("a session has too many changes; connect first".into()));
        }
        self.quota().check_space(0, entry.len())?;
        file.write_all(&line(entry)).map_err(log.failed("write to"))?;
        let length = file.metadata().map_err(log.failed("look at"))?.len();
        Ok(Some(place(length)))
    }

    fn shorten(&self, id: &SessionId, read: &str, entries: &str, _: Duration) -> Result<(), Error> {
        let log = self.log_of(id);
        let Some((_lock, found)) = log.locked()? else { return Ok(()) };
        if found.len() > MAX_READ || Sessions::read(self, id)?.is_none_or(|found| found != read) {
            return Ok(());
        }
        let temp = TempFile::create(log.entry(), OWNER_RW).map_err(log.failed("shorten"))?;
        temp.write(entries.as_bytes())
            .and_then(|()| temp.place(RenameFlags::empty()))
            .map_err(log.failed("shorten"))
    }

    fn end(&self, id: &SessionId) -> Result<(), Error> {
        let log = self.log_of(id);
        // Otherwise one that is written anew at this moment would come back.
        match log.locked()? {
            Some(_lock) => log.entry().remove().map_err(log.failed("remove")),
            None => Ok(()),
        }
    }

    fn open(&self, id: &SessionId) -> Result<Option<OwnedFd>, Error> {
        let opened = self.log_of(id).open(OFlags::WRONLY | OFlags::APPEND)?;
        Ok(opened.map(|(file, _)| file.into()))
    }

    fn note(
        &self,
        id: &SessionId,
        opened: Option<&OwnedFd>,
        entry: &str,
        _: Duration,
    ) -> Result<(), Error> {
        let Some(opened) = opened else { return Ok(()) };
        let line = line(entry);
        let wrote = match rustix::io::write(opened, &line) {
            Ok(bytes) if bytes == line.len() => Ok(()),
            // The disk was full before the end of the line.
            Ok(_) => Err(rustix::io::Errno::NOSPC.into()),
            Err(error) => Err(error.into()),
        };
        wrote.map_err(self.log_of(id).failed("write to"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::event::Topic;
    use crate::event::session::SECRET;
    use crate::store::{Limits, Retention, Store};

    const MOST: Allowance = Allowance { sessions: 3, of_address: 2, kept: Duration::from_secs(60) };

    const KEPT: Retention =
        Retention { messages: 1, bytes: 1, age: Duration::from_secs(1), max_file_bytes: 1 };

    fn store(name: &str) -> (PathBuf, FileStore) {
        let name = format!("novcomet-sessions-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        (path.clone(), FileStore::open(path, KEPT, Limits::NONE).unwrap())
    }

    fn id(group: u32, number: u8) -> SessionId {
        SessionId::new(group, [number; SECRET])
    }

    fn entries(store: &FileStore, id: &SessionId) -> Vec<String> {
        let log = Sessions::read(store, id).unwrap().unwrap();
        log.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn log_grows_until_it_is_shortened() {
        let (path, store) = store("log");
        let id = id(1, 1);
        assert!(store.begin(&id, "a", &MOST).unwrap());
        let after = store.append(&id, "b", MOST.kept).unwrap().unwrap();
        let file = Sessions::open(&store, &id).unwrap();
        store.note(&id, file.as_ref(), "c", MOST.kept).unwrap();
        assert_eq!(entries(&store, &id), ["a", "b", "c"]);
        let topic = Topic::of_session(&id);
        let reading = Store::read(&store, &topic, Since::Cursor(after), 9).unwrap();
        assert!(reading.standing > after && !reading.gap);
        let log = Sessions::read(&store, &id).unwrap().unwrap();
        store.shorten(&id, &log[..log.len() - 1], "no", MOST.kept).unwrap();
        store.shorten(&id, &log.replace('a', "z"), "no", MOST.kept).unwrap();
        assert_eq!(entries(&store, &id).len(), 3, "it has changed");
        store.shorten(&id, &log, "d", MOST.kept).unwrap();
        assert_eq!(entries(&store, &id), ["d"]);
        assert!(Store::read(&store, &topic, Since::Cursor(after), 9).unwrap().gap, "another log");
        store.note(&id, file.as_ref(), "lost", MOST.kept).unwrap();
        assert_eq!(entries(&store, &id), ["d"], "the note was for the log before");
        store.end(&id).unwrap();
        assert!(Store::read(&store, &topic, Since::Cursor(after), 9).unwrap().gap, "no log");
        assert_eq!(store.append(&id, "e", MOST.kept).unwrap(), None);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn sessions_are_bounded() {
        let (path, store) = store("bounds");
        assert!(store.begin(&id(1, 1), "a", &MOST).unwrap());
        assert!(store.begin(&id(1, 2), "a", &MOST).unwrap());
        assert!(!store.begin(&id(1, 3), "a", &MOST).unwrap(), "of one address");
        assert!(store.begin(&id(2, 1), "a", &MOST).unwrap());
        assert!(!store.begin(&id(3, 1), "a", &MOST).unwrap(), "in all");
        let old = filetime::FileTime::from_unix_time(1_000_000_000, 0);
        filetime::set_file_mtime(path.join(session_name(&id(1, 1))), old).unwrap();
        assert!(store.begin(&id(1, 3), "a", &MOST).unwrap(), "an old one gives way");
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn file_that_others_may_write_is_no_log() {
        let (path, store) = store("planted");
        let (planted, linked) = (id(1, 1), id(1, 2));
        fs::write(path.join(session_name(&planted)), "a").unwrap();
        let mode = fs::Permissions::from_mode(0o620);
        fs::set_permissions(path.join(session_name(&planted)), mode).unwrap();
        store.begin(&linked, "a", &MOST).unwrap();
        fs::hard_link(path.join(session_name(&linked)), path.join("other")).unwrap();
        for id in [planted, linked] {
            assert_eq!(Sessions::read(&store, &id).unwrap(), None);
            assert_eq!(store.append(&id, "b", MOST.kept).unwrap(), None);
        }
        fs::remove_dir_all(path).unwrap();
    }

    /// Otherwise a log that is written anew at that moment would come back.
    #[test]
    fn end_waits_for_those_who_shorten() {
        let (path, store) = store("end");
        let id = id(1, 1);
        assert!(store.begin(&id, "a", &MOST).unwrap());
        let lock = store.log_of(&id).locked().unwrap();
        let other = FileStore::open(path.clone(), KEPT, Limits::NONE).unwrap();
        assert!(other.end(&id).is_err() && Sessions::read(&store, &id).unwrap().is_some());
        drop(lock);
        store.end(&id).unwrap();
        assert_eq!(Sessions::read(&store, &id).unwrap(), None);
        fs::remove_dir_all(path).unwrap();
    }
}
