//! The list of origins that this witness has records of, kept beside its keys. It says of which logs there must be a record;
//! it does not say of which there need be none, because a keystore may have been restored from its first day. Records are
//! therefore made by `init` and `add-log` only, never by a start.
//!
//! A text file `origins` in the keystore's directory: the line `mentat witness origins 2`, then one origin a line, then `sum `
//! and the SHA-256 of all before it, hexadecimal: a flipped bit must not take an origin from the list. Lists of version 1 have no
//! sum; they are read, and written anew with the next origin.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use service::StartRefusal;
use tlog::Hash;

const FIRST_LINE: &str = "mentat witness origins 2";
/// Of lists without a sum.
const FIRST_LINE_1: &str = "mentat witness origins 1";

/// What a witness has to do with an origin, as far as its list says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Who runs the command says that there never was a record of it, and no list contradicts.
    New,
    /// It has one.
    Listed,
    /// Nobody says so: it must have its record.
    Unlisted,
}

/// The list of one witness.
#[derive(Debug)]
pub(super) struct KnownOrigins {
    path: PathBuf,
    /// `None` when there is no list.
    origins: Option<BTreeSet<String>>,
    adding: Adding,
}

/// Whether origins that are not listed are new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Adding {
    /// The operator says that they are.
    Allowed,
    /// They must have their records.
    Refused,
}

impl KnownOrigins {
    /// Reads the list, if there is one.
    ///
    /// # Errors
    /// [`StartRefusal`] when it cannot be read or is no such list.
    pub(super) fn read(keystore: &Path) -> Result<Self, StartRefusal> {
        let path = keystore.join("origins");
        let unusable = |why: String| {
            StartRefusal::new(
                format!("the list of known origins {} cannot be used: {why}", path.display()),
                "restore it with the keystore it belongs to",
            )
        };
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path, origins: None, adding: Adding::Refused });
            }
            text => text.map_err(|error| unusable(error.to_string()))?,
        };
        let origins = parse(&text).map_err(|why| unusable(why.to_owned()))?;
        Ok(Self { path, origins: Some(origins), adding: Adding::Refused })
    }

    /// Begins an empty list where there is none.
    ///
    /// # Errors
    /// [`StartRefusal`] when it cannot be written.
    pub(super) fn begin(&mut self) -> Result<(), StartRefusal> {
        if self.origins.is_some() { Ok(()) } else { self.write(BTreeSet::new()) }
    }

    /// Takes every origin that is not listed for new: the operator says so. Nothing is written yet.
    #[must_use]
    pub(super) fn adding(mut self) -> Self {
        self.adding = Adding::Allowed;
        self
    }

    /// What the list says of an origin.
    pub(super) fn standing(&self, origin: &str) -> Standing {
        let listed = self.origins.as_ref().is_some_and(|origins| origins.contains(origin));
        match self.adding {
            _ if listed => Standing::Listed,
            Adding::Allowed => Standing::New,
            Adding::Refused => Standing::Unlisted,
        }
    }

    /// Lists origins that have their records now, durably.
    ///
    /// # Errors
    /// [`StartRefusal`] when it cannot be written.
    pub(super) fn add<'a>(&mut self, new: impl Iterator<Item = &'a String>) -> Result<(), StartRefusal> {
        let mut origins = self.origins.clone().unwrap_or_default();
        origins.extend(new.cloned());
        if Some(&origins) == self.origins.as_ref() && self.path.exists() {
            Ok(())
        } else {
            self.write(origins)
        }
    }

    fn write(&mut self, origins: BTreeSet<String>) -> Result<(), StartRefusal> {
        let text = std::iter::once(FIRST_LINE).chain(origins.iter().map(String::as_str));
        let mut text: String = text.flat_map(|line| [line, "\n"]).collect();
        text += &sum_line(&text);
        let temporary = self.path.with_extension("new");
        let written = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, &self.path)?;
            File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        written().map_err(|error| {
            StartRefusal::new(
                format!("cannot write the list of known origins {}", self.path.display()),
                "check the keystore's directory",
            )
            .because(error)
        })?;
        self.origins = Some(origins);
        Ok(())
    }
}

