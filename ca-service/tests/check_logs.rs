//! `check` against the transparency logs: what they have and what is recorded are the same, and nothing is believed that is not
//! proven.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use ca_pki::crl::RevocationReason;
use ca_service::CertificateAuthority;
use ca_service::check::LogFindingCode::{
    AnchorMismatch, EntriesInvalid, EntryDiffers, EntryMissing, EntryUnknown, EventMissing, LogBehind,
    LogInvalid, LogUnknown, LogUnreachable, RevocationUnlogged, RevocationUnrecorded, SctMismatch,
};
use ca_service::check::{self, Extent, LogFindingCode, LogSources, Report, Verdict};
use ca_service::issuance::Issued;
use ca_service::reconciler::Reach;
use fixture::copies::LogCopies;
use fixture::program::{command, said};
use fixture::{Site, enrol_request, key, settings_text, token_request};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};
use tlog_client::LogClient;

async fn issued(authority: &Arc<CertificateAuthority>, profile: &str) -> Issued {
    let token = authority.create_token(&token_request("dev@example.com", profile), "test").await.unwrap();
    authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap()
}

/// An authority with certificates of both ways into the log, a revocation and an anchor there; what was issued.
async fn furnished() -> (Site, Vec<Issued>) {
    let site = Site::new().await;
    let authority = site.open().await;
    let mut all = Vec::new();
    for profile in ["developer", "unlogged", "developer", "developer"] {
        all.push(issued(&authority, profile).await);
    }
    authority.reconcile(Reach::Everything).await.unwrap();
    authority.revoke(&all[2].serial, RevocationReason::KeyCompromise, None, "test").await.unwrap();
    authority.log_revocations().await.unwrap();
    authority.publish_due().await.unwrap();
    authority.anchor().await.unwrap().unwrap();
    (site, all)
}

async fn compared(site: &Site, sources: &LogSources) -> Report {
    check::run_with_logs(&*site.open().await, sources, Extent::Everything).await.unwrap()
}

fn codes(report: &Report) -> Vec<LogFindingCode> {
    report.logs.as_ref().unwrap().found.findings.iter().map(|finding| finding.code).collect()
}

