//! Textual encoding of DER structures (RFC 7468).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::reason::{Denial, ReasonCode};

/// The largest text that is searched for blocks, in octets.
pub const MAX_LENGTH: usize = 4 * 1024 * 1024;

/// The label of certificates.
pub const CERTIFICATE: &str = "CERTIFICATE";

/// The label of certificate revocation lists.
pub const CRL: &str = "X509 CRL";

/// The contents of every block with this label, in order. Text outside of blocks and blocks with other labels are
/// passed over; a block that does not end, or whose content is not base64, is an error.
///
/// # Errors
/// `too_large` for a text above [`MAX_LENGTH`] or more than `max_blocks` blocks, `malformed` otherwise.
pub fn decode(text: &str, label: &str, max_blocks: usize) -> Result<Vec<Vec<u8>>, Denial> {
    if text.len() > MAX_LENGTH {
        return Err(Denial::new(ReasonCode::TooLarge, "PEM text is larger than 4 MiB"));
    }
    let begin = format!("-----BEGIN {label}-----");
    let end = format!("-----END {label}-----");
    let mut blocks = Vec::new();
    let mut current: Option<String> = None;
    for line in text.lines().map(str::trim_end) {
        match &mut current {
            None if line == begin => current = Some(String::new()),
            None => {}
            Some(content) if line == end => {
                let der = STANDARD.decode(content.as_bytes());
                blocks.push(der.map_err(|_| Denial::new(ReasonCode::Malformed, "PEM block is not base64"))?);
                if blocks.len() > max_blocks {
                    return Err(Denial::new(
                        ReasonCode::TooLarge,
                        format!("more than {max_blocks} PEM blocks"),
                    ));
                }
                current = None;
            }
            Some(content) => content.push_str(line.trim()),
        }
    }
    if current.is_some() {
        return Err(Denial::new(ReasonCode::Malformed, "PEM block does not end"));
    }
    Ok(blocks)
}

/// One block with this label: lines of 64 characters, ended by a newline.
pub fn encode(der: &[u8], label: &str) -> String {
    let content = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in content.as_bytes().chunks(64) {
        text.extend(line.iter().map(|b| char::from(*b)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_skips_other_text() {
        let der: Vec<u8> = (0..=200).collect();
        let text = format!("subject: x\n{}junk\n{}", encode(&der, CERTIFICATE), encode(b"crl", CRL));
        assert_eq!(decode(&text, CERTIFICATE, 1).unwrap(), [der]);
        assert_eq!(decode(&text.replace('\n', "\r\n"), CRL, 1).unwrap(), [b"crl"]);
    }

    #[test]
    fn refuses_open_blocks_bad_base64_and_too_many() {
        let one = encode(b"x", CERTIFICATE);
        assert_eq!(decode(&one[..40], CERTIFICATE, 9).unwrap_err().code, ReasonCode::Malformed);
        assert_eq!(
            decode(&one.replace("eA==", "eA="), CERTIFICATE, 9).unwrap_err().code,
            ReasonCode::Malformed
        );
        assert_eq!(decode(&one.repeat(3), CERTIFICATE, 2).unwrap_err().code, ReasonCode::TooLarge);
    }
}
