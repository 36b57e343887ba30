//! Handles of one instance: start at random, count up, are never reused, and die with the instance.

use super::ErrorCode;
use crate::streams::StreamIndex;
use trust_store::capability::Capability;

/// What a handle stands for.
#[derive(Debug)]
pub(crate) enum Resource {
    /// A result the guest reads piece by piece.
    Buffer(Vec<u8>),
    /// A capability the guest asked for and got.
    Capability(Capability),
    /// A stream of the call.
    Stream(StreamIndex),
}

/// The live handles of one instance.
#[derive(Debug, Default)]
pub(crate) struct HandleTable {
    entries: Vec<(i32, Resource)>,
    next: i32,
}

impl HandleTable {
    /// Gives `resource` a handle.
    pub(crate) fn insert(&mut self, resource: Resource, limit: usize) -> Result<i32, ErrorCode> {
        if self.entries.len() >= limit {
            return Err(ErrorCode::Limit);
        }
        if self.next == 0 {
            // The first handle of an instance: a guess from another instance's numbers should not fit here.
            let mut bytes = [0u8; 4];
            aws_lc_rs::rand::fill(&mut bytes).map_err(|_| ErrorCode::Io)?;
            self.begin_at(bytes);
        }
        let handle = self.next;
        self.next = handle.checked_add(1).ok_or(ErrorCode::Limit)?;
        self.entries.push((handle, resource));
        Ok(handle)
    }

    /// Chooses the first handle.
    pub(crate) fn begin_at(&mut self, drawn: [u8; 4]) {
        self.next = 1 + (i32::from_le_bytes(drawn) & 0x3fff_ffff);
    }

    /// What a handle stands for.
    pub(crate) fn get(&self, handle: i32) -> Result<&Resource, ErrorCode> {
        self.entries.iter().find(|(h, _)| *h == handle).map(|(_, r)| r).ok_or(ErrorCode::BadHandle)
    }

    /// The bytes of a buffer handle.
    pub(crate) fn buffer(&self, handle: i32) -> Result<&[u8], ErrorCode> {
        match self.get(handle)? {
            Resource::Buffer(bytes) => Ok(bytes),
            Resource::Capability(_) | Resource::Stream(_) => Err(ErrorCode::BadHandle),
        }
    }

    /// The stream of a stream handle.
    pub(crate) fn stream(&self, handle: i32) -> Result<StreamIndex, ErrorCode> {
        match self.get(handle)? {
            Resource::Stream(index) => Ok(*index),
            Resource::Buffer(_) | Resource::Capability(_) => Err(ErrorCode::BadHandle),
        }
    }

    /// Ends a handle.
    pub(crate) fn close(&mut self, handle: i32) -> Result<(), ErrorCode> {
        let position = self.entries.iter().position(|(h, _)| *h == handle).ok_or(ErrorCode::BadHandle)?;
        self.entries.swap_remove(position);
        Ok(())
    }

    /// Bytes that buffers hold.
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.entries
            .iter()
            .map(|(_, resource)| match resource {
                Resource::Buffer(bytes) => bytes.len(),
                Resource::Capability(_) | Resource::Stream(_) => 0,
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_positive_and_never_reused() {
        let mut table = HandleTable::default();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let handle = table.insert(Resource::Buffer(vec![1]), 1).unwrap();
            assert!(handle > 0 && seen.insert(handle));
            assert_eq!(table.insert(Resource::Buffer(vec![]), 1), Err(ErrorCode::Limit));
            table.close(handle).unwrap();
            assert_eq!(table.close(handle), Err(ErrorCode::BadHandle));
            assert!(matches!(table.get(handle), Err(ErrorCode::BadHandle)));
        }
    }

    #[test]
    fn two_instances_do_not_start_alike() {
        let first = |()| HandleTable::default().insert(Resource::Buffer(vec![]), 1).unwrap();
        let starts: std::collections::HashSet<i32> = [(); 16].map(first).into_iter().collect();
        assert!(starts.len() > 8);
    }
}
