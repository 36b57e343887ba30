//! `serve`: opens what `init` made, reconciles, then answers.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use ca_pki::SubjectPublicKey;
use ca_pki::UnixTime;
use ca_pki::key::KeyUse;
use hsm::software::Keystore;
use hsm::{KeyProvider, KeyUri, Keyring, SigningPool};
use service::clock::Clock;
use service::rate_limit::{Rate, RateLimiter};
use service::{Running, Server, StartRefusal};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::allowance::Allowances;
use crate::api;
use crate::approval::Quorum;
use crate::authority::{CertificateAuthority, LoggedTo, load, names};
use crate::clock::ClockGuard;
use crate::config::{MutualTls, Settings};
use crate::delivery::Deliveries;
use crate::error::CaError;
use crate::holders::CodeSigners;
use crate::mail::{self, Mailer};
use crate::mail_code::CodeMail;
use crate::mass_revocation::CountedOrders;
use crate::metrics::CaMetrics;
use crate::oidc::Issuers;
use crate::oidc::reuse::Served;
use crate::outside::OutsideView;
use crate::presigned::Presigned;
use crate::reconciler::Reach;
use crate::renewal_challenge::Challenges;
use crate::responder::{AnswerCache, AskedIssuers};
use crate::revocation::SetAside;
use crate::service_record::ServiceRecords;
use crate::storage::sql_store::SqlStore;
use crate::storage::{CertificateStore, Database, StoreError};
use crate::token_refusal::{Ended, TokenRefusals};
use crate::transparency::{EventLog, HttpLog};
use crate::webhook::Webhook;

/// Signatures that may wait for a signing thread.
const SIGNING_QUEUE: usize = 4096;
/// Answers to strangers that may wait for a signing thread; beyond, they are told to try later.
const STATUS_QUEUE: usize = 1024;
/// Seconds of its rate that a client may use at once.
const BURST_SECONDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);
/// Largest PEM public key in bytes.
const MAX_KEY_FILE: usize = 8192;

/// What a CA stands on; tests put their own in.
pub struct Parts {
    /// The store.
    pub store: Arc<dyn CertificateStore>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The issuance log and its key.
    pub issuance_log: Option<LoggedTo>,
    /// The event log.
    pub event_log: Option<Arc<dyn EventLog>>,
    /// Whose identity tokens are accepted.
    pub issuers: Issuers,
    /// Who approves the revocation of many.
    pub quorum: Option<Quorum>,
    /// Who sends codes that prove an e-mail address.
    pub mailer: Option<Arc<dyn Mailer>>,
}

/// Puts a CA together. Opens every key by its pinned reference.
///
/// # Errors
/// [`CaError`] when a record, a key or the store cannot be used.
pub async fn assemble(
    settings: Settings,
    parts: Parts,
    keys: &dyn KeyProvider,
) -> Result<CertificateAuthority, CaError> {
    let stored = parts.store.authorities().await?;
    let authorities = load(&stored, &settings.config.status_url, |record| {
        let uri = KeyUri::parse(&record.key_uri)?;
        // The way to a key may change (a library's path, a PIN's source); which key it is may not.
        let kind = names::split(&record.name).map_or(record.name.as_str(), |(kind, _)| kind);
        let uri = match settings.key_uris.get(kind) {
            Some(way) if way.scheme() == uri.scheme() => uri.reached_by(way)?,
            _ => uri,
        };
        keys.open(&uri)
    })?;
    let latest = parts.store.latest_audit().await?.map_or(UnixTime(0), |record| record.at);
    let nonces = settings.config.status.ocsp_nonce_per_second;
    let presigned = Presigned::new(&settings);
    let asked_issuers = AskedIssuers::of(&authorities)?;
    let authority = CertificateAuthority {
        pool: SigningPool::new(settings.config.keys.threads, SIGNING_QUEUE)?,
        status_pool: SigningPool::new(settings.config.keys.threads, STATUS_QUEUE)?,
        fresh_limit: RateLimiter::new(Rate::new(nonces, nonces.saturating_mul(BURST_SECONDS))),
        challenges: Challenges::new()?,
        allowances: Allowances::new(&settings.config.enrolment),
        anchored_at: Mutex::new(None),
        settings,
        store: parts.store,
        clock: ClockGuard::new(parts.clock, latest),
        authorities,
        fallen: RwLock::default(),
        issuance_log: parts.issuance_log,
        event_log: parts.event_log,
        issuers: parts.issuers,
        served_tokens: Served::new(),
        token_refusals: TokenRefusals::default(),
        service_records: ServiceRecords::default(),
        quorum: parts.quorum,
        mail: parts.mailer.map(CodeMail::by),
        published: RwLock::new(BTreeMap::new()),
        changed: Notify::new(),
        event_due: Notify::new(),
        request_due: Notify::new(),
        answers: AnswerCache::new(),
        asked_issuers,
        presigned,
        counted_orders: CountedOrders::new(),
        ending: tokio::sync::Mutex::default(),
        set_aside: SetAside::default(),
        deliveries: Deliveries::default(),
        metrics: CaMetrics::default(),
    };
    authority.metrics.first_expiry.set(authority.first_end().map_or(0, |end| end.0));
    authority.metrics.issues_until.set(authority.issues_until().map_or(0, |end| end.0));
    authority.metrics.keys_are(authority.authorities.keys());
    authority.look_at_own_certificates().await?;
    authority.load_published().await?;
    Ok(authority)
}

