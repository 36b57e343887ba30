//! What goes out.

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Result;
use crate::host;
use crate::json::{self, Value};

/// The output of a call: a JSON object that is built member by member, or bytes of any other form.
#[derive(Clone, Debug, PartialEq)]
pub struct Output(Form);

#[derive(Clone, Debug, PartialEq)]
enum Form {
    Bytes(Vec<u8>),
    /// Names and the JSON of their values: what an agent does not write (numbers, say) does not become part of it.
    Members(Vec<(String, String)>),
}

impl Default for Output {
    fn default() -> Self {
        Self::new()
    }
}

impl Output {
    /// An empty JSON object.
    pub fn new() -> Self {
        Self(Form::Members(Vec::new()))
    }

    /// Bytes as they are.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Form::Bytes(bytes.into()))
    }

    /// A text as it is.
    pub fn text(text: impl Into<String>) -> Self {
        Self(Form::Bytes(text.into().into_bytes()))
    }

    /// Any JSON value.
    pub fn value(value: &Value) -> Self {
        Self::text(value.to_json())
    }

    /// Adds a member, or changes the one of this name. An output of bytes becomes the object with this member alone.
    #[must_use]
    pub fn add(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into().to_json();
        match &mut self.0 {
            Form::Members(members) => match members.iter_mut().find(|(known, _)| known == name) {
                Some((_, old)) => *old = value,
                None => members.push((name.into(), value)),
            },
            Form::Bytes(_) => self.0 = Form::Members(alloc::vec![(name.into(), value)]),
        }
        self
    }

    /// The bytes that go to the host.
    pub fn into_bytes(self) -> Vec<u8> {
        let members = match self.0 {
            Form::Bytes(bytes) => return bytes,
            Form::Members(members) => members,
        };
        let mut out = String::from("{");
        for (place, (name, value)) in members.iter().enumerate() {
            if place > 0 {
                out.push(',');
            }
            json::write_string(name, &mut out);
            out.push(':');
            out.push_str(value);
        }
        out.push('}');
        out.into_bytes()
    }

    pub(crate) fn write(self) -> Result<()> {
        host::write_output(&self.into_bytes())
    }
}
