//! PEM (RFC 7468) in and out, bounded.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use der::pem::{LineEnding, decode_vec, encode_string};

use crate::error::Error;

/// Encodes one DER object with LF line ends.
///
/// # Errors
/// [`Error::Malformed`] when the label is not one of RFC 7468.
pub fn encode(label: &'static str, der: &[u8]) -> Result<String, Error> {
    encode_string(label, LineEnding::LF, der)
        .map_err(|error| Error::Malformed { what: label, detail: alloc::format!("{error}") })
}

/// Decodes exactly one object with one of `labels`; text before or after it is not accepted. Its lines may have any length
/// (RFC 7468 section 2): one stock client writes a key on one.
///
/// # Errors
/// [`Error::TooLarge`] above `limit` characters, [`Error::Malformed`] for anything that is not such an object.
pub fn decode(what: &'static str, labels: &[&str], text: &str, limit: usize) -> Result<Vec<u8>, Error> {
    if text.len() > limit {
        return Err(Error::TooLarge { what, limit });
    }
    // The decoder says of nothing that it begins with a NUL.
    if text.trim().is_empty() {
        return Err(Error::Malformed { what, detail: "it is empty; PEM text is expected".into() });
    }
    let text = wrapped(text.trim());
    let (label, der) = decode_vec(text.as_bytes())
        .map_err(|error| Error::Malformed { what, detail: alloc::format!("{error}") })?;
    if labels.contains(&label) {
        Ok(der)
    } else {
        Err(Error::Malformed { what, detail: "unexpected PEM label".into() })
    }
}

/// The text with lines of 64 characters between its first and its last: the only ones that the decoder takes.
fn wrapped(text: &str) -> Cow<'_, str> {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let [first, body @ .., last] = lines.as_slice() else { return text.into() };
    let body: Vec<u8> = body.iter().flat_map(|line| line.bytes()).collect();
    let mut wrapped = alloc::format!("{first}\n");
    for line in body.chunks(64) {
        // What is no text in pieces is no base64: the decoder says so.
        let Ok(line) = core::str::from_utf8(line) else { return text.into() };
        wrapped.push_str(line);
        wrapped.push('\n');
    }
    wrapped.push_str(last);
    wrapped.into()
}

/// Splits a text of several PEM objects of one label into their DER.
///
/// # Errors
/// [`Error::TooLarge`] above `limit` characters, [`Error::Malformed`] when an object does not decode or none is there.
pub fn decode_all(what: &'static str, label: &str, text: &str, limit: usize) -> Result<Vec<Vec<u8>>, Error> {
    if text.len() > limit {
        return Err(Error::TooLarge { what, limit });
    }
    let end = alloc::format!("-----END {label}-----");
    let mut objects = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let Some(at) = rest.find(&end) else {
            return Err(Error::Malformed { what, detail: "PEM object without an end".into() });
        };
        let (object, tail) = rest.split_at(at + end.len());
        objects.push(decode(what, &[label], object, limit)?);
        rest = tail.trim();
    }
    if objects.is_empty() {
        return Err(Error::Malformed { what, detail: "no PEM object".into() });
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_objects_round_trip() {
        let text = [encode("CERTIFICATE", &[1, 2]).unwrap(), encode("CERTIFICATE", &[3]).unwrap()].concat();
        assert_eq!(
            decode_all("chain", "CERTIFICATE", &text, 1000).unwrap(),
            [alloc::vec![1, 2], alloc::vec![3]]
        );
        assert!(decode_all("chain", "CERTIFICATE", "", 1000).is_err());
        assert!(matches!(decode_all("chain", "CERTIFICATE", &text, 10), Err(Error::TooLarge { .. })));
        let empty = decode("request", &["CERTIFICATE REQUEST"], " \n", 1000).unwrap_err();
        assert!(alloc::format!("{empty}").contains("it is empty"), "{empty}");
        assert!(decode("request", &["CERTIFICATE REQUEST"], &text, 1000).is_err());
    }

    #[test]
    fn lines_may_have_any_length_and_nothing_else_may_differ() {
        let der = [7; 200];
        let text = encode("PUBLIC KEY", &der).unwrap();
        let (begin, end) = ("-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----");
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        let decoded = |text: &str| decode("public key", &["PUBLIC KEY"], text, 10_000);
        for lines in [
            body.clone(),
            body.as_bytes()
                .chunks(76)
                .map(|line| core::str::from_utf8(line).unwrap())
                .collect::<Vec<_>>()
                .join("\r\n"),
            body.as_bytes()
                .chunks(7)
                .map(|line| core::str::from_utf8(line).unwrap())
                .collect::<Vec<_>>()
                .join("\n"),
        ] {
            assert_eq!(decoded(&alloc::format!("{begin}\n{lines}\n{end}\n")).unwrap(), der);
        }
        for wrong in [
            alloc::format!("{begin}\n{body}"),
            alloc::format!("{begin}{body}{end}"),
            alloc::format!("{begin}\nComment: one\n{body}\n{end}"),
            alloc::format!("{begin}\n{body}\n{end}\n{begin}\n{body}\n{end}"),
            alloc::format!("{begin}\n{body}ä\n{end}"),
            alloc::format!("text\n{begin}\n{body}\n{end}"),
            alloc::format!("{begin}\n{end}{body}"),
        ] {
            assert!(decoded(&wrong).is_err(), "{wrong}");
        }
    }
}
