//! WASI 0.2 for components.
//!
//! The libraries of C, Rust and Go import streams, clocks, random numbers, arguments and files even for "hello", so these
//! are linked for every component that imports them (docs/adr/0017-empty-wasi-context.md). What they lead to is empty:
//! no directory, no variable, no argument, and the input and output of the call as standard streams. A granted
//! directory or variable is what fills it, and `/tmp` of the call's own. Sockets exist where bare connections were granted
//! ([`super::sockets`]), HTTP does not.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use executor_engine::Profile;
use executor_engine::limits::EPOCH_TICK_MILLIS;
use wasmtime::Store;
use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::p2::bindings::{cli, clocks, random};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::random::{WasiRandom, WasiRandomView as _};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_io::bindings::wasi::io;

use super::coarse::Coarse;
use super::scratch::{self, Scratch};
use super::standard_output::{Kept, Line, lines};
use super::{Failed, determined, sockets};
use crate::abi::sinks::Level;
use crate::clock;
use crate::egress::Connections;
use crate::runtime::{Cancel, GuestState, Stop};

/// Most random bytes of one host call.
pub(super) const MAX_RANDOM: u64 = 64 << 10;

/// Most streams, pollables, descriptors and handles of one component.
const MAX_RESOURCES: usize = 1_000;

/// Every interface that is linked, in any version 0.2.
const INTERFACES: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// Whether an import is a WASI interface that is linked.
pub(super) fn is_linked(import: &str) -> bool {
    is_among(INTERFACES, import)
}

/// Whether an import is one of these interfaces in a version 0.2.
pub(super) fn is_among(interfaces: &[&str], import: &str) -> bool {
    import.split_once('@').is_some_and(|(interface, version)| {
        let patch = version.strip_prefix("0.2.").unwrap_or_default();
        !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit()) && interfaces.contains(&interface)
    })
}

struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

/// Links [`INTERFACES`]. Host calls that wait are asynchronous, so that a stop ends them.
pub(super) fn link(linker: &mut Linker<GuestState>, profile: Profile) -> wasmtime::Result<()> {
    type State = GuestState;
    io::error::add_to_linker::<State, Table>(linker, |state| &mut state.extras().table)?;
    io::poll::add_to_linker::<State, Table>(linker, |state| &mut state.extras().table)?;
    io::streams::add_to_linker::<State, Table>(linker, |state| &mut state.extras().table)?;
    scratch::link(linker)?;
    match profile {
        Profile::Deterministic => determined::link(linker)?,
        Profile::Standard | Profile::Large => {
            clocks::wall_clock::add_to_linker::<State, WasiClocks>(linker, State::clocks)?;
            clocks::monotonic_clock::add_to_linker::<State, WasiClocks>(linker, State::clocks)?;
            random::random::add_to_linker::<State, WasiRandom>(linker, State::random)?;
            random::insecure::add_to_linker::<State, WasiRandom>(linker, State::random)?;
            random::insecure_seed::add_to_linker::<State, WasiRandom>(linker, State::random)?;
        }
    }
    cli::exit::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::environment::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::stdin::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::stdout::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::stderr::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(linker, State::cli)
}

/// What one call's WASI functions lead to.
pub(crate) struct Wasi {
    ctx: WasiCtx,
    stdout: Kept,
    stderr: Kept,
    #[cfg_attr(
        not(feature = "scratch-files"),
        expect(dead_code, reason = "nobody asks where there are none")
    )]
    scratch: Option<Scratch>,
    connections: Option<Arc<Connections>>,
}

impl Default for Wasi {
    fn default() -> Self {
        let (stdout, stderr) = (Kept::of(0), Kept::of(0));
        Self { ctx: WasiCtx::builder().build(), stdout, stderr, scratch: None, connections: None }
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let extras = self.extras();
        let wasi = extras.wasi.get_or_insert_default();
        WasiCtxView { ctx: &mut wasi.ctx, table: &mut extras.table }
    }
}

impl GuestState {
    /// The scratch files of the call, if it was granted any.
    #[cfg(feature = "scratch-files")]
    pub(super) fn scratch(&mut self) -> Option<&Scratch> {
        self.extras().wasi.as_ref()?.scratch.as_ref()
    }

    /// The bare connections of the call, if it was granted any.
    #[cfg(feature = "sockets")]
    pub(super) fn connections(&mut self) -> Option<Arc<Connections>> {
        self.extras().wasi.as_ref()?.connections.clone()
    }
}

