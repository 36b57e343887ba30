//! Key references: the grammar of RFC 7512 for `pkcs11:`, and the same grammar for every other backend.
//!
//! ```text
//! scheme ":" [ attribute "=" value *( ";" attribute "=" value ) ] [ "?" attribute "=" value *( "&" … ) ]
//! soft:object=issuing-ca?spki-sha256=9f86d0…
//! pkcs11:token=ca;id=%01%02?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/run/secrets/pin
//! ```
//!
//! Strict: each scheme has its list of attributes and an unknown or repeated one is an error; values are
//! percent-decoded only (`+` is a plus); a `pin-value` is refused; a reference names one key version, so `latest` and
//! key aliases are refused. Every scheme knows the query attribute `spki-sha256`, which pins the public key.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::error::Error;

/// Longest URI that is parsed, in bytes.
pub const MAX_URI_LEN: usize = 2048;

/// The backend a key URI names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Scheme {
    /// AWS KMS.
    AwsKms,
    /// Azure Key Vault.
    AzureKv,
    /// Google Cloud KMS.
    GcpKms,
    /// KMIP server.
    Kmip,
    /// PKCS#11 token.
    Pkcs11,
    /// A signer daemon of ours over mutual TLS.
    Remote,
    /// The encrypted software keystore.
    Soft,
    /// TPM 2.0.
    Tpm2,
    /// Vault or OpenBao transit engine.
    Transit,
    /// YubiHSM 2.
    YubiHsm,
}

impl Scheme {
    const ALL: [Self; 10] = [
        Self::AwsKms,
        Self::AzureKv,
        Self::GcpKms,
        Self::Kmip,
        Self::Pkcs11,
        Self::Remote,
        Self::Soft,
        Self::Tpm2,
        Self::Transit,
        Self::YubiHsm,
    ];

