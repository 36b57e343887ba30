//! A granted capability in use.

use alloc::vec::Vec;

use crate::error::Result;
use crate::host;

/// A capability that was asked for and granted. The executor checks every use of it; dropping it gives the handle back.
#[derive(Debug)]
pub struct Capability(i32);

impl Capability {
    pub(crate) fn request(text: &str) -> Result<Self> {
        host::request_capability(text).map(Self)
    }

    /// Uses it: `get` of `env:NAME`, `request` of `network:https:HOST` (docs/formats/agent-abi.md).
    ///
    /// # Errors
    /// −1 for an operation that it does not have; what else can go wrong depends on the operation.
    pub fn invoke(&self, operation: &str, arguments: &[u8]) -> Result<Vec<u8>> {
        host::invoke_capability(self.0, operation, arguments)
    }
}

impl Drop for Capability {
    fn drop(&mut self) {
        host::close(self.0);
    }
}