/// Opens the CA that the settings name.
///
/// # Errors
/// [`StartRefusal`] naming what cannot be opened and what to do.
pub async fn open(
    settings: Settings,
    clock: Arc<dyn Clock>,
) -> Result<Arc<CertificateAuthority>, StartRefusal> {
    let keys = Unlocking::begin(&settings);
    let opened = SqlStore::open(&settings.database).await;
    let store = opened.map_err(|error| database_refusal(&settings.database, error))?;
    open_over(store, settings, clock, keys).await
}

/// The same to look at it: nothing is changed, and a database of another version of the program is refused.
///
/// # Errors
/// As [`open`].
pub async fn open_to_read(
    settings: Settings,
    clock: Arc<dyn Clock>,
) -> Result<Arc<CertificateAuthority>, StartRefusal> {
    let keys = Unlocking::begin(&settings);
    let opened = SqlStore::open_to_read(&settings.database).await;
    let store = opened.map_err(|error| database_refusal(&settings.database, error))?;
    open_over(store, settings, clock, keys).await
}

/// The keystore on its way: the key that opens it is derived from the passphrase on a thread of its own, while the database and what the CA
/// speaks to are opened. It is most of a start.
struct Unlocking(JoinHandle<Result<Keyring, StartRefusal>>);

impl Unlocking {
    fn begin(settings: &Settings) -> Self {
        let settings = settings.clone();
        Self(tokio::task::spawn_blocking(move || keyring(&settings)))
    }

    async fn done(self) -> Result<Keyring, StartRefusal> {
        self.0.await.unwrap_or_else(|ended| {
            Err(StartRefusal::new("the keystore could not be opened", "start again").because(ended))
        })
    }
}

async fn open_over(
    store: SqlStore,
    settings: Settings,
    clock: Arc<dyn Clock>,
    keys: Unlocking,
) -> Result<Arc<CertificateAuthority>, StartRefusal> {
    let parts = configured(store, &settings, clock);
    // What is wrong with the keystore is said first, whatever else is.
    let keys = keys.done().await?;
    let authority = assemble(settings, parts?, &keys).await.map_err(|error| {
        StartRefusal::new(
            "the CA's records and keys do not fit together",
            "restore database and keystore of one backup",
        )
        .because(error)
    })?;
    Ok(Arc::new(authority))
}

/// What the settings name beside the keys.
fn configured(store: SqlStore, settings: &Settings, clock: Arc<dyn Clock>) -> Result<Parts, StartRefusal> {
    let issuance_log = match &settings.config.issuance_log {
        None => None,
        Some(config) => Some(LoggedTo {
            log: Arc::new(HttpLog::issuance(settings, config)?),
            public_key: log_key(&settings.path(&config.public_key_file))?,
        }),
    };
    let event_log: Option<Arc<dyn EventLog>> = match &settings.config.event_log {
        None => None,
        Some(config) => Some(Arc::new(HttpLog::event(settings, config)?)),
    };
    let issuers = Issuers::over_http(settings)?;
    let quorum = quorum(settings)?;
    let mailer = mail::configured(settings)?;
    Ok(Parts { store: Arc::new(store), clock, issuance_log, event_log, issuers, quorum, mailer })
}

