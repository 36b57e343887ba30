//! `run` and `explain`: hand a release to an executor, and say what it answered.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use executor_api::client::{ClientError, ExecutorClient};
use executor_api::{Base64Bytes, Execute, LogLine};
use serde_json::json;

use crate::exit::{Exit, Failure, OrFail as _, Outcome, one_line};
use crate::home::{Home, read_bounded};
use crate::net::{TlsFlags, block_on};
use crate::output::{Output, Tone};
use crate::release::{Release, Use};
use crate::verify::named;

/// Largest input that is read, bytes: what an executor takes by default (`limits.input_bytes`).
const MAX_INPUT: u64 = 32 << 20;

/// Where the executor is.
#[derive(Debug, Args)]
pub struct ExecutorFlags {
    /// Base URL of the executor
    #[arg(long, value_name = "URL")]
    executor_url: Option<String>,
    /// File with a bearer token for the executor
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsFlags,
}

impl ExecutorFlags {
    /// A client, with the token where one is known.
    ///
    /// # Errors
    /// When the address is not known or a file cannot be read.
    pub fn client(&self, home: &Home) -> Outcome<ExecutorClient> {
        let url = home.executor_url(self.executor_url.as_deref())?;
        let client = ExecutorClient::new(self.tls.client(home)?, &url);
        Ok(match home.admin_token(self.token_file.as_deref(), &url, &home.executor_url(None))? {
            Some(token) => client.with_token(token),
            None => client,
        })
    }
}

/// `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Folder with a signed manifest.yaml, the manifest, or the id or digest of an agent that is loaded
    #[arg(value_name = "DIR|MANIFEST|AGENT")]
    agent: PathBuf,
    /// File with the input; `-` is standard input; absent means empty input
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Wall time for the call, milliseconds; it can only lower the executor's limit
    #[arg(long, value_name = "MS")]
    deadline_ms: Option<u64>,
    /// Key by which the call is made once: repeated with the same key, agent and input, the command gets the first answer
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    executor: ExecutorFlags,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// Folder with a manifest.yaml, or the manifest
    #[arg(value_name = "DIR|MANIFEST")]
    release: PathBuf,
    #[command(flatten)]
    executor: ExecutorFlags,
}

/// Runs `run`. The guest's output goes to standard output as it is.
///
/// # Errors
/// Exit code 3 when the executor denies, 1 when the guest fails, 69 when the executor cannot be reached.
pub fn run(run: &Run, home: &Home, out: &Output) -> Outcome {
    let client = run.executor.client(home)?;
    let input = match run.input.as_deref() {
        None => Vec::new(),
        Some(path) if path == Path::new("-") => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .take(MAX_INPUT + 1)
                .read_to_end(&mut bytes)
                .or_fail(Exit::Usage, "reading standard input")?;
            if bytes.len() as u64 > MAX_INPUT {
                return Err(Failure::usage("standard input is longer than 32 MiB")
                    .hint("no executor takes that much"));
            }
            bytes
        }
        Some(path) => read_bounded(path, MAX_INPUT)?,
    };
    let agent = if run.agent.exists() {
        let release = Release::open(&run.agent, Use::Sign)?;
        let attestation = sidecar_text(&release)?;
        let module = release.module()?;
        let spinner = out.spinner("waiting for the executor's verdict");
        let summary = block_on(async {
            client.load(&release.text, attestation.as_deref(), &module).await.map_err(executor_failure)
        })?;
        drop(spinner);
        // By its id: several agents may run one module.
        summary.agent_id
    } else {
        let name = run.agent.to_string_lossy();
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !plain {
            return Err(Failure::usage(format!("{name} is neither a file nor the id of an agent"))
                .hint("name a folder with a manifest.yaml, or the id of an agent that is loaded"));
        }
        name.into_owned()
    };
    let call = Execute {
        input: Base64Bytes(input),
        deadline_ms: run.deadline_ms,
        idempotency_key: run.idempotency_key.clone(),
        ..Execute::default()
    };
    let done = block_on(async {
        client.call(&agent, &call).await.map_err(|error| {
            // The text of a panic comes before the line that says that there was one.
            if let ClientError::Refused(problem) = &error {
                words(&problem.said.log).for_each(|line| out.note(line));
            }
            executor_failure(error)
        })
    })?;
    if out.is_json() {
        let answer = serde_json::to_value(&done).or_fail(Exit::Failure, "writing the answer")?;
        out.value(|| answer);
    } else {
        out.raw(&done.output.0);
        if !done.output.0.ends_with(b"\n") {
            out.raw(b"\n");
        }
        words(&done.log).for_each(|line| out.note(line));
    }
    if done.exit_code != 0 {
        return Err(Failure::failed(format!("the agent ended with code {}", done.exit_code)));
    }
    Ok(Exit::Ok)
}

