//! The host's side of each interface.
#![allow(unreachable_pub, reason = "the generated bindings name these types in public positions")]

use executor_engine::limits::MAX_TRANSFER_BYTES;
use trust_store::capability::Capability;
use wasmtime::component::Resource;

use super::bindings::mentat::agent::{capability, io, log, media, metric, stream, types};
use crate::abi::ErrorCode;
use crate::abi::sinks::Level;
use crate::runtime::{GuestState, KillCause};
use crate::streams::StreamIndex;

/// A granted capability in use.
pub struct Handle(Capability);

/// A media object that was downloaded.
pub struct Object(Vec<u8>);

/// A stream of the call.
pub struct OutStream(StreamIndex);

type Answer<T> = wasmtime::Result<Result<T, types::Error>>;

fn error(code: ErrorCode) -> types::Error {
    use types::Error;
    match code {
        ErrorCode::InvalidArgument => Error::Invalid("outside the grammar or range".into()),
        ErrorCode::OutOfRange => Error::Invalid("outside the memory".into()),
        ErrorCode::NotInManifest => Error::NotInManifest,
        ErrorCode::PolicyDenied => Error::PolicyDenied("policy does not grant it".into()),
        ErrorCode::BadHandle => Error::BadHandle,
        ErrorCode::Limit => Error::Limit("a limit is reached".into()),
        ErrorCode::Io => Error::Io("input or output failed".into()),
        ErrorCode::NotSupported => Error::Unsupported,
        ErrorCode::TimedOut => Error::Timeout,
        ErrorCode::Revoked => Error::Revoked,
    }
}

impl GuestState {
    fn not_killed(&self) -> Result<(), types::Error> {
        match self.killed() {
            Some(KillCause::Revoked) => Err(types::Error::Revoked),
            Some(_) => Err(types::Error::Limit("the call is being stopped".into())),
            None => Ok(()),
        }
    }

    fn has_room(&self) -> Result<(), types::Error> {
        let held = self.extras_if_any().map_or(0, |extras| extras.resources);
        if held >= self.limits().handles { Err(error(ErrorCode::Limit)) } else { Ok(()) }
    }

    /// Gives the guest a handle.
    fn hand_out<T: Send + 'static>(&mut self, held: T) -> wasmtime::Result<Resource<T>> {
        let extras = self.extras();
        extras.resources += 1;
        Ok(extras.table.push(held)?)
    }

    /// What a handle stands for.
    fn held<T: 'static>(&mut self, handle: &Resource<T>) -> wasmtime::Result<&T> {
        Ok(self.extras().table.get(handle)?)
    }

    /// Takes a handle back.
    fn let_go<T: 'static>(&mut self, handle: Resource<T>) -> wasmtime::Result<T> {
        let extras = self.extras();
        let held = extras.table.delete(handle)?;
        extras.resources = extras.resources.saturating_sub(1);
        Ok(held)
    }
}

impl types::Host for GuestState {}

impl io::Host for GuestState {
    fn input_len(&mut self) -> wasmtime::Result<u64> {
        Ok(self.input.len() as u64)
    }

    fn read_input(&mut self, offset: u64, max: u32) -> Answer<Vec<u8>> {
        let rest =
            usize::try_from(offset).ok().and_then(|offset| self.input.get(offset..)).unwrap_or_default();
        let count = rest.len().min(max as usize).min(MAX_TRANSFER_BYTES);
        Ok(Ok(rest.get(..count).unwrap_or_default().to_vec()))
    }

    fn write_output(&mut self, data: Vec<u8>) -> Answer<()> {
        if data.len() > MAX_TRANSFER_BYTES
            || self.output.len().saturating_add(data.len()) > self.limits().output
        {
            return Ok(Err(error(ErrorCode::Limit)));
        }
        if self.output.is_empty() {
            self.output = data;
        } else {
            self.output.extend_from_slice(&data);
        }
        Ok(Ok(()))
    }
}

impl log::Host for GuestState {
    fn log(&mut self, level: types::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            types::Level::Error => Level::Error,
            types::Level::Warn => Level::Warn,
            types::Level::Info => Level::Info,
            types::Level::Debug => Level::Debug,
            types::Level::Trace => Level::Trace,
        };
        self.log_line(Some(level), message.len(), || Ok(message.as_str()));
        Ok(())
    }
}