    /// The scheme as written, without the colon.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwsKms => "awskms",
            Self::AzureKv => "azurekv",
            Self::GcpKms => "gcpkms",
            Self::Kmip => "kmip",
            Self::Pkcs11 => "pkcs11",
            Self::Remote => "remote",
            Self::Soft => "soft",
            Self::Tpm2 => "tpm2",
            Self::Transit => "transit",
            Self::YubiHsm => "yubihsm",
        }
    }

    const fn path_attributes(self) -> &'static [&'static str] {
        match self {
            Self::AwsKms => &["key-id", "object"],
            Self::AzureKv => &["vault", "object", "version"],
            Self::GcpKms => &["project", "location", "keyring", "object", "version"],
            Self::Kmip => &["id"],
            Self::Pkcs11 => &["token", "manufacturer", "serial", "model", "slot-id", "object", "id", "type"],
            Self::Remote | Self::Soft => &["object"],
            Self::Tpm2 => &["handle", "object"],
            Self::Transit => &["mount", "object", "version"],
            Self::YubiHsm => &["serial", "id"],
        }
    }

    const fn query_attributes(self) -> &'static [&'static str] {
        match self {
            Self::AwsKms => &["region", "endpoint", SPKI_SHA256],
            Self::AzureKv | Self::GcpKms => &["endpoint", SPKI_SHA256],
            Self::Kmip | Self::Remote => &["address", SPKI_SHA256],
            Self::Pkcs11 => &["module-path", "module-name", "pin-source", PIN_VALUE, SPKI_SHA256],
            Self::Soft => &[SPKI_SHA256],
            Self::Tpm2 => &["tcti", "folder", "pin-source", PIN_VALUE, SPKI_SHA256],
            Self::Transit => &["address", "pin-source", SPKI_SHA256],
            Self::YubiHsm => &["connector", "pin-source", PIN_VALUE, SPKI_SHA256],
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const SPKI_SHA256: &str = "spki-sha256";
const PIN_VALUE: &str = "pin-value";

#[derive(Clone, Copy, PartialEq, Eq)]
enum PinValue {
    Refuse,
    Accept,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Path,
    Query,
}

#[derive(Clone, PartialEq, Eq)]
struct Attribute {
    name: &'static str,
    value: Zeroizing<Vec<u8>>,
}

/// A parsed key reference. Shows a PIN, if it holds one, as `(redacted)`.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyUri {
    scheme: Scheme,
    path: Vec<Attribute>,
    query: Vec<Attribute>,
    pin: Option<[u8; 32]>,
}

impl KeyUri {
    /// Parses a reference.
    ///
    /// # Errors
    /// [`Error::InvalidUri`] with the byte position for anything outside the grammar of the scheme, and for a
    /// `pin-value`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::parse_with(text, PinValue::Refuse)
    }

    pub(crate) fn parse_allowing_pin_value(text: &str) -> Result<Self, Error> {
        Self::parse_with(text, PinValue::Accept)
    }

    /// The reference of a key in the software keystore.
    #[must_use]
    pub fn soft(label: &crate::provider::KeyLabel) -> Self {
        let value = Zeroizing::new(label.as_str().as_bytes().to_vec());
        Self {
            scheme: Scheme::Soft,
            path: vec![Attribute { name: "object", value }],
            query: Vec::new(),
            pin: None,
        }
    }

    /// The same reference with the public key pinned.
    #[must_use]
    pub fn pinned_to(mut self, spki_sha256: &[u8; 32]) -> Self {
        let value = Zeroizing::new(crate::public_key::hex(spki_sha256).into_bytes());
        self.query.retain(|a| a.name != SPKI_SHA256);
        self.query.push(Attribute { name: SPKI_SHA256, value });
        self.pin = Some(*spki_sha256);
        self
    }

    /// The same key, reached in the way that `way` says: its query attributes, except for the pinned public key.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `way` has another scheme.
    pub fn reached_by(mut self, way: &Self) -> Result<Self, Error> {
        if way.scheme != self.scheme {
            let reason = format!("a {} key cannot be reached by a {} reference", self.scheme, way.scheme);
            return Err(Error::Invalid { what: "key URI", reason });
        }
        self.query.retain(|attribute| attribute.name == SPKI_SHA256);
        let others = way.query.iter().filter(|attribute| attribute.name != SPKI_SHA256);
        self.query.splice(0..0, others.cloned());
        Ok(self)
    }

    /// The backend.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// A path attribute's bytes (`id` may be binary).
    #[must_use]
    pub fn path_bytes(&self, name: &str) -> Option<&[u8]> {
        self.path.iter().find(|a| a.name == name).map(|a| a.value.as_slice())
    }

    /// A path attribute's text; `None` when absent. Every attribute except `id` was checked to be UTF-8.
    #[must_use]
    pub fn path_attribute(&self, name: &str) -> Option<&str> {
        self.path_bytes(name).and_then(|v| std::str::from_utf8(v).ok())
    }

    /// A query attribute's text; `None` when absent.
    #[must_use]
    pub fn query_attribute(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|a| a.name == name).and_then(|a| std::str::from_utf8(&a.value).ok())
    }

    /// The pinned SHA-256 of the SPKI, if the reference has one.
    #[must_use]
    pub const fn spki_sha256(&self) -> Option<&[u8; 32]> {
        self.pin.as_ref()
    }

    fn parse_with(text: &str, pin_value: PinValue) -> Result<Self, Error> {
        if text.len() > MAX_URI_LEN {
            return Err(at(MAX_URI_LEN, "longer than 2048 bytes"));
        }
        let (scheme_text, rest) =
            text.split_once(':').ok_or_else(|| at(0, "no scheme; write soft:object=LABEL"))?;
        let scheme = Scheme::ALL
            .into_iter()
            .find(|s| s.as_str() == scheme_text)
            .ok_or_else(|| at(0, "unknown scheme; known are soft, pkcs11, awskms, gcpkms, azurekv, transit, tpm2, yubihsm, kmip and remote"))?;
        let path_start = scheme_text.len() + 1;
        let (path_text, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some((query, path_start + path.len() + 1))),
            None => (rest, None),
        };
        let path = attributes(path_text, path_start, Part::Path, scheme)?;
        let query = match query {
            Some((query, start)) => attributes(query, start, Part::Query, scheme)?,
            None => Vec::new(),
        };
        if pin_value == PinValue::Refuse && query.iter().any(|a| a.name == PIN_VALUE) {
            return Err(at(path_start, "pin-value puts the PIN in clear; use pin-source=file:… instead"));
        }
        let mut uri = Self { scheme, path, query, pin: None };
        uri.pin = uri.parse_pin(path_start)?;
        uri.check_one_version(path_start)?;
        Ok(uri)
    }

    fn parse_pin(&self, position: usize) -> Result<Option<[u8; 32]>, Error> {
        let Some(text) = self.query_attribute(SPKI_SHA256) else { return Ok(None) };
        let mut pin = [0; 32];
        let well_formed = text.len() == 64
            && text.bytes().zip(0usize..).all(|(byte, index)| {
                let nibble = match byte {
                    b'0'..=b'9' => byte - b'0',
                    b'a'..=b'f' => byte - b'a' + 10,
                    _ => return false,
                };
                pin.get_mut(index / 2).map(|slot| *slot = (*slot << 4) | nibble).is_some()
            });
        if well_formed {
            Ok(Some(pin))
        } else {
            Err(at(position, "spki-sha256 is not 64 lower-case hex digits"))
        }
    }

    /// Refuses references that could mean another key tomorrow.
    fn check_one_version(&self, position: usize) -> Result<(), Error> {
        let required: &[&str] = match self.scheme {
            Scheme::Soft | Scheme::Remote => &["object"],
            Scheme::GcpKms => &["project", "location", "keyring", "object", "version"],
            Scheme::AzureKv => &["vault", "object", "version"],
            Scheme::Transit => &["object", "version"],
            Scheme::Kmip | Scheme::YubiHsm => &["id"],
            Scheme::AwsKms | Scheme::Tpm2 | Scheme::Pkcs11 => &[],
        };
        for name in required {
            if self.path_bytes(name).is_none_or(<[u8]>::is_empty) {
                return Err(at(position, &format!("{} needs the attribute {name}", self.scheme)));
            }
        }
        if self.path_attribute("version").is_some_and(|v| v.eq_ignore_ascii_case("latest")) {
            return Err(at(position, "version=latest can change under you; name one version"));
        }
        if self.scheme == Scheme::AwsKms
            && self
                .path_attribute("key-id")
                .is_some_and(|id| id.starts_with("alias/") || id.contains(":alias/"))
        {
            return Err(at(position, "an alias can be moved to another key; give the key's id or ARN"));
        }
        let unidentified = match self.scheme {
            Scheme::AwsKms => self.path_bytes("key-id").is_none() && self.path_bytes("object").is_none(),
            Scheme::Pkcs11 => self.path_bytes("id").is_none() && self.path_bytes("object").is_none(),
            Scheme::Tpm2 => self.path_bytes("handle").is_none() && self.path_bytes("object").is_none(),
            _ => false,
        };
        if unidentified {
            return Err(at(position, "the reference names no key"));
        }
        Ok(())
    }
}

