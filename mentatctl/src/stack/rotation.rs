//! New keys for the authorities and logs of a stopped stack. What they signed stays; the next start tells everybody of them.

use std::path::Path;

use clap::ValueEnum;
use serde_json::json;
use toml::{Table, Value};

use super::layout::Layout;
use super::{child, run};
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Secrecy, read_text, write_file};
use crate::output::Output;

/// A log that rotates. The raw log is trusted by nothing: whoever wants a new one makes a new stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogRole {
    /// Statements about revocations
    Event,
    /// Certificates
    Issuance,
    /// Signatures
    Signing,
}

impl LogRole {
    fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Issuance => "issuance",
            Self::Signing => "signing",
        }
    }

    /// Base of the shard that is written to, below the server's address.
    fn base(self) -> &'static str {
        match self {
            Self::Event => "/event",
            Self::Issuance => "/issuance",
            // Stock clients drop the path of an address.
            Self::Signing => "",
        }
    }
}

/// Gives authorities new keys, and begins new shards of logs.
///
/// # Errors
/// Exit code 78 when the stack runs, is none, or a server refuses.
pub fn rotate(dir: &Path, authorities: &[&str], logs: &[LogRole], out: &Output) -> Outcome<()> {
    let dir = dir.canonicalize().or_fail(Exit::Refused, format!("cannot use {}", dir.display()))?;
    let layout = Layout::new(&dir);
    layout.check()?;
    let _lock = run::lock(&layout)?;
    let (mut shards, mut renewals) = (Vec::new(), Vec::new());
    for log in logs {
        let name = begin_shard(&layout, *log)?;
        out.line(format!(
            "{name}: keys and files are made; the shard before it is served, and takes nothing more"
        ));
        shards.push(name);
    }
    for name in authorities {
        let renewed = child::renew(&layout.config("ca-service"), name)?;
        let made = renewed.get("authority").and_then(serde_json::Value::as_str).unwrap_or(name);
        out.line(format!("{made}: key and certificate are made"));
        renewals.push(renewed);
    }
    out.value(|| json!({ "ok": true, "logs": shards, "authorities": renewals }));
    out.line("the next `mentatctl up` adds them to the trust files and the repository");
    Ok(())
}

/// Freezes the shard that is written to, and makes the next one at its address. The configuration names the new shard when it is
/// there, never before.
fn begin_shard(layout: &Layout, log: LogRole) -> Outcome<String> {
    let path = layout.config("transparency-log");
    let text = read_text(&path).map_err(|failure| Failure { exit: Exit::Refused, ..failure })?;
    let mut config: Table = toml::from_str(&text).or_fail(Exit::Refused, path.display())?;
    let name = next_shard(&mut config, log).ok_or_else(|| {
        Failure::refused(format!("{} has no {} log that is written to", path.display(), log.as_str()))
            .hint("docs/operations/log-rotation.md shows how to begin a shard by hand")
    })?;
    // Comments do not survive what a program writes: the file of before stays beside it.
    write_file(&path.with_extension("before-rotation.toml"), text.as_bytes(), Secrecy::Public)?;
    let text = toml::to_string(&config).or_fail(Exit::Failure, "writing the configuration")?;
    let candidate = path.with_extension("rotated.toml");
    write_file(&candidate, text.as_bytes(), Secrecy::Public)?;
    child::init("transparency-log", &candidate)?;
    std::fs::rename(&candidate, &path).or_fail(Exit::Refused, path.display())?;
    Ok(name)
}

/// Changes the configuration; the name of the new shard.
fn next_shard(config: &mut Table, log: LogRole) -> Option<String> {
    let logs = config.get_mut("log")?.as_array_mut()?;
    let text = |table: &Value, key: &str| table.get(key).and_then(Value::as_str).map(str::to_owned);
    let of_kind = |table: &&Value| text(table, "kind").as_deref() == Some(log.as_str());
    let number = logs.iter().filter(of_kind).count();
    let written = logs
        .iter_mut()
        .find(|table| of_kind(&&**table) && text(table, "writing").as_deref() != Some("frozen"))?
        .as_table_mut()?;
    let mut next = written.clone();
    let base = next.get("base").and_then(Value::as_str).unwrap_or(log.base()).to_owned();
    let name = format!("{}-{}", log.as_str(), number + 1);
    next.insert("name".to_owned(), name.clone().into());
    next.insert("base".to_owned(), base.into());
    written.insert("base".to_owned(), format!("/{}-shard-{number}", log.as_str()).into());
    written.insert("writing".to_owned(), "frozen".into());
    logs.push(Value::Table(next));
    Some(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_next_shard_takes_the_address_and_the_old_one_is_frozen_aside() {
        let mut config: Table = toml::from_str(
            "[[log]]\nname = \"signing\"\nkind = \"signing\"\nauthorities = [\"a.pem\"]\n[[log]]\nname = \"raw\"\nkind = \"raw\"\n",
        )
        .unwrap();
        assert_eq!(next_shard(&mut config, LogRole::Signing).unwrap(), "signing-2");
        assert_eq!(next_shard(&mut config, LogRole::Signing).unwrap(), "signing-3");
        assert_eq!(next_shard(&mut config, LogRole::Issuance), None);
        let logs = config["log"].as_array().unwrap();
        let shown: Vec<_> = logs
            .iter()
            .map(|log| {
                let of = |key: &str| log.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
                [of("name"), of("base"), of("writing")].join(" ")
            })
            .collect();
        assert_eq!(
            shown,
            [
                "signing /signing-shard-1 frozen",
                "raw - -",
                "signing-2 /signing-shard-2 frozen",
                "signing-3  -"
            ]
        );
        assert_eq!(logs.last().unwrap()["authorities"].as_array().unwrap().len(), 1);
    }
}
