//! Everything in this crate that weakens a rule. Each item says which; none is reachable from a server's configuration.

use crate::error::Error;
use crate::uri::KeyUri;

/// Parses a key URI that may carry its PIN in clear as `pin-value`.
///
/// A PIN in a configuration file ends up in backups and process listings; production configurations name a
/// `pin-source`.
///
/// # Errors
/// [`Error::InvalidUri`] as [`KeyUri::parse`], without the refusal of `pin-value`.
pub fn parse_uri_with_pin_value(text: &str) -> Result<KeyUri, Error> {
    KeyUri::parse_allowing_pin_value(text)
}