/// A guest's words: without line breaks and control characters they cannot pass for ours.
fn words(log: &[LogLine]) -> impl Iterator<Item = String> {
    log.iter().map(|line| one_line(&format!("{}: {}", line.level, line.text)))
}

/// Runs `explain`: the executor's verdict, with nothing loaded.
///
/// # Errors
/// Exit code 3 when the release would be denied, 69 when the executor cannot be reached.
pub fn explain(explain: &Explain, home: &Home, out: &Output) -> Outcome {
    let client = explain.executor.client(home)?;
    let release = Release::open(&explain.release, Use::Sign)?;
    let attestation = sidecar_text(&release)?;
    let module = release.module()?;
    let verdict = block_on(async {
        client.explain(&release.text, attestation.as_deref(), &module).await.map_err(executor_failure)
    })?;
    if let Some(denied) = &verdict.denial {
        return Err(Failure::new(Exit::Denied, format!("step {}: {}", denied.step, denied.message))
            .code(denied.reason.clone())
            .hint("docs/operations/denials.md says what to do about each code"));
    }
    if let Some(agent) = &verdict.agent {
        out.line(format!(
            "{} {} {} signed by {} at level {}",
            out.paint(Tone::Good, "would be admitted:"),
            agent.agent_id,
            agent.version,
            agent.signer,
            agent.trust_level,
        ));
        out.line(format!(
            "granted: {}",
            if agent.granted.is_empty() { "nothing".to_owned() } else { agent.granted.join(", ") }
        ));
        for permitted in &agent.permitted {
            out.line(format!("  {} is permitted by {}", permitted.capability, named(&permitted.rules)));
        }
    }
    out.value(|| json!({ "ok": true, "verdict": verdict }));
    Ok(Exit::Ok)
}

/// The exit code and line of a failed call to an executor.
pub fn executor_failure(error: ClientError) -> Failure {
    match &error {
        ClientError::Refused(problem) if problem.step > 0 || trust_store_code(&problem.code) => Failure::new(
            Exit::Denied,
            format!("the executor denies it at step {}: {}", problem.step, problem.detail),
        )
        .code(problem.code.clone())
        .hint("docs/operations/denials.md says what to do about each code"),
        ClientError::Refused(problem) => {
            let exit =
                if matches!(problem.status, 429 | 503 | 507) { Exit::Unavailable } else { Exit::Failure };
            Failure::new(exit, format!("the executor says: {}", problem.detail)).code(problem.code.clone())
        }
        ClientError::Transport(_) => Failure::new(Exit::Unavailable, crate::exit::chain(&error))
            .hint("is the executor running at that address?"),
        ClientError::Answer { .. } => Failure::failed(crate::exit::chain(&error)),
    }
}

/// The bundle file beside the manifest. What is wrong with an attestation is for the executor to say, so that its answer
/// is what is shown.
pub fn sidecar_text(release: &Release) -> Outcome<Option<String>> {
    match Release::open(release.path(), Use::Verify) {
        Ok(attested) => Ok(attested.sidecar()?.map(|(_, text)| text)),
        Err(_) => Ok(None),
    }
}

fn trust_store_code(code: &str) -> bool {
    trust_store::ReasonCode::ALL.iter().any(|known| known.as_str() == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_guest_stay_on_their_line() {
        let line = LogLine { level: "error".into(), text: "no such row\nmentatctl: done".into() };
        let said: Vec<String> = words(&[line]).collect();
        assert!(said.len() == 1 && said[0].starts_with("error: no such row"), "{said:?}");
        assert!(!said[0].contains('\n'), "{said:?}");
    }
}