impl metric::Host for GuestState {
    fn record_metric(&mut self, name: String, value: f64) -> Answer<()> {
        Ok(GuestState::record_metric(self, &name, value).map_err(error))
    }
}

impl capability::Host for GuestState {
    fn request(&mut self, text: String) -> Answer<Resource<Handle>> {
        if let Err(refused) = self.not_killed().and_then(|()| self.has_room()) {
            return Ok(Err(refused));
        }
        match GuestState::request(self, &text) {
            Ok(capability) => Ok(Ok(self.hand_out(Handle(capability))?)),
            Err(code) => Ok(Err(error(code))),
        }
    }
}

impl capability::HostHandle for GuestState {
    fn invoke(&mut self, handle: Resource<Handle>, operation: String, args: Vec<u8>) -> Answer<Vec<u8>> {
        if let Err(refused) = self.not_killed() {
            return Ok(Err(refused));
        }
        let capability = self.held(&handle)?.0.clone();
        Ok(GuestState::invoke(self, &capability, &operation, &args).map_err(error))
    }

    fn drop(&mut self, handle: Resource<Handle>) -> wasmtime::Result<()> {
        self.let_go(handle).map(drop)
    }
}

impl media::Host for GuestState {
    fn download(&mut self, reference: String) -> Answer<Resource<Object>> {
        if let Err(refused) = self.not_killed().and_then(|()| self.has_room()) {
            return Ok(Err(refused));
        }
        match GuestState::download(self, &reference) {
            Ok(bytes) => {
                self.extras().resource_bytes += bytes.len();
                Ok(Ok(self.hand_out(Object(bytes))?))
            }
            Err(code) => Ok(Err(error(code))),
        }
    }

    fn upload(&mut self, media_type: String, data: Vec<u8>) -> Answer<String> {
        if let Err(refused) = self.not_killed() {
            return Ok(Err(refused));
        }
        Ok(GuestState::upload(self, &media_type, &data).map_err(error))
    }
}

impl media::HostObject for GuestState {
    fn size(&mut self, object: Resource<Object>) -> wasmtime::Result<u64> {
        Ok(self.held(&object)?.0.len() as u64)
    }

    fn read(&mut self, object: Resource<Object>, offset: u64, max: u32) -> Answer<Vec<u8>> {
        let bytes = &self.held(&object)?.0;
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        let count = rest.len().min(max as usize).min(MAX_TRANSFER_BYTES);
        Ok(Ok(rest.get(..count).unwrap_or_default().to_vec()))
    }

    fn drop(&mut self, object: Resource<Object>) -> wasmtime::Result<()> {
        let Object(bytes) = self.let_go(object)?;
        let extras = self.extras();
        extras.resource_bytes = extras.resource_bytes.saturating_sub(bytes.len());
        Ok(())
    }
}

impl stream::Host for GuestState {}

impl stream::HostOutStream for GuestState {
    fn open(&mut self, id: String) -> Answer<Resource<OutStream>> {
        if let Err(refused) = self.not_killed().and_then(|()| self.has_room()) {
            return Ok(Err(refused));
        }
        match self.open_stream(&id) {
            Ok(stream) => Ok(Ok(self.hand_out(OutStream(stream))?)),
            Err(code) => Ok(Err(error(code))),
        }
    }

    fn write(&mut self, stream: Resource<OutStream>, chunk: Vec<u8>) -> Answer<u32> {
        if let Err(refused) = self.not_killed() {
            return Ok(Err(refused));
        }
        let index = self.held(&stream)?.0;
        Ok(self.write_stream(index, &chunk).map_err(error))
    }

    fn end(&mut self, stream: Resource<OutStream>) -> Answer<u64> {
        let index = self.held(&stream)?.0;
        Ok(self.end_stream(index).map_err(error))
    }

    fn drop(&mut self, stream: Resource<OutStream>) -> wasmtime::Result<()> {
        self.let_go(stream).map(drop)
    }
}
