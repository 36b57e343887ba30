//! Commands and answers (TPM 2.0 Library, parts 2 and 3): the eight that are needed, and no others.

use zeroize::Zeroizing;

/// TPM_ST_NO_SESSIONS, TPM_ST_SESSIONS.
const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
/// TPM_RS_PW: the authorisation is the value itself.
const PASSWORD_SESSION: u32 = 0x4000_0009;
/// TPMA_SESSION continueSession.
const CONTINUE: u8 = 1;
/// TPM_RH_OWNER, TPM_RH_NULL.
const OWNER: u32 = 0x4000_0001;
const NULL_HIERARCHY: u32 = 0x4000_0007;
/// TPM_ST_HASHCHECK: the kind of ticket that an unrestricted key does without.
const HASH_CHECK: u16 = 0x8024;

const CREATE_PRIMARY: u32 = 0x0131;
const STARTUP: u32 = 0x0144;
const CREATE: u32 = 0x0153;
const LOAD: u32 = 0x0157;
const SIGN: u32 = 0x015d;
const FLUSH_CONTEXT: u32 = 0x0165;
const TEST_PARMS: u32 = 0x018a;

/// A command, complete. Zeroised, for some carry a PIN.
pub(super) type Command = Zeroizing<Vec<u8>>;

/// A handle of a loaded object.
pub(super) type Handle = u32;

fn command(tag: u16, code: u32, body: &[&[u8]]) -> Command {
    let length = 10 + body.iter().map(|part| part.len()).sum::<usize>();
    // Reserved at once: a growing buffer would leave copies of a PIN behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    bytes.extend_from_slice(&tag.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&code.to_be_bytes());
    for part in body {
        bytes.extend_from_slice(part);
    }
    bytes
}

/// A TPM2B: its size, then the bytes.
pub(super) fn sized(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(2 + bytes.len()));
    out.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
    out
}

/// One authorisation by value.
fn password(value: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(13 + value.len()));
    let length = 9 + value.len();
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&PASSWORD_SESSION.to_be_bytes());
    out.extend_from_slice(&[0, 0, CONTINUE]);
    out.extend_from_slice(&sized(value));
    out
}

/// TPM2_Startup(CLEAR).
pub(super) fn startup() -> Command {
    command(NO_SESSIONS, STARTUP, &[&[0, 0]])
}

/// TPM2_CreatePrimary in the owner's hierarchy, whose authorisation is empty.
pub(super) fn create_primary(public: &[u8]) -> Command {
    let sensitive = sized(&[0, 0, 0, 0]);
    command(
        SESSIONS,
        CREATE_PRIMARY,
        &[&OWNER.to_be_bytes(), &password(&[]), &sensitive, &sized(public), &[0, 0], &[0; 4]],
    )
}

/// TPM2_Create of a key below a parent without authorisation.
pub(super) fn create(parent: Handle, auth: &[u8], public: &[u8]) -> Command {
    let mut sensitive = Zeroizing::new(Vec::with_capacity(4 + auth.len()));
    sensitive.extend_from_slice(&sized(auth));
    sensitive.extend_from_slice(&[0, 0]);
    command(
        SESSIONS,
        CREATE,
        &[&parent.to_be_bytes(), &password(&[]), &sized(&sensitive), &sized(public), &[0, 0], &[0; 4]],
    )
}

/// TPM2_Load.
pub(super) fn load(parent: Handle, private: &[u8], public: &[u8]) -> Command {
    command(SESSIONS, LOAD, &[&parent.to_be_bytes(), &password(&[]), &sized(private), &sized(public)])
}

/// TPM2_Sign of a digest that was made outside.
pub(super) fn sign(key: Handle, auth: &[u8], digest: &[u8], scheme: u16, hash: u16) -> Command {
    command(
        SESSIONS,
        SIGN,
        &[
            &key.to_be_bytes(),
            &password(auth),
            &sized(digest),
            &scheme.to_be_bytes(),
            &hash.to_be_bytes(),
            &HASH_CHECK.to_be_bytes(),
            &NULL_HIERARCHY.to_be_bytes(),
            &[0, 0],
        ],
    )
}

