//! Guest paths of a `filesystem` capability.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

use super::malformed;
use crate::error::Error;

/// An absolute path as the guest sees it: `/`, or components without `.`, `..`, empty ones, NUL, other control
/// characters and backslashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestPath(String);

impl GuestPath {
    /// Takes a path.
    ///
    /// # Errors
    /// [`Error::Malformed`] for anything that is not in its only form; a final slash is an empty component.
    pub fn new(path: &str) -> Result<Self, Error> {
        let Some(rest) = path.strip_prefix('/') else {
            return Err(malformed(path, "a path starts with `/`"));
        };
        if rest.chars().any(|c| c.is_control() || c == '\\') {
            return Err(malformed(path, "a path has no control characters and no backslash"));
        }
        if !rest.is_empty() && rest.split('/').any(|component| matches!(component, "" | "." | "..")) {
            return Err(malformed(path, "a path has no empty, `.` or `..` component"));
        }
        Ok(Self(path.to_owned()))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `other` is this path or lies below it, component by component.
    pub fn contains(&self, other: &Self) -> bool {
        self.0 == "/"
            || other.0.strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
