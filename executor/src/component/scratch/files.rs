//! `wasi:filesystem` for guests whose directories are of two kinds: the host's, which the library knows, and scratch.
//!
//! A descriptor is a number in the guest's table; what lies there says whose it is. Whatever is not ours is the library's.
#![allow(unreachable_pub, reason = "traits of generated bindings are implemented for these types")]

use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtxView, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, DirectoryEntryStream, ErrorCode,
    Filesize, Host, HostDescriptor, HostDirectoryEntryStream, MetadataHashValue, NewTimestamp, OpenFlags,
    PathFlags,
};
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use super::Scratch;
use super::descriptors::{Listing, Opened};
use super::streams::{Reading, Writing};
use crate::admission::SCRATCH;
use crate::runtime::GuestState;

/// The files of a guest.
pub struct Files<'a> {
    host: WasiFilesystemCtxView<'a>,
    scratch: Option<Opened>,
}

/// The same, for linkers.
struct FilesOfGuest;

impl HasData for FilesOfGuest {
    type Data<'a> = Files<'a>;
}

impl Files<'_> {
    /// To list directories.
    pub(in crate::component) fn roots(state: &mut GuestState) -> Files<'_> {
        let scratch = state.scratch().map(Scratch::open);
        Files { host: state.filesystem(), scratch }
    }

    /// For everything else.
    pub(in crate::component) fn of(state: &mut GuestState) -> Files<'_> {
        Files { host: state.filesystem(), scratch: None }
    }

    /// What a descriptor stands for, if it is one of ours.
    fn ours(&self, descriptor: &Resource<Descriptor>) -> Option<&Opened> {
        self.host.table.get(&Resource::<Opened>::new_borrow(descriptor.rep())).ok()
    }

    fn push(&mut self, opened: Opened) -> wasmtime::Result<Resource<Descriptor>> {
        Ok(Resource::new_own(self.host.table.push(opened)?.rep()))
    }

    fn output(&mut self, stream: Writing) -> FsResult<Resource<DynOutputStream>> {
        let stream: DynOutputStream = Box::new(stream);
        Ok(self.host.table.push(stream)?)
    }
}

impl preopens::Host for Files<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let mut directories = preopens::Host::get_directories(&mut self.host)?;
        if let Some(scratch) = self.scratch.take() {
            directories.push((self.push(scratch)?, SCRATCH.to_owned()));
        }
        Ok(directories)
    }
}

impl Host for Files<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        Host::convert_error_code(&mut self.host, error)
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        Host::filesystem_error_code(&mut self.host, error)
    }
}

