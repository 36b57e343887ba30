//! The client: blocking calls over a runtime of its own, without any repetition, and a pause after a failure.

use std::future::Future;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::{Builder, tls};
use tokio::runtime::Runtime;

use crate::clock::monotonic;
use crate::error::Error;
use crate::provider::Health;
use crate::uri::KeyUri;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Longest wait for an answer, the connection included.
const ANSWER: Duration = Duration::from_secs(10);
/// Pause before the first new attempt after a failure of the service; doubled by each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Which account and region, and how to reach it.
#[derive(Clone)]
pub struct KmsOptions {
    pub(super) region: String,
    pub(super) endpoint: Option<String>,
    pub(super) credentials: Option<Credentials>,
    pub(super) raw_messages: bool,
}

impl KmsOptions {
    /// The service of a region, with the credentials of the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
    /// `AWS_SESSION_TOKEN`).
    #[must_use]
    pub fn new(region: impl Into<String>) -> Self {
        Self { region: region.into(), endpoint: None, credentials: None, raw_messages: false }
    }

    /// The same at another address, for private endpoints and emulators.
    #[must_use]
    pub fn at(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }

    /// The same with these credentials.
    #[must_use]
    pub fn with_credentials(mut self, access_key: &str, secret_key: &str) -> Self {
        self.credentials = Some(Credentials::new(access_key, secret_key, None, None, "mentat"));
        self
    }

    /// The same, sending whole messages, of 4,096 bytes at most, in place of digests: for emulators that hash digests again.
    #[must_use]
    pub fn with_raw_messages(mut self) -> Self {
        self.raw_messages = true;
        self
    }

    /// The service that a key reference names: `region`, or that of the environment, and `endpoint`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when neither the reference nor `AWS_REGION` names a region.
    pub fn from_uri(uri: &KeyUri) -> Result<Self, Error> {
        let region = uri.query_attribute("region").map(str::to_owned);
        let region = region.or_else(|| std::env::var("AWS_REGION").ok()).ok_or_else(|| Error::Invalid {
            what: "key URI",
            reason: "a KMS reference needs region, or AWS_REGION in the environment".to_owned(),
        })?;
        let options = Self::new(region);
        Ok(match uri.query_attribute("endpoint") {
            Some(endpoint) => options.at(endpoint),
            None => options,
        })
    }
}

fn environment() -> Result<Credentials, Error> {
    let needed = |name: &str| {
        std::env::var(name).map_err(|_| Error::NotFound { what: format!("environment variable {name}") })
    };
    let token = std::env::var("AWS_SESSION_TOKEN").ok();
    Ok(Credentials::new(
        needed("AWS_ACCESS_KEY_ID")?,
        needed("AWS_SECRET_ACCESS_KEY")?,
        token,
        None,
        "environment",
    ))
}

