//! The one module of this workspace that uses `unsafe`: turning authenticated machine code into a module.
//!
//! JUSTIFICATION: wasmtime cannot check that bytes which claim to be its own machine code are. Loading them is
//! therefore an unsafe promise of the caller, and there is no safe way to run code that was compiled in another
//! process. The promise is kept by [`Sealed`]: it owns an anonymous file that is sealed against every change, and
//! it exists only after the tag over exactly these bytes was recomputed with this node's key, here or, for a worker process,
//! in the executor that passed the file on.
//!
//! What a worker must not be able to map is tried here as well, for its self test.
#![allow(unsafe_code, reason = "the only place where machine code is mapped; see the module's documentation")]

use std::fs::File;
use std::io::{Read, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;

use aws_lc_rs::hmac;
use executor_engine::artifact::TAG_SIZE;
use executor_engine::limits::MAX_ARTIFACT_BYTES;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use wasmtime::component::Component;
use wasmtime::{Engine, Module, Precompiled};

/// Seals that together make an anonymous file immutable for good.
const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE).union(SealFlags::SEAL);

/// Machine code that this node made, authenticated from the very bytes that will be mapped.
///
/// Only [`Sealed::authenticate`] makes one, and in a worker [`Sealed::received`] takes one over.
pub(crate) struct Sealed {
    file: File,
}

/// Why bytes are not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    #[error("the artifact's authentication tag does not match")]
    Tag,
    #[error("the artifact is not {expected} bytes long")]
    Length { expected: u64 },
    #[error("an anonymous sealed file is not available")]
    Host(#[source] std::io::Error),
}

impl Sealed {
    /// Copies `length` bytes of `artifact` into a sealed anonymous file, then checks the tag over `head` and the
    /// sealed bytes. Checking after sealing leaves no moment in which checked bytes could still change.
    pub(crate) fn authenticate(
        head: &[u8],
        artifact: &mut dyn Read,
        length: u64,
        tag: &[u8; TAG_SIZE],
        key: &hmac::Key,
    ) -> Result<Self, SealError> {
        if length > MAX_ARTIFACT_BYTES as u64 {
            return Err(SealError::Length { expected: length });
        }
        let host = |error: std::io::Error| SealError::Host(error);
        let descriptor = memfd_create(c"mentat-artifact", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(|errno| host(errno.into()))?;
        let mut file = File::from(descriptor);
        if std::io::copy(&mut artifact.take(length), &mut file).map_err(host)? != length {
            return Err(SealError::Length { expected: length });
        }
        file.flush().map_err(host)?;
        fcntl_add_seals(&file, SEALS).map_err(|errno| host(errno.into()))?;
        let seals = fcntl_get_seals(&file).map_err(|errno| host(errno.into()))?;
        if !seals.contains(SEALS) {
            return Err(SealError::Host(std::io::Error::other("the file cannot be sealed")));
        }
        file.rewind().map_err(host)?;
        let mut context = hmac::Context::with_key(key);
        context.update(head);
        let mut chunk = vec![0u8; 256 << 10];
        let mut seen = 0u64;
        loop {
            let count = file.read(&mut chunk).map_err(host)?;
            let Some(part) = chunk.get(..count).filter(|part| !part.is_empty()) else { break };
            context.update(part);
            seen += count as u64;
        }
        if seen != length {
            return Err(SealError::Length { expected: length });
        }
        aws_lc_rs::constant_time::verify_slices_are_equal(context.sign().as_ref(), tag)
            .map_err(|_| SealError::Tag)?;
        Ok(Self { file })
    }

    /// In a worker: takes a file of `length` bytes that the executor authenticated and sealed. It comes over the socket
    /// that the worker was born with, whose other end is the executor's alone; that it is sealed is checked again.
    pub(crate) fn received(file: File, length: u64) -> Result<Self, SealError> {
        let host = |error: std::io::Error| SealError::Host(error);
        let seals = fcntl_get_seals(&file).map_err(|errno| host(errno.into()))?;
        if !seals.contains(SEALS) {
            return Err(SealError::Host(std::io::Error::other("the file is not sealed")));
        }
        if length > MAX_ARTIFACT_BYTES as u64 || file.metadata().map_err(host)?.len() != length {
            return Err(SealError::Length { expected: length });
        }
        Ok(Self { file })
    }

    /// The sealed file, for the worker that maps it.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of it.
    pub(crate) fn length(&self) -> u64 {
        self.file.metadata().map_or(0, |meta| meta.len())
    }

    /// Whether the machine code is a component's.
    pub(crate) fn holds_component(&self) -> wasmtime::Result<bool> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(matches!(Engine::detect_precompiled_file(path)?, Some(Precompiled::Component)))
    }