fn parse(text: &str) -> Result<BTreeSet<String>, &'static str> {
    const TORN: &str = "it is not whole";
    let lines = match text.split_once('\n').ok_or(TORN)? {
        (FIRST_LINE, _) => {
            let before = text.strip_suffix('\n').and_then(|text| text.rfind('\n')).ok_or(TORN)? + 1;
            let (listed, sum) = text.split_at_checked(before).ok_or(TORN)?;
            if sum != sum_line(listed) {
                return Err("its last line is not the sum of the others");
            }
            listed
        }
        (FIRST_LINE_1, _) if text.ends_with('\n') => text,
        _ => return Err(TORN),
    };
    Ok(lines.lines().skip(1).map(str::to_owned).collect())
}

fn sum_line(listed: &str) -> String {
    format!("sum {}\n", hex::encode(Hash::digest(listed.as_bytes()).as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_a_frozen_text_and_grows() {
        let folder = tempfile::tempdir().unwrap();
        let mut known = KnownOrigins::read(folder.path()).unwrap();
        assert_eq!(known.standing("a.example"), Standing::Unlisted);
        known.begin().unwrap();
        assert_eq!(
            known.standing("a.example"),
            Standing::Unlisted,
            "a list does not say what there never was"
        );
        known = known.adding();
        assert_eq!(known.standing("a.example"), Standing::New);
        known.add(["b.example".to_owned(), "a.example".to_owned()].iter()).unwrap();
        known.begin().unwrap();
        let text = std::fs::read_to_string(folder.path().join("origins")).unwrap();
        assert_eq!(
            text,
            "mentat witness origins 2\na.example\nb.example\n\
             sum 71e0641751febbfb00805991a4fda95594449bddd6bd92036a2a69ccd5230c28\n"
        );
        let known = KnownOrigins::read(folder.path()).unwrap();
        assert_eq!(known.standing("a.example"), Standing::Listed);
        assert_eq!(known.standing("c.example"), Standing::Unlisted);
        let known = known.adding();
        assert_eq!(known.standing("a.example"), Standing::Listed, "what there was is not begun anew");
        assert_eq!(known.standing("c.example"), Standing::New);
    }

    /// A start looks at the records; the command that adds a log believes the list.
    #[test]
    fn no_flipped_bit_of_the_list_makes_an_origin_new() {
        let folder = tempfile::tempdir().unwrap();
        let mut known = KnownOrigins::read(folder.path()).unwrap();
        known.add(["b.example".to_owned(), "a.example".to_owned()].iter()).unwrap();
        let path = folder.path().join("origins");
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[at / 8] ^= 1 << (at % 8);
            std::fs::write(&path, bad).unwrap();
            let Ok(known) = KnownOrigins::read(folder.path()) else { continue };
            let known = known.adding();
            for origin in ["a.example", "b.example"] {
                assert_eq!(known.standing(origin), Standing::Listed, "bit {at}: {origin}");
            }
        }
    }

    #[test]
    fn a_list_without_a_sum_is_read_and_gets_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("origins");
        std::fs::write(&path, "mentat witness origins 1\na.example\n").unwrap();
        let mut known = KnownOrigins::read(folder.path()).unwrap();
        assert_eq!(known.standing("a.example"), Standing::Listed);
        known.add(["b.example".to_owned()].iter()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("mentat witness origins 2\na.example\nb.example\nsum "), "{text}");
        let known = KnownOrigins::read(folder.path()).unwrap();
        assert_eq!(known.standing("sum"), Standing::Unlisted);
        assert_eq!(known.standing("b.example"), Standing::Listed);
    }

    #[test]
    fn what_is_no_whole_list_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for text in [
            "",
            "a.example\n",
            "mentat witness origins 1",
            "mentat witness origins 2\na.example\n",
            "mentat witness origins 3\n",
        ] {
            std::fs::write(folder.path().join("origins"), text).unwrap();
            assert!(KnownOrigins::read(folder.path()).is_err(), "{text:?}");
        }
    }
}
