//! The code reviewer: fetches a change over the network and says what a person should look at. README.md has the rules.
#![cfg_attr(target_arch = "wasm32", no_std)]
#![deny(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec;

use mentat_sdk::{Context, Error, Input, Output, Result, Value, json, mentat_agent};

use crate::review::{Finding, review};

pub mod review;

/// Reviews the diff at `url`.
///
/// # Errors
/// Exit code 3 when the host is not granted or cannot be reached, 2 when input or diff are not what it takes, 1 when there is
/// no such diff.
#[mentat_agent]
pub fn reviewer(context: &Context, input: Input) -> Result<Output> {
    let url: String = input.get("url")?;
    let diff = fetch(context, &url)?;
    let reviewed = review(&diff).map_err(|wrong| Error::input(format!("{url}: {wrong}")))?;
    context.metric("findings", reviewed.findings.len() as f64)?;
    context.info(&format!("{url}: {} lines added in {} files", reviewed.added, reviewed.files));
    let verdict = if reviewed.findings.is_empty() { "approve" } else { "change" };
    Ok(Output::new()
        .add("files", reviewed.files)
        .add("added", reviewed.added)
        .add("removed", reviewed.removed)
        .add("findings", reviewed.findings.into_iter().map(listed).collect::<alloc::vec::Vec<_>>())
        .add("verdict", verdict))
}

fn listed(finding: Finding) -> Value {
    Value::Object(vec![
        ("file".into(), finding.file.into()),
        ("line".into(), finding.line.into()),
        ("rule".into(), finding.rule.into()),
    ])
}

/// The text that a GET of the URL gives.
fn fetch(context: &Context, url: &str) -> Result<String> {
    let network = context.capability(&capability_of(url)?)?;
    let request = Value::Object(vec![("url".into(), url.into())]);
    let answer = network.invoke("request", request.to_json().as_bytes())?;
    let answer = core::str::from_utf8(&answer).ok().and_then(|text| json::parse(text).ok());
    let member = |name: &str| answer.as_ref().and_then(|answer| answer.get(name));
    match (member("status"), member("text")) {
        (Some(Value::Number(200.0)), Some(Value::String(text))) => Ok(text.clone()),
        (Some(Value::Number(200.0)), _) => Err(Error::input(format!("{url}: it is no text"))),
        (Some(Value::Number(status)), _) => Err(Error::new(format!("{url}: status {status}"))),
        _ => Err(Error::new(format!("{url}: the answer is none"))),
    }
}

/// `network:https:HOST[:PORT]` of a URL: what the manifest has to name. The executor reads the URL for itself.
fn capability_of(url: &str) -> Result<String> {
    let wrong = || Error::input("`url` begins with https:// or http:// and a host");
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let host = rest.split(['/', '?', '#']).next().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
    match scheme {
        "http" | "https" => Ok(format!("network:{scheme}:{host}")),
        _ => Err(wrong()),
    }
}