/// Gives a call its streams, and what was granted.
pub(super) fn prepare(state: &mut GuestState, stdout_is: StdoutIs) -> wasmtime::Result<()> {
    let (limits, reader) = (state.limits(), state.read_along());
    let stderr = Kept::of(limits.log_bytes).shown(reader.clone(), false, limits);
    let stdout = Kept::of(limits.output);
    let stdout = match stdout_is {
        StdoutIs::Log => stdout.shown(reader, true, limits),
        StdoutIs::Output => stdout,
    };
    let mut builder = WasiCtx::builder();
    builder
        .stdin(MemoryInputPipe::new(state.input.clone()))
        .stdout(stdout.clone())
        .stderr(stderr.clone())
        .max_random_size(MAX_RANDOM);
    if state.door().is_none() {
        for (name, value) in state.grants().env() {
            builder.env(name, value);
        }
    } else {
        let asked = state.variables().map_err(|_| wasmtime::Error::msg("the variables cannot be had"))?;
        for (name, value) in &asked {
            builder.env(name, value);
        }
    }
    for directory in state.grants().directories() {
        builder.preopened_dir(&directory.host, directory.guest.as_str(), directory.perms())?;
    }
    if state.door().is_some() {
        // Only modules of signers that are not trusted run in a worker.
        builder.wall_clock(Coarse::begin()).monotonic_clock(Coarse::begin());
    }
    let connections = state.grants().connections();
    if let Some(connections) = &connections {
        sockets::allow(&mut builder, connections);
    }
    let bytes = state.limits().scratch;
    let scratch = state.grants().scratch().map(|access| (access, state.limiter.with_scratch(bytes)));
    let scratch = scratch.map(|(access, account)| Scratch::new(account, access));
    let extras = state.extras();
    extras.table.set_max_capacity(MAX_RESOURCES);
    extras.wasi = Some(Box::new(Wasi { ctx: builder.build(), stdout, stderr, scratch, connections }));
    Ok(())
}

/// Takes what the guest wrote: to its standard output as output of the call or as log lines, to its standard error as
/// log lines and metrics.
pub(super) fn collect(state: &mut GuestState, stdout_is: StdoutIs) {
    let Some(wasi) = state.extras().wasi.take() else { return };
    if let Some(connections) = &wasi.connections {
        sockets::account(state, connections);
    }
    let was_shown = wasi.stderr.was_shown();
    for line in String::from_utf8_lossy(&wasi.stderr.take()).lines() {
        match Line::read(line) {
            Line::Metric(name, value) => {
                let (extras, calls) = state.extras_and_calls();
                if extras.metrics.record(&calls.limits, name, value).is_err() {
                    state.log(Some(Level::Info), Ok(line));
                }
            }
            Line::Text(level, text) if was_shown => state.keep(level, text),
            Line::Text(level, text) => state.log(Some(level), Ok(text)),
        }
    }
    match stdout_is {
        StdoutIs::Output => state.output = wasi.stdout.take(),
        StdoutIs::Log => {
            let was_shown = wasi.stdout.was_shown();
            let (contents, longest) = (wasi.stdout.take(), state.limits().log_bytes);
            // By bytes: nothing is made of a line that has no room, and one may be as long as the output of a call.
            for line in lines(&contents) {
                if line.len() > longest {
                    state.extras().log.drop_more(1);
                    continue;
                }
                let text = String::from_utf8_lossy(line);
                if was_shown {
                    state.keep(Level::Info, &text);
                } else {
                    state.log(Some(Level::Info), Ok(&text));
                }
            }
        }
    }
}

/// What becomes of the standard output.
#[derive(Debug, Clone, Copy)]
pub(super) enum StdoutIs {
    Log,
    Output,
}

/// Runs a guest's future on this thread until it ends or is ended: ticks stop it while it computes, this does while it
/// waits in a host call.
pub(super) fn run<T>(
    kill: Cancel,
    deadline: Instant,
    guest: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    // Here, and not in what is handed on: it is large, and would be copied at each step.
    let mut guest = std::pin::pin!(guest);
    let watched = async {
        // Most guests never wait, and a timer costs more than what they do.
        if let Poll::Ready(done) = futures_util::poll!(guest.as_mut()) {
            return done;
        }
        let mut tick = tokio::time::interval(Duration::from_millis(EPOCH_TICK_MILLIS));
        loop {
            tokio::select! {
                biased;
                done = &mut guest => return done,
                _ = tick.tick() => {
                    if let Some(cause) = kill.raised() {
                        return Err(Failed::Run(Stop::Killed(cause).into()));
                    }
                    if clock::monotonic() >= deadline {
                        return Err(Failed::Run(Stop::WallDeadline.into()));
                    }
                }
            }
        }
    };
    wasmtime_wasi::runtime::in_tokio(watched)
}

/// The deadline and flag of a store's call.
pub(super) fn watch(store: &Store<GuestState>) -> (Cancel, Instant) {
    (store.data().kill(), store.data().deadline())
}
