//! What else must know of a new shard, or of a new key of statements, at the start after it was made: who reads keys by file, and the
//! executor, which asks shards for checkpoints. Whether `trust rotate` made it or an operator by hand makes no difference.

use tlog_client::{LogDescription, LogSet};
use toml::{Table, Value};

use super::file::{Log, StackFile};
use super::layout::Layout;
use super::ports::Ports;
use super::stack_client;
use crate::exit::{Exit, OrFail as _, Outcome};
use crate::home::{Secrecy, read_file, read_text, write_file};
use crate::log;
use crate::net::block_on;
use crate::output::Output;

/// Asks the log server which logs it has, and whose events they believe. Where one of them is new: the key of the issuance log, the logs that the executor
/// follows, the keys of its policy, `stack.json`, and last `log_keys.json`, so that an interruption repeats all of it.
///
/// # Errors
/// When the server does not answer, or a file cannot be read or written.
pub fn follow(layout: &Layout, ports: &Ports, file: &mut StackFile, out: &Output) -> Outcome<()> {
    let http = stack_client(layout)?;
    let served =
        block_on(async { LogSet::fetch(http, &ports.url(ports.log)).await.map_err(log::log_failure) })?;
    let path = layout.trust("log_keys.json");
    let known: LogSet = serde_json::from_slice(&read_file(&path)?).or_fail(Exit::Refused, path.display())?;
    let is_new = |log: &&LogDescription| known.0.iter().all(|other| other.origin != log.origin);
    // The raw log has its own way into the files.
    let new: Vec<_> = served.0.iter().filter(|log| log.kind != "raw").filter(is_new).collect();
    let believes_otherwise = |log: &&LogDescription| {
        let known = known.0.iter().find(|other| other.origin == log.origin);
        known.is_some_and(|known| !(known.events.cover(&log.events) && log.events.cover(&known.events)))
    };
    let believing: Vec<_> = served.0.iter().filter(believes_otherwise).collect();
    if new.is_empty() && believing.is_empty() {
        return Ok(());
    }
    if let Some(issuance) = served.of_kind("issuance") {
        let spki = issuance.spki().or_fail(Exit::Failure, &issuance.origin)?;
        let key = hsm::PublicKey::from_spki_der(&spki).or_fail(Exit::Failure, &issuance.origin)?;
        write_file(&layout.trust("issuance_log.pub.pem"), key.to_pem().as_bytes(), Secrecy::Public)?;
    }
    follow_by_executor(layout, &served)?;
    accept_keys(layout, new.iter().filter(|log| log.kind == "signing").copied())?;
    for log in ["signing", "issuance", "event"].iter().filter_map(|kind| served.of_kind(kind)) {
        file.logs.insert(log.kind.clone(), Log::described(log));
    }
    file.log = file.logs.get("signing").cloned();
    file.store(&layout.stack_file())?;
    let bytes = serde_json::to_vec_pretty(&served).or_fail(Exit::Failure, "writing the log keys")?;
    write_file(&path, &bytes, Secrecy::Public)?;
    new.iter().for_each(|log| out.line(format!("a new shard: {}", log.origin)));
    believing.iter().for_each(|log| out.line(format!("other keys of events: {}", log.origin)));
    Ok(())
}

/// The executor asks every shard of the signing log for checkpoints: what an old one recorded is judged by it.
fn follow_by_executor(layout: &Layout, served: &LogSet) -> Outcome<()> {
    let path = layout.config("executor");
    let mut config: Table = toml::from_str(&read_text(&path)?).or_fail(Exit::Refused, path.display())?;
    let Some(evidence) = config.get_mut("evidence").and_then(Value::as_table_mut) else { return Ok(()) };
    let entry = |log: &LogDescription| {
        let members = [("origin", &log.origin), ("url", &log.url)];
        Value::Table(members.into_iter().map(|(key, text)| (key.to_owned(), text.clone().into())).collect())
    };
    let ours = |log: &Value| {
        let origin = log.get("origin").and_then(Value::as_str);
        served.0.iter().any(|served| Some(served.origin.as_str()) == origin)
    };
    let mut logs: Vec<Value> = evidence.get("logs").and_then(Value::as_array).cloned().unwrap_or_default();
    logs.retain(|log| !ours(log));
    logs.extend(served.0.iter().filter(|log| log.kind == "signing").map(entry));
    evidence.insert("logs".to_owned(), Value::Array(logs));
    let text =
        toml::to_string(&config).or_fail(Exit::Failure, "writing the configuration of the executor")?;
    let head = "# Written by `mentatctl up`; docs/operations/executor.toml explains every field.\n";
    write_file(&path, (head.to_owned() + &text).as_bytes(), Secrecy::Public)
}

/// The further keys of new shards, beside those that the policy names already.
fn accept_keys<'a>(layout: &Layout, new: impl Iterator<Item = &'a LogDescription>) -> Outcome<()> {
    let path = layout.trust("policy.yaml");
    let mut policy = trust_store_files::load_policy_document(&path).or_fail(Exit::Refused, path.display())?;
    let Some(words) = policy.logs.as_mut().and_then(|logs| logs.policy.as_mut()) else { return Ok(()) };
    let before = words.clone();
    for key in new.flat_map(|log| log.vkeys.iter().skip(1)) {
        let line = format!("log {key}\n");
        if !words.contains(&line) {
            words.insert_str(0, &line);
        }
    }
    if *words == before {
        return Ok(());
    }
    write_file(&path, &policy.to_json().or_fail(Exit::Failure, "writing the policy")?, Secrecy::Public)
}