fn details(report: &Report) -> String {
    let found = &report.logs.as_ref().unwrap().found.findings;
    found.iter().map(|finding| format!("{}\n", finding.detail)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_records_that_agree_are_said_to() {
    let (site, _) = furnished().await;
    let folder = tempfile::tempdir().unwrap();
    let sources = LogCopies::of(&site.log).sources(&site, folder.path());
    let report = compared(&site, &sources).await;
    assert_eq!((codes(&report), report.verdict()), (Vec::new(), Verdict::Agrees), "{report:?}");
    let logs = report.logs.unwrap();
    assert_eq!((logs.certificates, logs.unlogged, logs.revocations, logs.anchors), (4, 0, 1, 1));
    assert_eq!(logs.logs.iter().map(|log| (log.size, log.entries)).collect::<Vec<_>>(), [(4, 4), (2, 2)]);
    for number in [1, 2, 1000] {
        let extent = Extent::Sample(NonZeroU32::new(number).unwrap());
        let report = check::run_with_logs(&*site.open().await, &sources, extent).await.unwrap();
        assert_eq!(report.verdict(), Verdict::Agrees, "{report:?}");
        let logs = report.logs.unwrap();
        assert!(logs.certificates >= 1 && logs.revocations == 1, "{number}: {logs:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_of_which_the_event_log_is_not_told_is_counted_and_soon_found() {
    let (site, all) = furnished().await;
    let authority = site.open().await;
    authority.revoke(&all[3].serial, RevocationReason::Superseded, None, "test").await.unwrap();
    authority.publish_due().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let sources = LogCopies::of(&site.log).sources(&site, folder.path());
    let later = async |seconds: i64, extent: Extent| {
        let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds() + seconds));
        let authority = site.open_with(site.store().await, clock).await;
        check::run_with_logs(&authority, &sources, extent).await.unwrap()
    };
    // It is told in a moment.
    let report = later(0, Extent::Everything).await;
    assert_eq!((codes(&report), report.verdict()), (Vec::new(), Verdict::Agrees), "{report:?}");
    let counted = |report: &Report| {
        let logs = report.logs.as_ref().unwrap();
        (logs.revocations, logs.revocations_unlogged)
    };
    assert_eq!(counted(&report), (1, 1));
    for extent in [Extent::Everything, Extent::Sample(NonZeroU32::new(10).unwrap())] {
        let report = later(700, extent).await;
        assert_eq!((codes(&report), report.verdict()), (vec![RevocationUnlogged], Verdict::Disagrees));
        assert_eq!(counted(&report), (1, 1));
        assert!(details(&report).contains(&all[3].serial.to_string()), "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_in_the_log_without_a_record_is_found() {
    let (site, all) = furnished().await;
    let folder = tempfile::tempdir().unwrap();
    let sources = LogCopies::of(&site.log).sources(&site, folder.path());
    for gone in [&all[0], &all[1]] {
        let serial = hex::encode(gone.serial.as_bytes());
        fixture::execute(&site.settings, &delete(&site, &serial));
        // The records agree with one another.
        assert_eq!(check::run(&*site.open().await).await.unwrap().findings, Vec::<String>::new());
    }
    let report = compared(&site, &sources).await;
    assert_eq!(codes(&report), [EntryUnknown, EntryUnknown], "{report:?}");
    assert!(all[..2].iter().all(|gone| details(&report).contains(&gone.serial.to_string())), "{report:?}");
    assert_eq!(report.verdict(), Verdict::Disagrees);
    let sampled = Extent::Sample(NonZeroU32::MIN);
    let report = check::run_with_logs(&*site.open().await, &sources, sampled).await.unwrap();
    assert_eq!(codes(&report), [EntryUnknown, EntryUnknown], "{report:?}");
}

fn delete(site: &Site, serial: &str) -> String {
    let literal = if site.settings.database.file().is_some() {
        format!("x'{serial}'")
    } else {
        format!("decode('{serial}', 'hex')")
    };
    format!("DELETE FROM certificate WHERE serial = {literal}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_missing_moved_or_of_something_else_is_found() {
    let (site, all) = furnished().await;
    let whole = LogCopies::of(&site.log);
    // Another log, of the same keys, without the first entry: the others are not where they were promised to be.
    let folder = tempfile::tempdir().unwrap();
    let mut other = LogCopies::of(&site.log);
    other.issuance.remove(0);
    for (index, record) in other.issuance.iter_mut().enumerate() {
        record.entry.extensions = tlog::static_ct::Extensions::leaf_index(index as u64).unwrap();
    }
    other.issuance.push(other.issuance[0].clone());
    other.issuance[3].entry.extensions = tlog::static_ct::Extensions::leaf_index(3).unwrap();
    let report = compared(&site, &other.sources(&site, folder.path())).await;
    let found = codes(&report);
    assert!(found.contains(&SctMismatch) && found.contains(&EntryMissing), "{report:?}");
    assert!(details(&report).contains(&format!("{} is not at index 0", all[0].serial)), "{report:?}");

    // The same certificate once more is no other.
    let folder = tempfile::tempdir().unwrap();
    let mut twice = LogCopies::of(&site.log);
    twice.issuance.push(whole.issuance[1].clone());
    twice.issuance[4].entry.extensions = tlog::static_ct::Extensions::leaf_index(4).unwrap();
    let report = compared(&site, &twice.sources(&site, folder.path())).await;
    assert_eq!(report.verdict(), Verdict::Agrees, "{report:?}");

    // What the tree commits to names a key of the authority, and what was submitted is of somebody else.
    let folder = tempfile::tempdir().unwrap();
    let mut forged = LogCopies::of(&site.log);
    forged.issuance[0].precertificate = whole.issuance[2].precertificate.clone();
    let report = compared(&site, &forged.sources(&site, folder.path())).await;
    assert_eq!(codes(&report), [EntriesInvalid, EntryMissing], "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_the_checkpoint_does_not_commit_to_prove_nothing() {
    let (site, _) = furnished().await;
    let folder = tempfile::tempdir().unwrap();
    let sources = LogCopies::of(&site.log).sources(&site, folder.path());
    let alter = |path: &str| {
        let file = folder.path().join(path);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[40] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    };
    alter("issuance/tile/data/000.p/4");
    let report = compared(&site, &sources).await;
    assert_eq!(codes(&report), [EntriesInvalid, EntryMissing, EntryMissing, EntryMissing, EntryMissing]);
    alter("issuance/tile/data/000.p/4");
    std::fs::remove_file(folder.path().join("event/tile/entries/000.p/2")).unwrap();
    // Nor what it commits to, and does not show.
    let report = compared(&site, &sources).await;
    assert_eq!(codes(&report), [EntriesInvalid, EventMissing, EventMissing], "{report:?}");
    alter("event/checkpoint");
    let report = compared(&site, &sources).await;
    assert_eq!(codes(&report), [LogInvalid], "{report:?}");
    assert_eq!(report.verdict(), Verdict::Disagrees);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_were_altered_differ_from_their_entries() {
    let (site, all) = furnished().await;
    let folder = tempfile::tempdir().unwrap();
    let sources = LogCopies::of(&site.log).sources(&site, folder.path());
    let of = |issued: &Issued| {
        delete(&site, &hex::encode(issued.serial.as_bytes())).replace("DELETE FROM certificate", "")
    };
    let (one, other) = (of(&all[0]), of(&all[3]));
    let change = |set: &str| fixture::execute(&site.settings, &format!("UPDATE certificate SET {set}"));
    change(&format!("log_index = log_index + 1{one}"));
    let report = compared(&site, &sources).await;
    assert_eq!(codes(&report), [EntryMissing], "{report:?}");
    change(&format!("log_index = log_index - 1{one}"));
    // The promise about another certificate.
    change(&format!("sct = (SELECT sct FROM certificate{other}){one}"));
    let report = compared(&site, &sources).await;
    assert_eq!(codes(&report), [SctMismatch, EntryMissing], "{report:?}");
    // Another signature under the same precertificate.
    let foreign = format!("(SELECT precertificate_signature FROM certificate{other})");
    change(&format!("precertificate_signature = {foreign}{one}"));
    let report = compared(&site, &sources).await;
    assert!(codes(&report).contains(&EntryDiffers), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_that_was_cut_together_with_its_note_is_found_by_the_anchors_in_the_log() {
    let (site, _) = furnished().await;
    let authority = site.open().await;
    let first = authority.store().latest_anchor().await.unwrap().unwrap();
    authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    let second = authority.anchor().await.unwrap().unwrap();
    drop(authority);
    let folder = tempfile::tempdir().unwrap();
    let sources = LogCopies::of(&site.log).sources(&site, folder.path());
    assert_eq!(compared(&site, &sources).await.verdict(), Verdict::Agrees);
    let cut = format!(
        "DELETE FROM audit WHERE sequence > {}; UPDATE meta SET value = '{} {} {}' WHERE name = 'audit-anchor'",
        first.sequence + 1,
        first.sequence,
        hex::encode(first.hash),
        first.event_index
    );
    fixture::execute(&site.settings, &cut);
    assert_eq!(check::run(&*site.open().await).await.unwrap().findings, Vec::<String>::new());
    let report = compared(&site, &sources).await;
    assert_eq!(codes(&report), [AnchorMismatch], "{report:?}");
    assert!(details(&report).contains(&second.sequence.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_was_lost_and_one_that_was_never_told_are_found() {
    let (site, all) = furnished().await;
    let folder = tempfile::tempdir().unwrap();
    let sources = LogCopies::of(&site.log).sources(&site, folder.path());
    // The log without the statement.
    let silent = tempfile::tempdir().unwrap();
    let mut without = LogCopies::of(&site.log);
    without.events.swap(0, 1);
    let report = compared(&site, &without.sources(&site, silent.path())).await;
    assert_eq!(codes(&report), [EventMissing, EventMissing], "{report:?}");

    let authority = site.open().await;
    authority.revoke(&all[0].serial, RevocationReason::Superseded, None, "test").await.unwrap();
    authority.log_revocations().await.unwrap();
    authority.publish_due().await.unwrap();
    drop(authority);
    let report = compared(&site, &sources).await;
    assert_eq!((codes(&report), report.verdict()), (vec![LogBehind], Verdict::Unknown), "an earlier copy");
    let later = tempfile::tempdir().unwrap();
    let sources = LogCopies::of(&site.log).sources(&site, later.path());
    assert_eq!(compared(&site, &sources).await.verdict(), Verdict::Agrees);

    let lost = "DELETE FROM revocation; UPDATE certificate SET state = 5 WHERE state = 7";
    fixture::execute(&site.settings, lost);
    let report = compared(&site, &sources).await;
    assert_eq!(codes(&report), [RevocationUnrecorded, RevocationUnrecorded], "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_does_not_answer_says_nothing_and_one_that_is_not_known_is_named() {
    let (site, _) = furnished().await;
    let folder = tempfile::tempdir().unwrap();
    let copies = LogCopies::of(&site.log);
    copies.write(&site.log, folder.path());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let away = |kind: &str| LogClient::new(http.clone(), &format!("http://127.0.0.1:1/{kind}")).unwrap();
    let known = copies.descriptions(&site.log);
    let down = LogSources::of(known.iter().map(|log| (log.clone(), away(&log.kind)))).unwrap();
    let report = compared(&site, &down).await;
    assert_eq!(codes(&report), [LogUnreachable, LogUnreachable], "{report:?}");
    assert_eq!(report.verdict(), Verdict::Unknown);
    let logs = report.logs.unwrap();
    assert_eq!((logs.certificates, logs.revocations), (0, 0));

    // Another log of the same name in its place.
    let other = fixture::log::FakeLog::new();
    let elsewhere = tempfile::tempdir().unwrap();
    copies.write(&other, elsewhere.path());
    let read = |log: &tlog_client::LogDescription, folder: &Path| {
        (log.clone(), LogClient::over_folder(&folder.join(&log.kind)))
    };
    let impostor = LogSources::of([read(&known[0], elsewhere.path())]).unwrap();
    let report = compared(&site, &impostor).await;
    assert_eq!(codes(&report), [LogInvalid], "{report:?}");
    // Its keys are believed by mistake: the promises are another log's, and its entries were never promised.
    let believed = LogSources::of([read(&copies.descriptions(&other)[0], elsewhere.path())]).unwrap();
    let report = compared(&site, &believed).await;
    assert_eq!(codes(&report), [LogUnknown, LogUnknown, LogUnknown], "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_compares_with_the_logs_unless_it_is_told_not_to() {
    let (site, all) = furnished().await;
    let folder = tempfile::tempdir().unwrap();
    let copies = LogCopies::of(&site.log);
    copies.write(&site.log, folder.path());
    let config = site.folder.path().join("ca.toml");
    let write = |more: &str| std::fs::write(&config, settings_text(site.folder.path(), more, "")).unwrap();
    let run = |arguments: &[&str]| {
        let output = command(&config, &[&["check"], arguments].concat()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), said(&output))
    };
    write("");
    let (code, printed, text) = run(&[]);
    assert_eq!((code, printed.as_str()), (Some(78), ""), "{text}");
    assert!(text.contains("check.log_keys") && text.contains("--without-logs"), "{text}");
    assert_eq!(run(&["--without-logs"]).0, Some(0));

    let keys = site.folder.path().join("log_keys.json");
    std::fs::write(&keys, serde_json::to_string(&copies.descriptions(&site.log)).unwrap()).unwrap();
    write(&format!("\n[event_log]\nurl = \"http://127.0.0.1:1/event\"\n[check]\nlog_keys = {keys:?}\n"));
    let (code, printed, text) = run(&[]);
    assert_eq!(code, Some(69), "{text}");
    assert!(printed.contains(r#""code":"log_unreachable""#) && text.contains("repeat"), "{printed} {text}");
    let copies = folder.path().to_str().unwrap();
    for arguments in [&["--copies", copies][..], &["--copies", copies, "--sample", "2"]] {
        let (code, printed, text) = run(arguments);
        assert_eq!(code, Some(0), "{printed} {text}");
        assert!(printed.contains(r#""findings":[]"#) && printed.contains(r#""revocations":1"#), "{printed}");
    }
    let (code, _, text) = run(&["--copies", site.folder.path().to_str().unwrap()]);
    assert!(code == Some(78) && text.contains("no copy of"), "{text}");
    fixture::execute(&site.settings, &delete(&site, &hex::encode(all[0].serial.as_bytes())));
    let (code, printed, _) = run(&["--copies", copies]);
    assert!(code == Some(1) && printed.contains(r#""code":"entry_unknown""#), "{printed}");
}