/// TPM2_FlushContext.
pub(super) fn flush(handle: Handle) -> Command {
    command(NO_SESSIONS, FLUSH_CONTEXT, &[&handle.to_be_bytes()])
}

/// TPM2_TestParms: whether the TPM has keys of this kind.
pub(super) fn test_parameters(parameters: &[u8]) -> Command {
    command(NO_SESSIONS, TEST_PARMS, &[parameters])
}

/// What a response code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// The authorisation was refused, or the TPM is locked because too many were.
    Auth,
    /// An object is not loaded any more.
    Gone,
    /// No room for another object.
    Full,
    /// Not started yet.
    NotStarted,
    /// Busy; the same command may be sent again.
    Retry,
    /// In failure mode: it answers nothing until it is reset.
    Failed,
    /// Anything else: asking again gives the same answer.
    Lasting(u32),
}

/// Reads a response code (part 2, 6.6).
pub(super) fn code(value: u32) -> Code {
    match value {
        0x100 => Code::NotStarted,
        0x101 => Code::Failed,
        // OBJECT_MEMORY, OBJECT_HANDLES
        0x902 | 0x906 => Code::Full,
        // CONTEXT_GAP aside: YIELDED, TESTING, NV_RATE, RETRY
        0x908 | 0x90a | 0x920 | 0x922 => Code::Retry,
        // REFERENCE_H0 to H6
        0x910..=0x916 => Code::Gone,
        // LOCKOUT
        0x921 => Code::Auth,
        // Format one: bit 7, and the error in the low six bits.
        _ if value & 0x80 != 0 => match value & 0x3f {
            // AUTH_FAIL, BAD_AUTH
            0x0e | 0x22 => Code::Auth,
            // HANDLE
            0x0b => Code::Gone,
            _ => Code::Lasting(value),
        },
        _ => Code::Lasting(value),
    }
}

/// Reads an answer from its front.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(super) fn sized(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Response code and body of an answer whose size fits.
pub(super) fn answer(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut reader = Reader::new(bytes);
    let (_tag, size, code) = (reader.u16()?, reader.u32()?, reader.u32()?);
    (usize::try_from(size).ok()? == bytes.len()).then_some((code, reader.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_bytes_of_the_specification() {
        assert_eq!(startup()[..], [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0]);
        let sign = sign(0x8000_0001, b"pin", &[7; 32], 0x18, 0x0b);
        assert_eq!(sign.len(), 10 + 4 + 16 + 34 + 4 + 8);
        assert_eq!(sign[..14], [0x80, 2, 0, 0, 0, 76, 0, 0, 1, 0x5d, 0x80, 0, 0, 1]);
        assert_eq!(sign[14..30], [0, 0, 0, 12, 0x40, 0, 0, 9, 0, 0, 1, 0, 3, b'p', b'i', b'n']);
        assert_eq!(sign[64..], [0, 0x18, 0, 0x0b, 0x80, 0x24, 0x40, 0, 0, 7, 0, 0]);
    }

    #[test]
    fn response_codes_say_what_to_do() {
        for (value, wanted) in [
            (0x98e, Code::Auth),
            (0x9a2, Code::Auth),
            (0x921, Code::Auth),
            (0x910, Code::Gone),
            (0x18b, Code::Gone),
            (0x922, Code::Retry),
            (0x100, Code::NotStarted),
            (0x101, Code::Failed),
            (0x902, Code::Full),
            (0x1df, Code::Lasting(0x1df)),
            (0x1c4, Code::Lasting(0x1c4)),
        ] {
            assert_eq!(code(value), wanted, "{value:#x}");
        }
    }

    #[test]
    fn an_answer_of_another_size_than_it_says_is_none() {
        let bytes = [0x80, 1, 0, 0, 0, 11, 0, 0, 0, 0, 9];
        assert_eq!(answer(&bytes), Some((0, &[9][..])));
        assert_eq!(answer(&bytes[..10]), None);
        assert_eq!(answer(&[]), None);
    }
}
