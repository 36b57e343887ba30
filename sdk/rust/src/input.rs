//! What came in.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::OnceCell;

use crate::error::{Error, Result};
use crate::host;
use crate::json::{self, FromValue, Value};

/// The input of a call: bytes, which by convention are a JSON object. They are read as JSON when that is first asked for.
#[derive(Debug)]
pub struct Input {
    bytes: Vec<u8>,
    value: OnceCell<Result<Value>>,
}

impl Input {
    /// Takes the input from the host.
    ///
    /// # Errors
    /// −7 when the host gives less than it said.
    pub(crate) fn read() -> Result<Self> {
        host::input().map(Self::from_bytes)
    }

    /// An input of these bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes, value: OnceCell::new() }
    }

    /// The bytes as they came.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes as they came, to keep.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The input as a text.
    ///
    /// # Errors
    /// [`Error::Input`] when it is no UTF-8.
    pub fn text(&self) -> Result<&str> {
        core::str::from_utf8(&self.bytes).map_err(|_| Error::input("it is no UTF-8"))
    }

    /// The input as JSON.
    ///
    /// # Errors
    /// [`Error::Input`] with the place of what is wrong.
    pub fn value(&self) -> Result<&Value> {
        let parse = || json::parse(self.text()?).map_err(|error| Error::input(format!("{error}")));
        self.value.get_or_init(parse).as_ref().map_err(Clone::clone)
    }

    /// A member of the input object.
    ///
    /// # Errors
    /// [`Error::Input`] when the input is no object, has no such member, or it is of another type.
    pub fn get<T: FromValue>(&self, name: &str) -> Result<T> {
        match self.find(name)? {
            Some(value) => Ok(value),
            None => Err(Error::input(format!("there is no member `{name}`"))),
        }
    }

    /// A member of the input object that may be left out or `null`.
    ///
    /// # Errors
    /// As [`Input::get`], but for an absent member.
    pub fn find<T: FromValue>(&self, name: &str) -> Result<Option<T>> {
        let Value::Object(members) = self.value()? else {
            return Err(Error::input("it is no JSON object"));
        };
        match members.iter().find(|(known, _)| known == name) {
            None | Some((_, Value::Null)) => Ok(None),
            Some((_, value)) => match T::from_value(value) {
                Some(value) => Ok(Some(value)),
                None => Err(Error::input(format!("`{name}` is not {}", T::WHAT))),
            },
        }
    }

    /// A text member; the same as `get::<String>`.
    ///
    /// # Errors
    /// As [`Input::get`].
    pub fn get_string(&self, name: &str) -> Result<String> {
        self.get(name)
    }
}