pub(super) struct Service {
    options: KmsOptions,
    client: Client,
    /// Taken when dropped: a runtime may not be dropped in the middle of another one.
    runtime: Option<Runtime>,
    refusal: Mutex<Option<(Duration, Duration, String)>>,
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Service {
    pub(super) fn open(options: KmsOptions) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("kms")
            .enable_all()
            .build()
            .map_err(|error| Error::Permanent { detail: format!("the KMS client cannot start: {error}") })?;
        let credentials = match &options.credentials {
            Some(credentials) => credentials.clone(),
            None => environment()?,
        };
        let http =
            Builder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc));
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(options.region.clone()))
            .credentials_provider(credentials)
            .http_client(http.build_https())
            // A signature that may have been made is never asked for again.
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder().connect_timeout(CONNECT).operation_timeout(ANSWER).build(),
            );
        if let Some(endpoint) = &options.endpoint {
            config = config.endpoint_url(endpoint);
        }
        let client = Client::from_conf(config.build());
        Ok(Self { options, client, runtime: Some(runtime), refusal: Mutex::new(None) })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn sends_raw_messages(&self) -> bool {
        self.options.raw_messages
    }

    /// The query part of references to this service.
    pub(super) fn way(&self) -> String {
        let region = format!("?region={}", self.options.region);
        match &self.options.endpoint {
            Some(endpoint) => format!("{region}&endpoint={endpoint}"),
            None => region,
        }
    }

    pub(super) fn health(&self) -> Health {
        match &*self.refusal.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Health::Usable,
            Some((until, _, detail)) if *until > monotonic() => Health::Unusable { detail: detail.clone() },
            Some((_, _, detail)) => Health::Probing { detail: detail.clone() },
        }
    }

    /// Makes one call that may be repeated by the caller: what is not answered did nothing that matters.
    pub(super) fn run<T, E, F>(&self, call: F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, SdkError<E>>> + Send + 'static,
        T: Send + 'static,
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        self.call(call, Unanswered::Repeatable)
    }

    /// Makes one call that must not be repeated.
    pub(super) fn once<T, E, F>(&self, call: F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, SdkError<E>>> + Send + 'static,
        T: Send + 'static,
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        self.call(call, Unanswered::Ambiguous)
    }

    fn call<T, E, F>(&self, call: F, unanswered: Unanswered) -> Result<T, Error>
    where
        F: Future<Output = Result<T, SdkError<E>>> + Send + 'static,
        T: Send + 'static,
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((until, _, detail)) = &*refusal
            && *until > monotonic()
        {
            return Err(Error::Transient { detail: detail.clone() });
        }
        let pause = refusal.as_ref().map_or(FIRST_PAUSE, |(_, pause, _)| *pause);
        drop(refusal);
        let stopped = || Error::Permanent { detail: "the KMS client has stopped".to_owned() };
        let runtime = self.runtime.as_ref().ok_or_else(stopped)?;
        // Not `block_on`: the caller may be inside another runtime.
        let (answer, answered) = mpsc::sync_channel(1);
        runtime.spawn(async move {
            // Nobody waits any more only when the process ends.
            let _ = answer.send(call.await);
        });
        let outcome = answered.recv().map_err(|_| stopped())?.map_err(|error| meaning(&error, unanswered));
        refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        match &outcome {
            Err(error @ (Error::Transient { .. } | Error::Ambiguous { .. })) => {
                let next = (pause * 2).min(LONGEST_PAUSE);
                *refusal = Some((monotonic() + pause, next, error.to_string()));
            }
            _ => *refusal = None,
        }
        outcome
    }
}

/// What a request that was not answered means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unanswered {
    /// A signature may exist.
    Ambiguous,
    /// It may be sent again.
    Repeatable,
}

fn meaning<E>(error: &SdkError<E>, unanswered: Unanswered) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let detail = format!("AWS KMS: {}", aws_sdk_kms::error::DisplayErrorContext(error));
    let unknown = |detail| match unanswered {
        Unanswered::Ambiguous => Error::Ambiguous { detail },
        Unanswered::Repeatable => Error::Transient { detail },
    };
    match error {
        SdkError::ConstructionFailure(_) => Error::Permanent { detail },
        SdkError::DispatchFailure(failure) if failure.is_user() || never_connected(error) => {
            Error::Transient { detail }
        }
        SdkError::ServiceError(answer) => match answer.err().code().unwrap_or_default() {
            "AccessDeniedException"
            | "ExpiredTokenException"
            | "IncompleteSignature"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "MissingAuthenticationToken"
            | "UnrecognizedClientException" => Error::AuthFailed { what: "AWS KMS".to_owned() },
            "NotFoundException" => Error::NotFound { what: "the key in AWS KMS".to_owned() },
            "KeyUnavailableException"
            | "LimitExceededException"
            | "RequestLimitExceeded"
            | "ThrottlingException" => Error::Transient { detail },
            "DependencyTimeoutException" | "KMSInternalException" => unknown(detail),
            _ => Error::Permanent { detail },
        },
        _ => unknown(detail),
    }
}

/// Whether the failure is that of a connection that was never made: nothing was sent.
fn never_connected(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind::{
                AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable,
            };
            if matches!(
                io.kind(),
                AddrNotAvailable | ConnectionRefused | HostUnreachable | NetworkUnreachable
            ) {
                return true;
            }
        }
        next = current.source();
    }
    false
}