/// A database that is not there is made by a ceremony; one that is there and cannot be read, never: a second CA of the same
/// name would be founded over the certificates of the first.
pub(crate) fn database_refusal(shown: &Database, error: StoreError) -> StartRefusal {
    match error {
        StoreError::NotFound => StartRefusal::new(
            format!("{shown} does not exist"),
            "hold the ceremony first: ca-service init; if it was held, correct data_dir, or restore the newest backup",
        ),
        StoreError::SchemaDiffers { found, known } if found > known => StartRefusal::new(
            format!("{shown} is of a newer program: it has schema {found}, this program knows {known}"),
            "use the newer program; there is no way back but the backup that was made before",
        ),
        StoreError::SchemaDiffers { found, known } => StartRefusal::new(
            format!("{shown} is of an earlier program: it has schema {found}, this program has {known}"),
            "look at it with the program that serves it; the next start of `ca-service serve` of this one brings it to its schema",
        ),
        error => StartRefusal::new(
            format!("{shown} is there, but cannot be read"),
            "hold no new ceremony: keep the file, check who may read it and the disk, else restore the newest backup \
             (ca-service restore) and prove it with ca-service check",
        )
        .because(error),
    }
}

/// Opens the keystore that the settings name.
///
/// # Errors
/// [`StartRefusal`] naming what to correct.
pub fn keystore(settings: &Settings) -> Result<Keystore, StartRefusal> {
    let passphrase = settings.passphrase.read().map_err(|error| {
        StartRefusal::new("the keystore's passphrase cannot be read", "correct keys.passphrase")
            .because(error)
    })?;
    Keystore::open(&settings.keystore, &passphrase).map_err(|error| {
        StartRefusal::new("the keystore cannot be opened", "correct keys.keystore and keys.passphrase")
            .because(error)
    })
}

/// The keystore, and what `keys.uris` leads to.
///
/// # Errors
/// [`StartRefusal`] naming what to correct.
pub fn keyring(settings: &Settings) -> Result<Keyring, StartRefusal> {
    // Those that strangers keep busy, and those that issue: neither waits for the sessions of the others.
    let users = settings.config.keys.threads.saturating_mul(2);
    Ok(Keyring::new(keystore(settings)?).for_users(users))
}

/// The approvers that the settings name.
///
/// # Errors
/// [`StartRefusal`] when a key cannot be read.
pub fn quorum(settings: &Settings) -> Result<Option<Quorum>, StartRefusal> {
    let base = settings.path(Path::new("."));
    settings.config.approvals.as_ref().map(|approvals| Quorum::load(approvals, &base)).transpose()
}

/// Reads a PEM public key.
fn log_key(path: &Path) -> Result<SubjectPublicKey, StartRefusal> {
    let refuse = |detail: String| {
        StartRefusal::new(
            format!("issuance_log.public_key_file {}: {detail}", path.display()),
            "give the PEM public key of the issuance log",
        )
    };
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let spki = ca_pki::pem::decode("public key", &["PUBLIC KEY"], &text, MAX_KEY_FILE)
        .map_err(|error| refuse(error.to_string()))?;
    SubjectPublicKey::from_spki(&spki, KeyUse::Subscriber).map_err(|error| refuse(error.to_string()))
}

/// A CA that answers, with its background tasks.
pub struct Serving {
    /// The listeners.
    pub running: Running,
    tasks: Vec<JoinHandle<()>>,
    authority: Arc<CertificateAuthority>,
}

impl Serving {
    /// Waits until another server has taken the records over; whoever asked this one meanwhile was told.
    pub async fn superseded(&self) {
        self.authority.superseded().await;
    }

