//! The settings file: a line `NAME=value` for each setting.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::error::Error;
use crate::process::private_file::{self, Closed};

/// The path of the file.
pub const PATH: &str = "/etc/novcomet/novcomet.conf";

/// The size of the largest file, in bytes.
const MAX_FILE: u64 = 65_536;

/// What may follow at the beginning of the name of a setting.
const PREFIX: &str = "NOVCOMET_";

/// The settings of a file.
#[derive(Debug, Default)]
pub struct Settings {
    path: PathBuf,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    number: usize,
    name: String,
    value: OsString,
    state: Cell<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody has asked for a setting with this name.
    Unknown,
    /// The environment has another value.
    Overridden,
    /// It counts.
    Used,
}

impl Settings {
    /// Reads the file that is `named`, which must exist, or the one at [`PATH`], which need not.
    /// At a shell it also need not be there for a user who cannot enter its directory. Under a
    /// server that is an error: its rules might be missing.
    ///
    /// # Errors
    /// 503 with the path, and the number of a wrong line.
    pub fn read(named: Option<&OsStr>, is_shell: bool) -> Result<Self, Error> {
        let path = Path::new(named.unwrap_or(OsStr::new(PATH)));
        let refuse = |why: &str| Error::Misconfigured { log: format!("{} {why}", path.display()) };
        if !path.is_absolute() {
            return Err(refuse("in NOVCOMET_CONF is not the absolute path of a file"));
        }
        let is_hidden = || is_shell && path.symlink_metadata().is_err();
        let file = match private_file::open(path) {
            Err(Closed(Errno::NOENT)) if named.is_none() => return Ok(Self::default()),
            Err(Closed(Errno::ACCESS)) if named.is_none() && is_hidden() => {
                return Ok(Self::default());
            }
            opened => opened.map_err(|cause| refuse(&cause.to_string()))?,
        };
        let text = private_file::read(file, MAX_FILE).map_err(|why| refuse(&why))?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &[u8]) -> Result<Self, Error> {
        let mut settings = Self { path: path.into(), lines: Vec::new() };
        // It may be about to be written, and its rules would be missing.
        if text.last() != Some(&b'\n') {
            let why = "is empty or ends within a line; end it with a line feed";
            return Err(Error::Misconfigured { log: format!("{} {why}", path.display()) });
        }
        for (line, number) in text.split(|&byte| byte == b'\n').zip(1..) {
            let line = line.trim_ascii();
            if !line.is_empty() && !line.starts_with(b"#") {
                settings.add(number, line)?;
            }
        }
        Ok(settings)
    }

    /// A wrong line is not shown: it may be the rest of a secret.
    fn add(&mut self, number: usize, line: &[u8]) -> Result<(), Error> {
        let Some((name, value)) = split(line) else {
            return Err(self.wrong(number, "this is not NOVCOMET_…=value; correct it"));
        };
        if self.lines.iter().any(|line| line.name == name) {
            return Err(self.wrong(number, &format!("{name} is set twice; remove one")));
        }
        let value = OsStr::from_bytes(value).to_owned();
        let state = Cell::new(State::Unknown);
        self.lines.push(Line { number, name: name.into(), value, state });
        Ok(())
    }

    /// The value of the setting `name`: that of the environment, or else that of the file. An
    /// empty one counts as not set.
    #[must_use]
    pub fn get(&self, name: &str, environment: Option<OsString>) -> Option<OsString> {
        let Some(line) = self.lines.iter().find(|line| line.name == name) else {
            return environment;
        };
        line.state.set(if environment.is_some() { State::Overridden } else { State::Used });
        let in_file = || Some(&line.value).filter(|value| !value.is_empty()).cloned();
        environment.or_else(in_file)
    }

    /// The error about the value of a setting, with the line that it is from.
    #[must_use]
    pub fn locate(&self, error: Error) -> Error {
        let Error::Misconfigured { log } = &error else { return error };
        let is_named = |line: &&Line| {
            let rest = log.strip_prefix(&line.name).unwrap_or_default();
            rest.starts_with('=') && line.state.get() == State::Used
        };
        let line = self.lines.iter().find(is_named).map(|line| line.number);
        line.map_or(error.clone(), |number| self.wrong(number, log))
    }