impl HostDescriptor for Files<'_> {
    async fn advise(
        &mut self,
        descriptor: Resource<Descriptor>,
        offset: Filesize,
        length: Filesize,
        advice: Advice,
    ) -> FsResult<()> {
        match self.ours(&descriptor) {
            Some(_) => Ok(()),
            None => self.host.advise(descriptor, offset, length, advice).await,
        }
    }

    async fn sync_data(&mut self, descriptor: Resource<Descriptor>) -> FsResult<()> {
        match self.ours(&descriptor) {
            Some(_) => Ok(()),
            None => self.host.sync_data(descriptor).await,
        }
    }

    async fn get_flags(&mut self, descriptor: Resource<Descriptor>) -> FsResult<DescriptorFlags> {
        match self.ours(&descriptor) {
            Some(ours) => Ok(ours.flags()),
            None => self.host.get_flags(descriptor).await,
        }
    }

    async fn get_type(&mut self, descriptor: Resource<Descriptor>) -> FsResult<DescriptorType> {
        match self.ours(&descriptor) {
            Some(ours) => Ok(ours.stat()?.type_),
            None => self.host.get_type(descriptor).await,
        }
    }

    async fn set_size(&mut self, descriptor: Resource<Descriptor>, size: Filesize) -> FsResult<()> {
        match self.ours(&descriptor) {
            Some(ours) => Ok(ours.resize(size)?),
            None => self.host.set_size(descriptor, size).await,
        }
    }

    async fn set_times(
        &mut self,
        descriptor: Resource<Descriptor>,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        match self.ours(&descriptor) {
            Some(_) => Err(ErrorCode::Unsupported.into()),
            None => self.host.set_times(descriptor, accessed, modified).await,
        }
    }

    async fn read(
        &mut self,
        descriptor: Resource<Descriptor>,
        length: Filesize,
        offset: Filesize,
    ) -> FsResult<(Vec<u8>, bool)> {
        match self.ours(&descriptor) {
            Some(ours) => Ok(ours.read(offset, length)?),
            None => self.host.read(descriptor, length, offset).await,
        }
    }

    async fn write(
        &mut self,
        descriptor: Resource<Descriptor>,
        bytes: Vec<u8>,
        offset: Filesize,
    ) -> FsResult<Filesize> {
        match self.ours(&descriptor) {
            Some(ours) => {
                ours.write(offset, &bytes)?;
                Ok(bytes.len() as Filesize)
            }
            None => self.host.write(descriptor, bytes, offset).await,
        }
    }

    async fn read_directory(
        &mut self,
        descriptor: Resource<Descriptor>,
    ) -> FsResult<Resource<DirectoryEntryStream>> {
        let Some(ours) = self.ours(&descriptor) else { return self.host.read_directory(descriptor).await };
        let listing = ours.list()?;
        Ok(Resource::new_own(self.host.table.push(listing)?.rep()))
    }

    async fn sync(&mut self, descriptor: Resource<Descriptor>) -> FsResult<()> {
        match self.ours(&descriptor) {
            Some(_) => Ok(()),
            None => self.host.sync(descriptor).await,
        }
    }

    async fn create_directory_at(&mut self, descriptor: Resource<Descriptor>, path: String) -> FsResult<()> {
        match self.ours(&descriptor) {
            Some(ours) => Ok(ours.create_directory_at(&path)?),
            None => self.host.create_directory_at(descriptor, path).await,
        }
    }

    async fn stat(&mut self, descriptor: Resource<Descriptor>) -> FsResult<DescriptorStat> {
        match self.ours(&descriptor) {
            Some(ours) => Ok(ours.stat()?),
            None => self.host.stat(descriptor).await,
        }
    }

    async fn stat_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
    ) -> FsResult<DescriptorStat> {
        match self.ours(&descriptor) {
            Some(ours) => Ok(ours.stat_at(&path)?),
            None => self.host.stat_at(descriptor, flags, path).await,
        }
    }

    async fn set_times_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        match self.ours(&descriptor) {
            Some(_) => Err(ErrorCode::Unsupported.into()),
            None => self.host.set_times_at(descriptor, flags, path, accessed, modified).await,
        }
    }

    /// A file has one name here, so that none outlives what it is counted by.
    async fn link_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        flags: PathFlags,
        old: String,
        into: Resource<Descriptor>,
        new: String,
    ) -> FsResult<()> {
        if self.ours(&descriptor).is_some() || self.ours(&into).is_some() {
            return Err(ErrorCode::NotPermitted.into());
        }
        self.host.link_at(descriptor, flags, old, into, new).await
    }

    async fn open_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
        open: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        let Some(ours) = self.ours(&descriptor) else {
            return self.host.open_at(descriptor, path_flags, path, open, flags).await;
        };
        let opened = ours.open_at(&path, open, flags)?;
        self.push(opened).map_err(FsError::trap)
    }

    fn drop(&mut self, descriptor: Resource<Descriptor>) -> wasmtime::Result<()> {
        if self.ours(&descriptor).is_none() {
            return HostDescriptor::drop(&mut self.host, descriptor);
        }
        self.host.table.delete(Resource::<Opened>::new_own(descriptor.rep()))?;
        Ok(())
    }

    async fn readlink_at(&mut self, descriptor: Resource<Descriptor>, path: String) -> FsResult<String> {
        match self.ours(&descriptor) {
            Some(ours) => Ok(ours.readlink_at(&path)?),
            None => self.host.readlink_at(descriptor, path).await,
        }
    }

    async fn remove_directory_at(&mut self, descriptor: Resource<Descriptor>, path: String) -> FsResult<()> {
        match self.ours(&descriptor) {
            Some(ours) => Ok(ours.remove_directory_at(&path)?),
            None => self.host.remove_directory_at(descriptor, path).await,
        }
    }

    async fn rename_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        old: String,
        into: Resource<Descriptor>,
        new: String,
    ) -> FsResult<()> {
        match (self.ours(&descriptor), self.ours(&into)) {
            (Some(ours), Some(into)) => Ok(ours.rename_at(&old, into, &new)?),
            (None, None) => self.host.rename_at(descriptor, old, into, new).await,
            _ => Err(ErrorCode::CrossDevice.into()),
        }
    }

    async fn symlink_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        target: String,
        path: String,
    ) -> FsResult<()> {
        match self.ours(&descriptor) {
            Some(_) => Err(ErrorCode::NotPermitted.into()),
            None => self.host.symlink_at(descriptor, target, path).await,
        }
    }

    async fn unlink_file_at(&mut self, descriptor: Resource<Descriptor>, path: String) -> FsResult<()> {
        match self.ours(&descriptor) {
            Some(ours) => Ok(ours.unlink_file_at(&path)?),
            None => self.host.unlink_file_at(descriptor, path).await,
        }
    }

    fn read_via_stream(
        &mut self,
        descriptor: Resource<Descriptor>,
        offset: Filesize,
    ) -> FsResult<Resource<DynInputStream>> {
        let Some(ours) = self.ours(&descriptor) else { return self.host.read_via_stream(descriptor, offset) };
        ours.may_read()?;
        let stream: DynInputStream = Box::new(Reading::new(ours.again(), offset));
        Ok(self.host.table.push(stream)?)
    }

    fn write_via_stream(
        &mut self,
        descriptor: Resource<Descriptor>,
        offset: Filesize,
    ) -> FsResult<Resource<DynOutputStream>> {
        let Some(ours) = self.ours(&descriptor) else {
            return self.host.write_via_stream(descriptor, offset);
        };
        ours.may_write()?;
        let stream = Writing::new(ours.again(), Some(offset));
        self.output(stream)
    }

    fn append_via_stream(&mut self, descriptor: Resource<Descriptor>) -> FsResult<Resource<DynOutputStream>> {
        let Some(ours) = self.ours(&descriptor) else { return self.host.append_via_stream(descriptor) };
        ours.may_write()?;
        let stream = Writing::new(ours.again(), None);
        self.output(stream)
    }

    async fn is_same_object(
        &mut self,
        one: Resource<Descriptor>,
        other: Resource<Descriptor>,
    ) -> wasmtime::Result<bool> {
        match (self.ours(&one), self.ours(&other)) {
            (Some(one), Some(other)) => Ok(one.is_same(other)),
            (None, None) => self.host.is_same_object(one, other).await,
            _ => Ok(false),
        }
    }

    async fn metadata_hash(&mut self, descriptor: Resource<Descriptor>) -> FsResult<MetadataHashValue> {
        match self.ours(&descriptor) {
            Some(ours) => Ok(ours.hash()),
            None => self.host.metadata_hash(descriptor).await,
        }
    }

    async fn metadata_hash_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        match self.ours(&descriptor) {
            Some(ours) => Ok(ours.hash_at(&path)?),
            None => self.host.metadata_hash_at(descriptor, flags, path).await,
        }
    }
}

impl HostDirectoryEntryStream for Files<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        match self.host.table.get_mut(&Resource::<Listing>::new_borrow(stream.rep())) {
            Ok(listing) => Ok(listing.tell()?.map(|(name, type_)| DirectoryEntry { type_, name })),
            Err(_) => self.host.read_directory_entry(stream).await,
        }
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        if self.host.table.get(&Resource::<Listing>::new_borrow(stream.rep())).is_err() {
            return HostDirectoryEntryStream::drop(&mut self.host, stream);
        }
        self.host.table.delete(Resource::<Listing>::new_own(stream.rep()))?;
        Ok(())
    }
}

/// Links both interfaces of files.
pub(in crate::component) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    preopens::add_to_linker::<GuestState, FilesOfGuest>(linker, Files::roots)?;
    types::add_to_linker::<GuestState, FilesOfGuest>(linker, Files::of)
}