impl FromStr for KeyUri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl fmt::Display for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme)?;
        for (part, list, first, between) in
            [(Part::Path, &self.path, "", ";"), (Part::Query, &self.query, "?", "&")]
        {
            for (position, attribute) in list.iter().enumerate() {
                f.write_str(if position == 0 { first } else { between })?;
                write!(f, "{}=", attribute.name)?;
                if attribute.name == PIN_VALUE {
                    f.write_str("(redacted)")?;
                } else {
                    for byte in attribute.value.iter().copied() {
                        if is_plain(byte, part) {
                            write!(f, "{}", byte as char)?
                        } else {
                            write!(f, "%{byte:02X}")?
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyUri({self})")
    }
}

fn at(position: usize, reason: &str) -> Error {
    Error::InvalidUri { position, reason: reason.to_owned() }
}

/// RFC 7512 section 2.3: which bytes stand for themselves.
const fn is_plain(byte: u8, part: Part) -> bool {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => true,
        b':' | b'[' | b']' | b'@' | b'!' | b'$' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' => true,
        b'&' => matches!(part, Part::Path),
        b'/' | b'?' | b'|' => matches!(part, Part::Query),
        _ => false,
    }
}

fn attributes(text: &str, start: usize, part: Part, scheme: Scheme) -> Result<Vec<Attribute>, Error> {
    let (separator, known) = match part {
        Part::Path => (';', scheme.path_attributes()),
        Part::Query => ('&', scheme.query_attributes()),
    };
    let mut found: Vec<Attribute> = Vec::new();
    if text.is_empty() {
        return Ok(found);
    }
    let mut position = start;
    for item in text.split(separator) {
        let (name_text, value_text) =
            item.split_once('=').ok_or_else(|| at(position, "an attribute is written name=value"))?;
        let name = known.iter().copied().find(|n| *n == name_text).ok_or_else(|| {
            let named: String = name_text.chars().take(40).collect();
            at(position, &format!("{scheme} has no attribute {named:?} here; it knows {}", known.join(", ")))
        })?;
        if found.iter().any(|a| a.name == name) {
            return Err(at(position, &format!("{name} is given twice")));
        }
        let value_start = position + name_text.len() + 1;
        let value = decode(value_text, value_start, part)?;
        check_value(name, &value, value_start)?;
        found.push(Attribute { name, value });
        position += item.len() + 1;
    }
    Ok(found)
}

fn decode(text: &str, start: usize, part: Part) -> Result<Zeroizing<Vec<u8>>, Error> {
    // Reserved at once, so that no partial copy of a PIN stays behind in a freed allocation.
    let mut value = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut bytes = text.bytes().zip(start..);
    while let Some((byte, position)) = bytes.next() {
        if byte == b'%' {
            let high = bytes.next().and_then(|(b, _)| (b as char).to_digit(16));
            let low = bytes.next().and_then(|(b, _)| (b as char).to_digit(16));
            let (Some(high), Some(low)) = (high, low) else {
                return Err(at(position, "% is not followed by two hex digits"));
            };
            value.push(u8::try_from(high * 16 + low).map_err(|_| at(position, "bad percent-encoding"))?);
        } else if is_plain(byte, part) {
            value.push(byte);
        } else {
            return Err(at(position, "this character must be percent-encoded"));
        }
    }
    Ok(value)
}

fn check_value(name: &str, value: &[u8], position: usize) -> Result<(), Error> {
    if name == "id" {
        return Ok(());
    }
    let text = std::str::from_utf8(value).map_err(|_| at(position, "the value is not UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(at(position, "the value holds a control character"));
    }
    let fits = match name {
        "slot-id" => !text.is_empty() && text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit()),
        "type" => matches!(text, "private" | "public"),
        "folder" | "module-path" => text.starts_with('/'),
        "module-name" => !text.contains('/'),
        _ => true,
    };
    if fits { Ok(()) } else { Err(at(position, &format!("{name} has a value it cannot have"))) }
}

#[cfg(test)]
mod tests;