    /// Whether each name in the file is known: [`get`](Self::get) has been asked for it. A
    /// misspelt rule would protect nothing.
    ///
    /// # Errors
    /// 503 with the first other name.
    pub fn check_names(&self) -> Result<(), Error> {
        match self.lines.iter().find(|line| line.state.get() == State::Unknown) {
            Some(Line { number, name, .. }) => {
                Err(self.wrong(*number, &format!("{name} is no setting; correct it")))
            }
            None => Ok(()),
        }
    }

    fn wrong(&self, number: usize, why: &str) -> Error {
        let log = format!("{}, line {number}: {why}", self.path.display());
        Error::Misconfigured { log }
    }
}

/// The name of a setting, and its value up to the end of the line.
fn split(line: &[u8]) -> Option<(&str, &[u8])> {
    let at = line.iter().position(|&byte| byte == b'=')?;
    let name = std::str::from_utf8(&line[..at]).ok()?.trim_end();
    let rest = name.strip_prefix(PREFIX)?;
    let is_name = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
    (!rest.is_empty() && rest.bytes().all(is_name)).then(|| (name, line[at + 1..].trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        let parsed = Settings::parse(Path::new("/f"), format!("{text}\n").as_bytes());
        parsed.map_err(|error| error.log_line().unwrap())
    }

    /// Its rules would be missing.
    #[test]
    fn file_that_is_being_written_is_refused() {
        for text in ["", "NOVCOMET_PUBLISH=token\nNOVCOMET_PRI"] {
            let error = Settings::parse(Path::new("/f"), text.as_bytes()).err().unwrap();
            assert!(error.log_line().unwrap().contains("ends within a line"), "{text}");
        }
    }

    #[test]
    fn value_is_the_rest_of_the_line() {
        let text = "\n# NOVCOMET_A=0\n NOVCOMET_A = a=b # c \r\n\tNOVCOMET_B=\nNOVCOMET_C=\"x\"";
        let settings = parse(text).unwrap();
        let get = |name: &str| settings.get(name, None).map(|value| value.into_string().unwrap());
        assert_eq!(get("NOVCOMET_A").as_deref(), Some("a=b # c"));
        assert_eq!((get("NOVCOMET_B"), get("NOVCOMET_C").as_deref()), (None, Some("\"x\"")));
        assert_eq!(get("NOVCOMET_D"), None);
        assert_eq!(settings.get("NOVCOMET_A", Some("e".into())), Some("e".into()));
        settings.check_names().unwrap();
    }

    #[test]
    fn wrong_line_is_named_and_not_shown() {
        for line in ["s3cret", "=s3cret", "export NOVCOMET_A=s3cret", "NOVCOMET_=x", "A=s3cret"] {
            let error = parse(&format!("\nNOVCOMET_A=s3cret\n{line}\n")).unwrap_err();
            assert!(error.starts_with("/f, line 3: this is not"), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        let error = parse("NOVCOMET_A=1\nNOVCOMET_A=2").unwrap_err();
        assert!(error.starts_with("/f, line 2: NOVCOMET_A is set twice"), "{error}");
    }

    #[test]
    fn name_that_nobody_asks_for_is_no_setting() {
        let settings = parse("NOVCOMET_A=1\n#\nNOVCOMET_B=s3cret").unwrap();
        assert!(settings.get("NOVCOMET_A", None).is_some());
        let error = settings.check_names().unwrap_err().log_line().unwrap();
        assert_eq!(error, "/f, line 3: NOVCOMET_B is no setting; correct it");
    }

    #[test]
    fn invalid_value_is_located_where_it_counts() {
        let settings = parse("NOVCOMET_A=1\nNOVCOMET_AB=2\nNOVCOMET_C=3").unwrap();
        let _ = settings.get("NOVCOMET_C", Some("0".into()));
        let _ = ["NOVCOMET_A", "NOVCOMET_AB"].map(|name| settings.get(name, None));
        let located = |name: &str| {
            let error = settings.locate(Error::setting(name, "x", "y"));
            error.log_line().unwrap().split("=\"x\"").next().unwrap().to_owned()
        };
        assert_eq!(located("NOVCOMET_AB"), "/f, line 2: NOVCOMET_AB");
        assert_eq!(located("NOVCOMET_C"), "NOVCOMET_C", "the environment's");
        assert_eq!(settings.locate(Error::Unauthorized), Error::Unauthorized);
    }
}
