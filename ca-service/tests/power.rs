//! What was acknowledged survives a power cut, a sync that fails, a write that fails and a full disk, at every step of issuance and
//! revocation: no certificate without a record, no serial number twice, no lost revocation, no CRL number twice.
//!
//! The shipped program runs on a real file system. The power is cut by shutting an ext4 of its own down without its journal; calls
//! to the operating system fail because `strace` makes them fail, those on the files of the database alone, each in its turn.
//! A control must be caught: the same program, whose syncs are taken from it.
//!
//! Not shown: a disk that acknowledges a sync and loses it, one that returns other bytes than were written, and torn sectors, which
//! SQLite's checksums in the write-ahead log are for.
//!
//! Runs when `MENTAT_POWER=1` is set, as `make crash` does, and says that it is skipped otherwise; then it needs root, loop devices,
//! `mkfs.ext4`, `perl` and `strace`, and fails without them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]
// PostgreSQL keeps its own promises; this is about the file.
#![cfg(not(feature = "postgres"))]

mod fixture;
#[path = "../../tests/src/skip.rs"]
mod skip;
#[path = "../../tests/power/volume.rs"]
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ca_api::client::{CaClient, ClientError};
use ca_api::{CertificateState, CreateToken, Enrol, Identity, ListQuery, RevocationReason, Revoke};
use ca_service::ceremony;
use ca_service::config::Config;
use fixture::program::{command, run, said};
use fixture::{ADMIN, ISSUER, csr, key, secret_file};
use hsm::software::{KdfProfile, KeystoreOptions};
use service::SystemClock;
use volume::Volume;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ca-service");
/// The calls that SQLite makes durable with.
const SYNCS: &str = "fdatasync,fsync";

fn skipped(test: &str) -> bool {
    if std::env::var_os("MENTAT_POWER").is_none() {
        skip::skipped(format_args!("{test}: MENTAT_POWER is not set"));
        return true;
    }
    let strace = Command::new("strace").arg("--version").output().is_ok_and(|output| output.status.success());
    let missing = volume::missing().or_else(|| (!strace).then(|| "strace is not installed".to_owned()));
    if let Some(why) = missing {
        panic!("{test} cannot be run: {why}");
    }
    false
}

/// Founds an authority that asks no log; its configuration.
async fn founded(folder: &Path) -> PathBuf {
    secret_file(&folder.join("passphrase"), "a passphrase for tests only");
    secret_file(&folder.join("admin-token"), ADMIN);
    let shown = folder.display();
    let text = format!(
        r#"
data_dir = "{shown}/data"
status_url = "http://status.example.org"
identity_issuer = "{ISSUER}"
[server]
listen = "127.0.0.1:0"
[admin]
token_file = "{shown}/admin-token"
[keys]
passphrase = "file:{shown}/passphrase"
[hierarchy]
crl_shards = 2
[status]
publish_interval_seconds = 1
[profiles.developer]
rules = "internal"
sct = "absent"
subject = {{ country = "US", organization = "MentatLab" }}
"#
    );
    let config = folder.join("ca.toml");
    std::fs::write(&config, &text).unwrap();
    let settings = Config::parse(&text).unwrap().validate().unwrap();
    let keys = KeystoreOptions::default().with_kdf(KdfProfile::DangerForTests);
    ceremony::run(&settings, Arc::new(SystemClock), keys).await.unwrap();
    config
}

/// The program while it serves; killed with this.
struct Running {
    child: Child,
    client: CaClient,
    base: String,
}

