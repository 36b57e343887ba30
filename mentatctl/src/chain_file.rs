//! PEM files with certificates, end-entity first.

use std::path::Path;

use trust_store::Certificate;

use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::read_text;

/// Most certificates of one file.
const MAX_CERTIFICATES: usize = 16;

/// Reads the certificates of a file: at least one.
///
/// # Errors
/// Exit code 2 when the file cannot be read, holds no certificate or a broken one.
pub fn read(path: &Path) -> Outcome<Vec<Certificate>> {
    parse(&read_text(path)?, &path.display().to_string())
}

/// The same for text; `name` names its source.
///
/// # Errors
/// As [`read`].
pub fn parse(text: &str, name: &str) -> Outcome<Vec<Certificate>> {
    let form = "give a PEM file with the certificate first and its issuers after it";
    let certificates =
        Certificate::from_pem_chain(text).or_fail(Exit::Usage, name).map_err(|failure| failure.hint(form))?;
    match certificates.len() {
        0 => Err(Failure::usage(format!("{name} holds no certificate")).hint(form)),
        1..=MAX_CERTIFICATES => Ok(certificates),
        _ => Err(Failure::usage(format!("{name} holds more than {MAX_CERTIFICATES} certificates"))
            .hint("leave the certificate and its issuers in it")),
    }
}
