//! Policy files (C2SP tlog-policy): which logs are trusted, and which witnesses must have cosigned.
//!
//! ```text
//! log example.com/log+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k
//! witness w1 w1.example+…+… https://w1.example/
//! witness w2 w2.example+…+…
//! group both all w1 w2
//! quorum both
//! ```

use alloc::vec::Vec;

use crate::checkpoint::{Checkpoint, VerifiedCheckpoint};
use crate::decimal;
use crate::error::Error;
use crate::note::{Note, VerifierKey};
use crate::signature::SignatureVerifier;

/// Largest file.
pub const MAX_POLICY_SIZE: usize = 512 * 1024;

/// Most logs, witnesses and groups, each. The specification demands at least 32.
pub const MAX_ITEMS: usize = 128;

/// A log and where it can be reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Log {
    /// Its key; the key's name is the log's origin.
    pub key: VerifierKey,
    /// Its URL prefix, when the file gives one.
    pub url: Option<Vec<u8>>,
}

/// A witness and where it can be reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Witness {
    /// Name within the file; names are bytes, not necessarily UTF-8.
    pub name: Vec<u8>,
    /// Its cosigning key.
    pub key: VerifierKey,
    /// Its submission prefix, when the file gives one.
    pub url: Option<Vec<u8>>,
}

/// What a group or the quorum counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Member {
    Group(usize),
    Witness(usize),
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Group {
    name: Vec<u8>,
    threshold: usize,
    members: Vec<Member>,
}

/// A parsed policy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    logs: Vec<Log>,
    witnesses: Vec<Witness>,
    groups: Vec<Group>,
    /// `None` for `quorum none`.
    quorum: Option<Member>,
}