impl Running {
    /// Starts it, below `strace` where there are orders for that; none where it refuses to start.
    fn start(config: &Path, orders: &[String]) -> Option<Self> {
        let mut serve = if orders.is_empty() {
            command(config, &["serve", "--exit-with-stdin"])
        } else {
            let mut strace = Command::new("strace");
            // -D: the program stays this process's child.
            strace.args(["-D", "-f", "-qq"]).args(orders);
            strace.arg(PROGRAM).args(["serve", "--exit-with-stdin", "--config"]).arg(config);
            strace.stdin(Stdio::piped()).stdout(Stdio::piped());
            strace
        };
        let log = std::fs::File::create(config.with_extension("log")).unwrap();
        let mut child = serve.stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Ok(ready) = serde_json::from_str::<serde_json::Value>(&line) else {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        };
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        let base = format!("http://{}", ready["listen"].as_str().unwrap());
        let client = CaClient::new(http, &base).with_admin_token(ADMIN);
        Some(Self { child, client, base })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the outside world was told.
#[derive(Clone, Default)]
struct Told {
    issued: BTreeMap<String, String>,
    /// From when on.
    revoked: BTreeMap<String, i64>,
    /// The complete lists that were served, by their numbers.
    lists: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Told {
    fn promises(&self) -> usize {
        self.issued.len() + self.revoked.len()
    }

    fn list(&mut self, der: Vec<u8>) {
        let number = number(&der);
        let known = self.lists.entry(number.clone()).or_insert_with(|| der.clone());
        assert_eq!(*known, der, "two lists of the number {}", hex::encode(number));
    }
}

fn number(der: &[u8]) -> Vec<u8> {
    trust_store::crl::Crl::from_der(der).unwrap().number().unwrap().octets().to_vec()
}

/// One certificate, revoked every second time; remembered as far as it was acknowledged.
async fn round(client: &CaClient, told: &Mutex<Told>, name: &str, revoke: bool) -> Result<(), ClientError> {
    let identity = Identity::Email(format!("{name}@example.com"));
    let asked = CreateToken { identity, profile: "developer".to_owned(), ttl_seconds: 600 };
    let token = client.create_token(&asked).await?.token;
    let issued = client.enrol(&Enrol { token, csr: csr(&key()), request_id: Some(name.to_owned()) }).await?;
    told.lock().unwrap().issued.insert(issued.serial.clone(), issued.certificate);
    if revoke {
        let reason = Revoke { reason: RevocationReason::KeyCompromise, compromised_at: None };
        let revoked = client.revoke(&issued.serial, &reason).await?;
        told.lock().unwrap().revoked.insert(issued.serial, revoked.revoked_at);
    }
    let list = client.crl("code-signing", None).await?;
    told.lock().unwrap().list(list);
    Ok(())
}

/// Starts the authority again: which promises are broken.
async fn broken(config: &Path, told: &Told) -> Vec<String> {
    let Some(running) = Running::start(config, &[]) else {
        return vec![format!("no start: {}", std::fs::read_to_string(config.with_extension("log")).unwrap())];
    };
    let mut broken = Vec::new();
    let mut recorded = BTreeMap::new();
    let mut after = None;
    loop {
        let query = ListQuery { limit: Some(1000), after, ..ListQuery::default() };
        let page = running.client.list(&query).await.unwrap();
        for record in page.certificates {
            if let Some(twice) = recorded.insert(record.serial.clone(), record) {
                broken.push(format!("{} stands twice", twice.serial));
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    for (serial, certificate) in &told.issued {
        let kept = recorded.get(serial).is_some_and(|record| {
            let stands = matches!(record.state, CertificateState::Delivered | CertificateState::Signed);
            record.certificate.as_ref() == Some(certificate)
                && (stands || record.state == CertificateState::Revoked)
        });
        if !kept {
            broken.push(format!("{serial} was issued, and its record is {:?}", recorded.get(serial)));
        }
    }
    for (serial, at) in &told.revoked {
        let revocation = recorded.get(serial).and_then(|record| record.revocation.as_ref());
        if revocation.is_none_or(|revocation| revocation.revoked_at != *at) {
            broken.push(format!("{serial} was revoked, and its record is {:?}", recorded.get(serial)));
        }
    }
    // Every signature that the outside world may have is of the record.
    let state = |record: &ca_api::CertificateRecord| record.state;
    let open = [CertificateState::Intent, CertificateState::Signing];
    broken.extend(
        recorded.values().filter(|it| open.contains(&state(it))).map(|it| format!("{} is open", it.serial)),
    );
    let list = running.client.crl("code-signing", None).await.unwrap();
    let crl = trust_store::crl::Crl::from_der(&list).unwrap();
    let newest = number(&list);
    for (known, der) in &told.lists {
        let (longer, same) = (known.len() > newest.len(), known.len() == newest.len());
        if longer || same && (*known > newest || *known == newest && *der != list) {
            broken.push(format!("list {} was served, and now {}", hex::encode(known), hex::encode(&newest)));
        }
    }
    // The first lists of a start have every revocation.
    for serial in told.revoked.keys() {
        if crl.entry(&hex::decode(serial).unwrap(), crl.issuer_name()).is_none() {
            broken.push(format!("{serial} is not on the list"));
        }
    }
    // And it works on.
    let after = Mutex::new(Told::default());
    if let Err(error) = round(&running.client, &after, "after", true).await {
        broken.push(format!("nothing can be issued any more: {error}"));
    }
    drop(running);
    let checked = run(config, &["check"]);
    if !checked.status.success() {
        broken.push(format!("{} {}", String::from_utf8_lossy(&checked.stdout), said(&checked)));
    }
    broken
}

/// Cuts the power after so many promises; which of them are broken.
async fn cut(after: usize, orders: &[String]) -> Vec<String> {
    let mut volume = Volume::new();
    let config = founded(&volume.path()).await;
    // What was there before the work began is durable.
    assert!(Command::new("sync").arg("-f").arg(volume.path()).status().unwrap().success());
    let running = Running::start(&config, orders).unwrap();
    let told = Arc::new(Mutex::new(Told::default()));
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..3 {
        let (told, client) = (Arc::clone(&told), running.client.clone());
        workers.spawn(async move {
            for turn in 0.. {
                let name = format!("w{worker}-{turn}");
                if round(&client, &told, &name, turn % 2 == 0).await.is_err() {
                    return;
                }
            }
        });
    }
    while told.lock().unwrap().promises() < after {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    volume.cut_power();
    // From here on every access fails: nothing more is promised, and nobody is told otherwise.
    while workers.join_next().await.is_some() {}
    let more = Mutex::new(Told::default());
    assert!(round(&running.client, &more, "too-late", true).await.is_err());
    let ready =
        reqwest::Client::builder().no_proxy().build().unwrap().get(format!("{}/readyz", running.base));
    assert_eq!(ready.send().await.unwrap().status(), 503);
    drop(running);
    volume.power_on();
    let told = told.lock().unwrap().clone();
    let broken = broken(&config, &told).await;
    println!("{} promises, {} broken", told.promises(), broken.len());
    broken
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_keeps_its_promises_through_power_cuts() {
    if skipped("an_authority_keeps_its_promises_through_power_cuts") {
        return;
    }
    for after in [5, 23, 60, 111] {
        assert_eq!(cut(after, &[]).await, Vec::<String>::new(), "after {after} promises");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_whose_syncs_are_removed_is_caught() {
    if skipped("an_authority_whose_syncs_are_removed_is_caught") {
        return;
    }
    let orders =
        ["-o", "/dev/null", "-e", &format!("trace={SYNCS}"), "-e", &format!("inject={SYNCS}:retval=0")];
    assert_ne!(cut(30, &orders.map(str::to_owned)).await, Vec::<String>::new());
}

/// Has the calls of a kind on the files of the database fail, beginning with the first, in steps; what was broken, and how many
/// calls failed.
async fn failing(calls: &str, error: &str, lasts: bool, step: usize) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let config = founded(folder.path()).await;
    let told = Mutex::new(Told::default());
    let trace = folder.path().join("trace").display().to_string();
    for (failed, number) in (1..).step_by(step).enumerate() {
        let when = if lasts { format!("{number}+") } else { number.to_string() };
        let mut orders = vec!["-o".to_owned(), trace.clone()];
        for file in ["ca.sqlite", "ca.sqlite-wal"] {
            orders.extend(["-P".to_owned(), folder.path().join("data").join(file).display().to_string()]);
        }
        orders.extend(["-e".to_owned(), format!("trace={calls}")]);
        orders.extend(["-e".to_owned(), format!("inject={calls}:error={error}:when={when}")]);
        if let Some(running) = Running::start(&config, &orders) {
            let mut outcomes = BTreeSet::new();
            for turn in 0..4 {
                let name = format!("{error}-{number}-{turn}").to_lowercase();
                outcomes.insert(round(&running.client, &told, &name, true).await.is_ok());
            }
            // One call that failed costs one answer, not a restart.
            assert!(lasts || outcomes.contains(&true), "{calls} {error} {when}: nothing works any more");
        }
        let traced = std::fs::read_to_string(&trace).unwrap();
        let told = told.lock().unwrap().clone();
        let broken = broken(&config, &told).await;
        assert_eq!(broken, Vec::<String>::new(), "{calls} {error} {when}");
        if !traced.contains("(INJECTED)") {
            println!("{calls} {error}: {failed} calls failed, {} promises kept", told.promises());
            return failed;
        }
    }
    unreachable!("the loop ends with the run")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_keeps_its_promises_when_syncs_fail() {
    if skipped("an_authority_keeps_its_promises_when_syncs_fail") {
        return;
    }
    assert!(failing(SYNCS, "EIO", false, 1).await > 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_keeps_its_promises_when_writes_fail_and_the_disk_is_full() {
    if skipped("an_authority_keeps_its_promises_when_writes_fail_and_the_disk_is_full") {
        return;
    }
    assert!(failing("pwrite64", "EIO", false, 9).await > 8);
    assert!(failing("pwrite64", "ENOSPC", true, 9).await > 8);
}
