//! The compile worker: one module's bytes in, one artifact out, then exit.
//!
//! Translating untrusted WebAssembly is the least trusted work of the whole product, so it happens in a process
//! of its own that gives up everything before it reads the first byte: no files, no sockets, no child processes,
//! bounded memory, processor time and output. It holds no key; what it writes is authenticated by its parent and
//! can spoil at most the artifact of the very module it was given.
//!
//! The name of a profile as its only argument gives a job the time and memory of that profile.
//!
//! Wire format: [`executor_engine::job`]. Exit codes: 0 a reply was written (also a refusal), 70 the sandbox could
//! not be closed, 74 the streams failed, 2 unknown argument.

#![forbid(unsafe_code)]

mod adapt;
mod compile;
mod confine;

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use executor_engine::job::{JobHeader, RefusalCode, Reply};
use executor_engine::{Profile, limits};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => work(Profile::Standard),
        (Some("large"), None) => work(Profile::Large),
        (Some("probe"), Some(act)) => probe(&act),
        _ => {
            complain("usage: executor-compiler [large]    (one job on standard input)");
            complain("       executor-compiler probe ACT  (tries ACT inside the sandbox; must not succeed)");
            ExitCode::from(2)
        }
    }
}

/// One job, with what this profile gives to it.
fn work(profile: Profile) -> ExitCode {
    // The compiler's own tables and the processor's features are set up while nothing hostile is in reach.
    let compilers = match compile::Compilers::new() {
        Ok(compilers) => compilers,
        Err(error) => return refuse_to_start(&error),
    };
    if let Err(error) = confine::close(profile) {
        return refuse_to_start(&error);
    }
    let outcome = read_job().and_then(|job| match job {
        Some((header, module)) => answer(&compilers, &header, &module),
        None => reply(&Reply::Refused { code: RefusalCode::Internal, detail: "malformed job" }, &[]),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("executor-compiler: {error}"));
            ExitCode::from(74)
        }
    }
}

fn answer(compilers: &compile::Compilers, header: &JobHeader, module: &[u8]) -> std::io::Result<()> {
    match compilers.compile(header, module) {
        Ok(compiled) => reply(
            &Reply::Compiled {
                target: compile::TARGET,
                compatibility: compiled.compatibility,
                artifact: &compiled.artifact,
            },
            &compiled.artifact,
        ),
        Err(refusal) => reply(&Reply::Refused { code: refusal.code, detail: &refusal.detail }, &[]),
    }
}

fn read_job() -> std::io::Result<Option<(JobHeader, Vec<u8>)>> {
    let mut input = std::io::stdin().lock();
    let mut head = [0u8; JobHeader::SIZE];
    input.read_exact(&mut head)?;
    let Ok(header) = JobHeader::decode(&head) else { return Ok(None) };
    let mut module = Vec::new();
    // One byte more than promised, so that a longer stream is seen without reading all of it.
    input.take(limits::MAX_MODULE_BYTES as u64 + 1).read_to_end(&mut module)?;
    Ok((module.len() as u64 == header.length).then_some((header, module)))
}

fn reply(reply: &Reply<'_>, artifact: &[u8]) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(&reply.encode_head())?;
    output.write_all(artifact)?;
    output.flush()
}

fn probe(act: &str) -> ExitCode {
    if let Err(error) = confine::close(Profile::Standard) {
        return refuse_to_start(&error);
    }
    match confine::attempt(act) {
        Some(true) => ExitCode::SUCCESS, // the act succeeded: the sandbox leaks
        Some(false) => ExitCode::from(1),
        None => ExitCode::from(2),
    }
}

fn refuse_to_start(error: &anyhow::Error) -> ExitCode {
    complain(&format!("executor-compiler: refuses to start: {error:#}"));
    ExitCode::from(70)
}

fn complain(line: &str) {
    // Standard error may be closed; there is nobody else to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}