impl Policy {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::UnsupportedKey`] for a key that cannot have its role, [`Error::Malformed`]
    /// with the offset of the line that breaks a rule.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_POLICY_SIZE {
            return Err(Error::TooLarge { what: "policy", limit: MAX_POLICY_SIZE });
        }
        let mut parser = Parser::default();
        let mut at = 0;
        for line in bytes.split(|byte| *byte == b'\n') {
            parser.line(line, at)?;
            at += line.len() + 1;
        }
        let quorum =
            parser.quorum.ok_or_else(|| Error::malformed("policy has no quorum line", bytes.len()))?;
        Ok(Self { logs: parser.logs, witnesses: parser.witnesses, groups: parser.groups, quorum })
    }

    /// The logs, in the order of the file.
    #[must_use]
    pub fn logs(&self) -> &[Log] {
        &self.logs
    }

    /// The witnesses, in the order of the file.
    #[must_use]
    pub fn witnesses(&self) -> &[Witness] {
        &self.witnesses
    }

    /// True when no cosignature is needed (`quorum none`).
    #[must_use]
    pub fn is_witnessless(&self) -> bool {
        self.quorum.is_none()
    }

    /// Decides whether these witnesses, by their place in [`witnesses`](Self::witnesses), are a quorum.
    #[must_use]
    pub fn evaluate(&self, cosigned: impl Fn(usize) -> bool) -> bool {
        // Groups name earlier lines only, so one pass in file order settles all of them.
        let mut settled = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            let count = group.members.iter().filter(|member| counts(**member, &settled, &cosigned)).count();
            settled.push(count >= group.threshold);
        }
        self.quorum.is_none_or(|quorum| counts(quorum, &settled, &cosigned))
    }

    /// Opens a checkpoint: a listed log signed it, every line of a listed key is valid, and the quorum is
    /// reached. A cosignature with time 0 does not count: it does not say that the witness saw no larger tree.
    ///
    /// # Errors
    /// [`Error::NoTrustedSignature`] also for an origin that is not listed, [`Error::QuorumNotReached`], and as
    /// [`VerifiedCheckpoint::open`].
    pub fn open(&self, note: &[u8], verifier: &dyn SignatureVerifier) -> Result<VerifiedCheckpoint, Error> {
        let origin = Checkpoint::parse(Note::parse(note)?.text())?;
        let origin = origin.origin();
        let logs = self.logs.iter().filter(|log| log.key.name() == origin).map(|log| log.key.clone());
        let mut keys: Vec<VerifierKey> = logs.collect();
        if keys.is_empty() {
            return Err(Error::NoTrustedSignature);
        }
        let first_witness = keys.len();
        keys.extend(self.witnesses.iter().map(|witness| witness.key.clone()));
        let checkpoint = VerifiedCheckpoint::open(note, origin, &keys, verifier)?;
        // A witness may bear the log's name and have a key of a type with which logs sign: it is no log for that.
        if !checkpoint.log_signatures().iter().any(|line| line.key_index() < first_witness) {
            return Err(Error::NoTrustedSignature);
        }
        let cosigned = |witness: usize| {
            checkpoint
                .cosignatures()
                .iter()
                .any(|line| line.key_index() == first_witness + witness && line.time().is_some())
        };
        if self.evaluate(cosigned) { Ok(checkpoint) } else { Err(Error::QuorumNotReached) }
    }
}

fn counts(member: Member, settled: &[bool], cosigned: &impl Fn(usize) -> bool) -> bool {
    match member {
        Member::Group(group) => settled.get(group).copied().unwrap_or(false),
        Member::Witness(witness) => cosigned(witness),
    }
}

#[derive(Default)]
struct Parser {
    logs: Vec<Log>,
    witnesses: Vec<Witness>,
    groups: Vec<Group>,
    /// Outer: seen a quorum line.
    quorum: Option<Option<Member>>,
    members: Vec<Member>,
}

impl Parser {
    fn line(&mut self, line: &[u8], at: usize) -> Result<(), Error> {
        let malformed = |what| Err(Error::malformed(what, at));
        if line.iter().any(|byte| !matches!(byte, b'\t' | b' '..=b'~' | 0x80..)) {
            return malformed("policy holds a control character");
        }
        let words: Vec<&[u8]> =
            line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with(b"#") => Ok(()),
            [b"log", key] => self.log(key, None, at),
            [b"log", key, url] => self.log(key, Some(url), at),
            [b"witness", name, key] => self.witness(name, key, None, at),
            [b"witness", name, key, url] => self.witness(name, key, Some(url), at),
            [b"group", name, threshold, members @ ..] => self.group(name, threshold, members, at),
            [b"quorum", _] if self.quorum.is_some() => malformed("policy has a second quorum line"),
            [b"quorum", b"none"] => {
                self.quorum = Some(None);
                Ok(())
            }
            [b"quorum", name] => match self.find(name) {
                Some(member) => {
                    self.quorum = Some(Some(member));
                    Ok(())
                }
                None => malformed("quorum names nothing on an earlier line"),
            },
            _ => malformed("policy line is not a log, witness, group or quorum"),
        }
    }

    fn log(&mut self, key: &[u8], url: Option<&[u8]>, at: usize) -> Result<(), Error> {
        let key = self.key(key, at)?;
        if !key.kind().signs_checkpoints() {
            return Err(Error::UnsupportedKey { kind: key.kind().byte() });
        }
        check_count(self.logs.len(), "policy logs")?;
        self.logs.push(Log { key, url: url.map(<[u8]>::to_vec) });
        Ok(())
    }

    fn witness(&mut self, name: &[u8], key: &[u8], url: Option<&[u8]>, at: usize) -> Result<(), Error> {
        let key = self.key(key, at)?;
        if !key.kind().cosigns() {
            return Err(Error::UnsupportedKey { kind: key.kind().byte() });
        }
        self.check_new(name, at)?;
        check_count(self.witnesses.len(), "policy witnesses")?;
        self.witnesses.push(Witness { name: name.to_vec(), key, url: url.map(<[u8]>::to_vec) });
        Ok(())
    }

    fn group(&mut self, name: &[u8], threshold: &[u8], members: &[&[u8]], at: usize) -> Result<(), Error> {
        self.check_new(name, at)?;
        check_count(self.groups.len(), "policy groups")?;
        let mut found = Vec::with_capacity(members.len());
        for member in members {
            let member = self
                .find(member)
                .ok_or_else(|| Error::malformed("group member is not on an earlier line", at))?;
            if self.members.contains(&member) {
                return Err(Error::malformed("group member is a member already", at));
            }
            self.members.push(member);
            found.push(member);
        }
        let count = found.len();
        let threshold = match threshold {
            b"all" => Some(count),
            b"any" => Some(1),
            number => core::str::from_utf8(number)
                .ok()
                .and_then(decimal::parse)
                .and_then(|number| usize::try_from(number).ok()),
        };
        match threshold {
            Some(threshold) if (1..=count).contains(&threshold) => {
                self.groups.push(Group { name: name.to_vec(), threshold, members: found });
                Ok(())
            }
            _ => Err(Error::malformed("group threshold is not between 1 and its members", at)),
        }
    }

    fn key(&self, text: &[u8], at: usize) -> Result<VerifierKey, Error> {
        let text =
            core::str::from_utf8(text).map_err(|_| Error::malformed("verifier key is not UTF-8", at))?;
        let key = VerifierKey::parse(text).map_err(|error| match error {
            Error::Malformed { what, .. } => Error::malformed(what, at),
            other => other,
        })?;
        let logs = self.logs.iter().map(|log| &log.key);
        let mut known = logs.chain(self.witnesses.iter().map(|witness| &witness.key));
        if known.any(|other| other.public_key() == key.public_key()) {
            return Err(Error::malformed("policy has the same public key twice", at));
        }
        Ok(key)
    }

    fn find(&self, name: &[u8]) -> Option<Member> {
        let witness = self.witnesses.iter().position(|witness| witness.name == name).map(Member::Witness);
        witness.or_else(|| self.groups.iter().position(|group| group.name == name).map(Member::Group))
    }

    fn check_new(&self, name: &[u8], at: usize) -> Result<(), Error> {
        if name == b"none" || self.find(name).is_some() {
            return Err(Error::malformed("name is taken", at));
        }
        Ok(())
    }
}

fn check_count(count: usize, what: &'static str) -> Result<(), Error> {
    if count < MAX_ITEMS { Ok(()) } else { Err(Error::TooLarge { what, limit: MAX_ITEMS }) }
}
