//! `demo`: the whole path on a stack in a temporary folder, then every refusal with its reason code. The expected codes
//! are asserted: a demo that shows something else fails.

mod act;
mod forge;
mod path;
mod refusals;
mod room;
mod scene;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use self::act::{Act, Played};
use crate::clock::Stopwatch;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::interruption::Interruption;
use crate::net::block_on;
use crate::output::{Output, Tone};
use crate::run::executor_failure;
use crate::stack::{RawLog, Running, Start, Tempo, Transport};

/// `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Keep the stack's folder afterwards and put it here
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Runs the demonstration to its end and leaves nothing running.
///
/// # Errors
/// Exit code 1 when a step fails, a refusal has another code than it must have, a server ends by itself, or Ctrl-C asks
/// for the end; 78 when the servers cannot be started.
pub fn run(demo: &Demo, out: &Output) -> Outcome {
    let total = Stopwatch::start();
    if let Some(keep) = &demo.keep
        && keep.join("stack.json").exists()
    {
        // The demonstration ends by revoking the intermediate: not on a stack that somebody uses.
        return Err(Failure::refused(format!("{} holds a stack already", keep.display()))
            .hint("give --keep a folder that does not exist yet"));
    }
    room::check(&std::env::temp_dir())?;
    if let Some(there) = demo.keep.iter().flat_map(|keep| keep.ancestors()).find(|folder| folder.is_dir()) {
        room::check(there)?;
    }
    let interruption = Interruption::listen()?;
    let temporary = tempfile::Builder::new()
        .prefix("mentat-demo-")
        .tempdir()
        .or_fail(Exit::Refused, "making a temporary folder")?;
    let dir = demo.keep.clone().unwrap_or_else(|| temporary.path().join("stack"));
    heading(out, "A certificate authority, a transparency log and an executor on loopback");
    let started = Stopwatch::start();
    let start =
        Start { port_base: None, tempo: Tempo::Demo, raw_log: RawLog::Wanted, transport: Transport::Http };
    let full = |failure| room::explained(failure, temporary.path());
    let stack = Running::start(&dir, &start, &interruption, out).map_err(full)?;
    let mut act = Act::new(stack, interruption, temporary.path(), out)?;
    act.timed("create keys, hierarchy, logs; start three servers", started.elapsed());
    for server in ["ca-service", "transparency-log", "executor"] {
        out.line(format!("  {server:<17} process {}", act::at(&act.stack().pids(), &format!("/{server}"))));
    }
    let unconfined = match show(&mut act, out) {
        Ok(unconfined) => unconfined,
        Err(failure) => return Err(full(because(failure, &mut act, demo))),
    };
    let Played { stack, steps, answer, refusals } = act.into_parts();
    let stopping = Stopwatch::start();
    stack.stop();
    let stopped = stopping.elapsed();

    heading(out, "How long it took");
    for (step, time) in &steps {
        out.line(format!("  {:>8.0} ms  {step}", time.as_secs_f64() * 1000.0));
    }
    out.line(format!("  {:>8.0} ms  stop the three servers", stopped.as_secs_f64() * 1000.0));
    let seconds = total.elapsed().as_secs_f64();
    out.line(out.paint(
        Tone::Good,
        format!("the demo ended as it must, after {seconds:.1} s; nothing is left running"),
    ));
    out.value(|| json!({
        "ok": true, "answer": answer,
        "refusals": refusals.iter().map(|(what, code)| json!({ "what": what, "code": code })).collect::<Vec<_>>(),
        "seconds": seconds, "unconfined": unconfined,
        "steps": steps.iter().map(|(step, time)| json!({ "step": step, "ms": time.as_secs_f64() * 1000.0 })).collect::<Vec<_>>(),
    }));
    Ok(Exit::Ok)
}

/// Path, refusals, and what the host could not confine, which is also returned.
fn show(act: &mut Act<'_>, out: &Output) -> Outcome<Vec<String>> {
    heading(out, "The path: certificate, signature, log, offline verification, execution, audit");
    path::walk(act)?;
    heading(out, "The refusals: one thing wrong each time, and the code that says which");
    refusals::show(act)?;
    let unconfined = unconfined(act)?;
    heading(out, "What this host could not confine");
    if unconfined.is_empty() {
        out.line("  nothing: every mechanism the executor knows is in force");
    }
    for mechanism in &unconfined {
        out.line(format!("  {mechanism}"));
    }
    Ok(unconfined)
}

/// Why a step failed: an interruption or a server that died explains it, and is reported instead.
fn because(failure: Failure, act: &mut Act<'_>, demo: &Demo) -> Failure {
    let watch = Stopwatch::start();
    while watch.elapsed() < NOTICED_WITHIN {
        if let Err(interrupted) = act.interruption().check() {
            return interrupted;
        }
        if let Err(death) = act.check() {
            // Without --keep the folder goes away with this process, the logs in it too.
            return match demo.keep {
                Some(_) => death,
                None => {
                    death.hint("`mentatctl demo --keep DIR` keeps the stack's folder with the servers' logs")
                }
            };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    failure
}

/// A connection breaks a moment before the process that held it counts as ended.
const NOTICED_WITHIN: Duration = Duration::from_millis(500);

fn heading(out: &Output, text: &str) {
    out.line("");
    out.line(out.paint(Tone::Strong, text));
}

fn unconfined(act: &Act<'_>) -> Outcome<Vec<String>> {
    let client = act.executor()?;
    let status = block_on(async { client.status().await.map_err(executor_failure) })?;
    Ok(status.unconfined)
}