    /// Stops answering, then the background tasks; what was answered is noted. Afterwards nothing is written any more: what
    /// a task had handed to the store when it was stopped is done, for the store writes in order.
    pub async fn stop(self) {
        self.running.stop().await;
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks {
            // Cancelled, or over already.
            let _ = task.await;
        }
        self.authority.note_deliveries().await;
        self.authority.record_refusals(Ended::All).await;
        self.authority.record_stop().await;
        if let Err(error) = self.authority.store.probe().await {
            tracing::warn!(%error, "the last writes may not be durable");
        }
    }
}

/// Reconciles, publishes what is due, then answers requests and keeps both going.
///
/// # Errors
/// [`StartRefusal`] when the store or a listener fails.
pub async fn start(authority: Arc<CertificateAuthority>) -> Result<Serving, StartRefusal> {
    let store_failed = |error: CaError| match error {
        CaError::Clock(_) => StartRefusal::new(
            "the clock shows an earlier time than the records",
            "set the clock; if it is right and the records are of a time when it was wrong, run: \
             ca-service accept-time --config FILE",
        )
        .because(error),
        error => StartRefusal::new("the database cannot be used", "check the file system").because(error),
    };
    // A full disk or a read-only file system is a reason not to start, and found out now.
    authority.store.probe().await.map_err(|error| store_failed(error.into()))?;
    let reconciled = authority.reconcile_local(Reach::Everything).await.map_err(store_failed)?;
    tracing::info!(?reconciled, "open issuances reconciled");
    authority.publish_due().await.map_err(store_failed)?;
    if let Err(error) = authority.write_chains() {
        tracing::error!(%error, "the files of chains may be old");
    }
    let config = &authority.settings().config;
    let access = api::roles::Access::new(&authority)?;
    let metrics = service::metrics::Metrics::new(api::ROUTES);
    metrics.register(|registry| authority.metrics.register(registry));
    let server = match config.enrolment.mutual_tls {
        MutualTls::Refuse => Server::new(&config.server)?,
        MutualTls::Accept => {
            let holders = CodeSigners::of(&authority).map_err(store_failed)?;
            Server::with_holders(&config.server, Arc::new(holders))?
        }
    };
    let server = server
        .route(api::routes(&authority, &access))
        .read_only_route(api::status_routes(&authority))
        .grpc(api::fulcio::grpc::routes(&authority))
        .metrics(metrics)
        .methods(api::methods)
        .readiness({
            let authority = Arc::clone(&authority);
            move || authority.readiness()
        });
    // Before the first request: what is open now is nobody's here.
    let leftovers = authority.leftovers().await.map_err(store_failed)?;
    let config = &authority.settings().config.expiry_warnings;
    let webhook = config.as_ref().map(|config| Webhook::open(authority.settings(), config)).transpose()?;
    let told = &authority.settings().config.enrolment.webhook;
    let notices = told.as_ref().map(|told| Webhook::of_requests(authority.settings(), told)).transpose()?;
    let outside = OutsideView::configured(authority.settings())?;
    authority.record_start().await.map_err(store_failed)?;
    let running = match server.start().await {
        Ok(running) => running,
        Err(refusal) => {
            // It answered nothing: the next start must not take that for a crash.
            authority.record_stop().await;
            return Err(refusal);
        }
    };
    let mut tasks = vec![
        tokio::spawn(Arc::clone(&authority).run_publisher()),
        tokio::spawn(Arc::clone(&authority).run_reconciler(leftovers)),
        tokio::spawn(Arc::clone(&authority).run_event_logger()),
        tokio::spawn(Arc::clone(&authority).run_probe()),
        tokio::spawn(Arc::clone(&authority).run_refusal_records()),
        tokio::spawn(Arc::clone(&authority).run_signature_records()),
        tokio::spawn(Arc::clone(&authority).run_presigning()),
    ];
    tasks.extend(notices.map(|webhook| tokio::spawn(Arc::clone(&authority).run_request_notices(webhook))));
    tasks.extend(webhook.map(|webhook| tokio::spawn(Arc::clone(&authority).run_expiry_warnings(webhook))));
    tasks.extend(outside.map(|view| tokio::spawn(Arc::clone(&authority).run_outside_view(view))));
    Ok(Serving { running, tasks, authority })
}
