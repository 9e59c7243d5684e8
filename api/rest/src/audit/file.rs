//! The log's file: lines appended, the chain carried on over restarts, files rotated.
//!
//! Invariants
//! - A line is written whole or, after a crash, taken off again before the next one.
//! - A file that is rotated away ends where the next one's chain goes on.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::chain::Head;

/// Bytes of one line that are read back, at most: far more than a request's body and its
/// answer may have.
const MAX_LINE_BYTES: u64 = 64 * 1024 * 1024;

/// Where events are written.
#[derive(Debug, Clone)]
pub struct LogFile {
    /// The file; `-` is standard output.
    pub path: PathBuf,
    /// Bytes after which a new file is begun; 0: never.
    pub max_bytes: u64,
    /// Rotated files that are kept; 0: all.
    pub max_backups: usize,
    /// For how long; zero: for ever.
    pub max_age: Duration,
}

/// The open log.
pub(super) struct Writer {
    settings: LogFile,
    file: Option<File>,
    bytes: u64,
    pub(super) head: Head,
}

impl Writer {
    /// Opens the file and finds where its chain stands.
    pub(super) fn open(settings: LogFile) -> io::Result<Self> {
        let mut writer = Self {
            settings,
            file: None,
            bytes: 0,
            head: Head::default(),
        };
        if writer.settings.path.as_os_str() == "-" {
            return Ok(writer);
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&writer.settings.path)?;
        let (whole, last) = last_line(&mut file)?;
        if file.metadata()?.len() > whole {
            tracing::warn!("the last line of the audit log was cut off in writing");
            file.set_len(whole)?;
        }
        // A file that was begun and not written to goes on where the one before ended.
        let last = match last {
            Some(last) => Some(last),
            None => match writer.backups()?.pop() {
                Some(newest) => last_line(&mut File::open(newest)?)?.1,
                None => None,
            },
        };
        if let Some(last) = last {
            writer.head = Head::of_line(&last).unwrap_or_default();
        }
        writer.bytes = whole;
        writer.file = Some(file);
        Ok(writer)
    }

    /// Appends a line; `after` is the chain with it.
    pub(super) fn append(&mut self, line: &str, after: Head) -> io::Result<()> {
        let line = format!("{line}\n");
        match &mut self.file {
            None => io::stdout().lock().write_all(line.as_bytes())?,
            Some(file) => file.write_all(line.as_bytes())?,
        }
        self.bytes += line.len() as u64;
        self.head = after;
        Ok(())
    }

    /// Whether a new file is due.
    pub(super) fn is_full(&self) -> bool {
        let max = self.settings.max_bytes;
        self.file.is_some() && max > 0 && self.bytes >= max
    }

    /// Puts the file aside under a name with the time, and begins a new one.
    pub(super) fn rotate(&mut self, stamp: &str) -> io::Result<()> {
        let path = &self.settings.path;
        let aside = path.with_file_name(format!(
            "{}-{stamp}{}",
            part(path, Path::file_stem),
            extension(path)
        ));
        std::fs::rename(path, aside)?;
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        self.file = Some(file);
        self.bytes = 0;
        self.prune()
    }

    /// Rotated files, the newest last.
    fn backups(&self) -> io::Result<Vec<PathBuf>> {
        let path = &self.settings.path;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let prefix = format!("{}-", part(path, Path::file_stem));
        let suffix = extension(path);
        let mut backups = Vec::new();
        for entry in std::fs::read_dir(folder.unwrap_or(Path::new(".")))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&prefix) && name.ends_with(&suffix) && entry.path() != *path {
                backups.push(entry.path());
            }
        }
        // Names end with their time.
        backups.sort();
        Ok(backups)
    }

    fn prune(&self) -> io::Result<()> {
        let backups = self.backups()?;
        let LogFile {
            max_backups,
            max_age,
            ..
        } = self.settings;
        let kept = if max_backups == 0 {
            usize::MAX
        } else {
            max_backups
        };
        let surplus = backups.len().saturating_sub(kept);
        for (at, path) in backups.into_iter().enumerate() {
            let age = std::fs::metadata(&path)?.modified()?;
            let age = SystemTime::now().duration_since(age).unwrap_or_default();
            if at < surplus || (!max_age.is_zero() && age > max_age) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn part(path: &Path, of: fn(&Path) -> Option<&std::ffi::OsStr>) -> String {
    of(path).map_or_else(String::new, |part| part.to_string_lossy().into_owned())
}

fn extension(path: &Path) -> String {
    match part(path, Path::extension).as_str() {
        "" => String::new(),
        extension => format!(".{extension}"),
    }
}

/// Bytes up to the end of the last whole line, and that line.
fn last_line(file: &mut File) -> io::Result<(u64, Option<String>)> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_LINE_BYTES)))?;
    let mut at = length.saturating_sub(MAX_LINE_BYTES);
    let mut whole = at;
    let mut last = None;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)? as u64;
        if read == 0 {
            return Ok((whole, last));
        }
        at += read;
        if line.last() == Some(&b'\n') {
            line.pop();
            whole = at;
            last = String::from_utf8(line.clone()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::verify;
    use serde_json::json;

    #[test]
    fn a_chain_goes_on_over_restarts_crashes_and_files() {
        let folder = tempfile::tempdir().unwrap();
        let settings = LogFile {
            path: folder.path().join("audit.log"),
            max_bytes: 400,
            max_backups: 0,
            max_age: Duration::ZERO,
        };
        let mut stamps = 0;
        for _ in 0..4 {
            let mut writer = Writer::open(settings.clone()).unwrap();
            for n in 0..3 {
                let (line, after) = writer.head.event(json!({ "n": n }));
                writer.append(&line, after).unwrap();
                if writer.is_full() {
                    stamps += 1;
                    writer.rotate(&format!("{stamps:03}")).unwrap();
                }
            }
            // A line that a crash cut off.
            let mut file = OpenOptions::new()
                .append(true)
                .open(&settings.path)
                .unwrap();
            file.write_all(b"{\"kind\":\"Ev").unwrap();
        }
        drop(Writer::open(settings).unwrap());
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(names.len() > 2, "{names:?}");
        // `audit-001.log` and its like come before `audit.log`.
        names.sort();
        let text: String = names
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect();
        let verified = verify(text.lines(), &|_, _| Ok(())).expect("one chain");
        assert_eq!(verified.last, text.lines().count() as u64);
    }
}
