//! `demo`: the whole path on a stack in a temporary folder, then every refusal with its reason code. The expected codes
//! are asserted: a demo that shows something else fails.

mod act;
mod forge;
mod path;
mod refusals;

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use self::act::Act;
use crate::clock::Stopwatch;
use crate::exit::{Exit, OrFail as _, Outcome};
use crate::net::block_on;
use crate::output::{Output, Tone};
use crate::run::executor_failure;
use crate::stack::{Running, Tempo};

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
/// Exit code 1 when a step fails or a refusal has another code than it must have.
pub fn run(demo: &Demo, out: &Output) -> Outcome {
    let total = Stopwatch::start();
    let temporary = tempfile::Builder::new()
        .prefix("mentat-demo-")
        .tempdir()
        .or_fail(Exit::Refused, "making a temporary folder")?;
    let dir = demo.keep.clone().unwrap_or_else(|| temporary.path().join("stack"));
    heading(out, "A certificate authority, a transparency log and an executor on loopback");
    let started = Stopwatch::start();
    let stack = Running::start(&dir, None, Tempo::Demo, out)?;
    let mut act = Act::new(&stack, temporary.path(), out)?;
    act.timed("create keys, hierarchy, logs; start three servers", started.elapsed());
    for server in ["ca-service", "transparency-log", "executor"] {
        out.line(format!("  {server:<17} process {}", act::at(&stack.pids(), &format!("/{server}"))));
    }

    heading(out, "The path: certificate, signature, log, offline verification, execution, audit");
    path::walk(&mut act)?;
    heading(out, "The refusals: one thing wrong each time, and the code that says which");
    refusals::show(&mut act)?;

    let unconfined = unconfined(&act)?;
    heading(out, "What this host could not confine");
    if unconfined.is_empty() {
        out.line("  nothing: every mechanism the executor knows is in force");
    }
    for mechanism in &unconfined {
        out.line(format!("  {mechanism}"));
    }
    let steps = act.into_steps();
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
    out.value(&json!({
        "ok": true, "seconds": seconds, "unconfined": unconfined,
        "steps": steps.iter().map(|(step, time)| json!({ "step": step, "ms": time.as_secs_f64() * 1000.0 })).collect::<Vec<_>>(),
    }));
    Ok(Exit::Ok)
}

fn heading(out: &Output, text: &str) {
    out.line("");
    out.line(out.paint(Tone::Strong, text));
}

fn unconfined(act: &Act<'_>) -> Outcome<Vec<String>> {
    let client = act.executor()?;
    let status = block_on(async { client.status().await.map_err(executor_failure) })?;
    Ok(status.unconfined)
}