    /// Maps a core module.
    pub(crate) fn core(self, engine: &Engine) -> wasmtime::Result<Module> {
        // SAFETY: the contract is that the bytes come unmodified from `Engine::precompile_module` and that the
        // mapping never changes. The tag over these bytes was made with a key that only this process's cache
        // holds, and the cache makes tags only for what its own confined worker returned. The file is anonymous
        // and sealed against writing, growing, shrinking and further sealing, so no mapping of it can change.
        unsafe { Module::deserialize_open_file(engine, self.file) }
    }

    /// Copies a component into memory of this process, where its name cannot be opened: a worker opens nothing.
    pub(crate) fn component_from_copy(mut self, engine: &Engine) -> wasmtime::Result<Component> {
        let mut code = Vec::new();
        self.file.rewind()?;
        self.file.take(MAX_ARTIFACT_BYTES as u64).read_to_end(&mut code)?;
        // SAFETY: as for core modules, for a file that the executor authenticated; wasmtime copies the bytes and
        // nothing else has them.
        unsafe { Component::deserialize(engine, &code) }
    }

    /// Maps a component.
    pub(crate) fn component(self, engine: &Engine) -> wasmtime::Result<Component> {
        // Components have no call that takes a descriptor; the descriptor's own name reaches the same file.
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        // SAFETY: as for core modules. `self.file` stays open during the call, so the name cannot have been
        // reused for another file.
        unsafe { Component::deserialize_file(engine, path) }
    }
}

/// Asks the system for memory that is shared and has no name, and gives it back at once. No limit of a process counts such memory: a
/// worker must get none.
pub(crate) fn share_memory() -> std::io::Result<()> {
    const LENGTH: usize = 4096;
    // SAFETY: the system chooses a free place, so that nothing that is in use is mapped over; the address is used for nothing but
    // giving the same place back.
    unsafe {
        let place = mmap_anonymous(std::ptr::null_mut(), LENGTH, ProtFlags::READ, MapFlags::SHARED)?;
        munmap(place, LENGTH)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[1; 32])
    }

    fn tag(head: &[u8], body: &[u8]) -> [u8; TAG_SIZE] {
        let mut context = hmac::Context::with_key(&key());
        context.update(head);
        context.update(body);
        context.sign().as_ref().try_into().unwrap()
    }

    #[test]
    fn accepts_exactly_the_authenticated_bytes() {
        let tag = tag(b"head", b"body");
        let check = |head: &[u8], mut body: &[u8], length: u64| {
            Sealed::authenticate(head, &mut body, length, &tag, &key()).map(|_| ())
        };
        assert!(check(b"head", b"body", 4).is_ok());
        assert!(matches!(check(b"heat", b"body", 4), Err(SealError::Tag)));
        assert!(matches!(check(b"head", b"bodz", 4), Err(SealError::Tag)));
        assert!(matches!(check(b"head", b"bod", 4), Err(SealError::Length { expected: 4 })));
        assert!(matches!(check(b"head", b"bodymore", 5), Err(SealError::Tag)));
    }

    #[test]
    fn a_sealed_file_cannot_be_changed() {
        let sealed = Sealed::authenticate(b"h", &mut &b"body"[..], 4, &tag(b"h", b"body"), &key()).unwrap();
        let path = format!("/proc/self/fd/{}", sealed.file.as_raw_fd());
        let again = std::fs::OpenOptions::new().write(true).open(path);
        assert!(again.is_err() || again.unwrap().write_all(b"x").is_err());
        assert!(sealed.file.set_len(1).is_err() && sealed.file.set_len(9).is_err());
    }
}
