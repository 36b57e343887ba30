//! `executor drain` and `undrain`: taking an executor out of service and back; of some releases see `hold`.

use std::time::Duration;

use clap::Args;
use executor_api::Status;
use serde_json::json;

use super::hold::{self, Selection};
use crate::exit::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::net::block_on;
use crate::output::{Output, Tone};
use crate::run::{ExecutorFlags, executor_failure};

/// Between two looks at what still runs.
const LOOK: Duration = Duration::from_millis(200);

/// `executor drain`.
#[derive(Debug, Args)]
pub struct Drain {
    /// Wait until nothing runs any more, at most so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
    /// Seconds after which what runs of the named releases is stopped; 30 if absent
    #[arg(long, value_name = "SECONDS")]
    within: Option<u32>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    executor: ExecutorFlags,
}

/// `executor undrain`.
#[derive(Debug, Args)]
pub struct Undrain {
    #[command(flatten)]
    executor: ExecutorFlags,
}

/// Runs `executor drain`: exit code 0 when the executor refuses calls and, with `--wait`, nothing runs any more; 1 when
/// something still does. With releases named it drains those: exit codes as of `executor stop`.
///
/// # Errors
/// When the executor cannot be asked.
pub fn drain(drain: &Drain, home: &Home, out: &Output) -> Outcome {
    if !drain.selection.is_empty() {
        return hold::drain(&drain.selection, (drain.within, drain.wait), &drain.executor, home, out);
    }
    if drain.selection.says_more() || drain.within.is_some() {
        // Without releases it is the whole executor that is drained, which was not what was meant.
        return Err(Failure::usage("no release is named")
            .hint("name a certificate, a log index, a signer, an agent or a module"));
    }
    let client = drain.executor.client(home)?;
    let status = block_on(async {
        let mut status = client.drain().await.map_err(executor_failure)?;
        let looks = Duration::from_secs(drain.wait).as_millis() / LOOK.as_millis();
        for _ in 0..looks {
            if status.live_instances == 0 {
                break;
            }
            tokio::time::sleep(LOOK).await;
            status = client.status().await.map_err(executor_failure)?;
        }
        Ok(status)
    })?;
    say("drained", &status, out);
    Ok(if drain.wait > 0 && status.live_instances > 0 { Exit::Failure } else { Exit::Ok })
}

/// Runs `executor undrain`.
///
/// # Errors
/// When the executor cannot be asked.
pub fn undrain(undrain: &Undrain, home: &Home, out: &Output) -> Outcome {
    let client = undrain.executor.client(home)?;
    let status = block_on(async { client.undrain().await.map_err(executor_failure) })?;
    say("in service", &status, out);
    Ok(Exit::Ok)
}

fn say(word: &str, status: &Status, out: &Output) {
    out.line(format!("{}; {} instances run", out.paint(Tone::Good, word), status.live_instances));
    out.value(|| {
        json!({
            "ok": true, "draining_since": status.draining_since, "live_instances": status.live_instances,
        })
    });
}
