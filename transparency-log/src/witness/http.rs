//! The witness over HTTP, and its commands.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hsm::KeyProvider as _;
use hsm::software::Keystore;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use log_store::OsDisk;
use serde_json::{Value, json};
use service::body::RequestBody;
use service::{Failure, Problem, Server, StartRefusal, ready, shutdown};
use tlog::witness::{MAX_REQUEST_SIZE, Refusal, SIZE_CONTENT_TYPE, size_body};

use super::config::Settings;
use super::origins::KnownOrigins;
use super::state::{NoCosignature, WitnessKeys, WitnessState};
use crate::api::{Answer, Handled, Oversize, body, respond};
use crate::clock::LogClock;
use crate::init::open_keystore;

const TEXT: &str = "text/plain; charset=utf-8";
/// How often the notes for monitors are written to disk.
const SAVE: Duration = Duration::from_secs(60);

/// Makes the keys, once, and the records of the logs that are configured. Returns the JSON line to print.
///
/// # Errors
/// [`StartRefusal`] when they exist.
pub fn init(settings: &Settings) -> Result<Value, StartRefusal> {
    if settings.keystore.exists() {
        return Err(StartRefusal::new(
            format!("the keystore {} exists already", settings.keystore.display()),
            "run `serve`; keys are made once and never overwritten",
        ));
    }
    let keystore = open_keystore(&settings.keystore, &settings.passphrase)?;
    let failed = |error: hsm::Error| {
        StartRefusal::new("cannot make the keys", "check the keystore's directory").because(error)
    };
    for spec in WitnessKeys::specs().map_err(failed)? {
        keystore.generate(&spec).map_err(failed)?;
    }
    let keys = WitnessKeys::open(&keystore, &settings.name)?;
    let vkeys = keys.vkeys();
    // Keys that were just made never cosigned anything.
    let mut known = KnownOrigins::read(&settings.keystore)?;
    known.begin()?;
    begin_records(settings, keys, known)?;
    Ok(json!({ "initialized": true, "witness": { "name": settings.name, "vkeys": vkeys } }))
}

/// Makes the records of configured logs that this witness never cosigned. Returns the JSON line to print.
///
/// # Errors
/// [`StartRefusal`] as [`serve`]'s, such as when the record of an origin that is listed is gone.
pub fn add_logs(settings: &Settings) -> Result<Value, StartRefusal> {
    let keys = WitnessKeys::open(&open(settings)?, &settings.name)?;
    begin_records(settings, keys, KnownOrigins::read(&settings.keystore)?)?;
    let origins: Vec<&str> = settings.logs.iter().map(|(origin, _)| origin.as_str()).collect();
    Ok(json!({ "origins": origins }))
}

/// Opens every record once, making those that the list does not name.
fn begin_records(settings: &Settings, keys: WitnessKeys, known: KnownOrigins) -> Result<(), StartRefusal> {
    let (disk, clock) = (Arc::new(OsDisk) as _, Arc::new(LogClock));
    WitnessState::open_knowing(settings, keys, &disk, clock, known.adding()).map(drop)
}

fn open(settings: &Settings) -> Result<Keystore, StartRefusal> {
    let passphrase = settings.passphrase.read().map_err(|error| {
        StartRefusal::new("cannot read the keystore's passphrase", "check keystore.passphrase").because(error)
    })?;
    Keystore::open(&settings.keystore, &passphrase).map_err(|error| {
        StartRefusal::new("cannot open the keystore", "run `witness init`, or check keystore.passphrase")
            .because(error)
    })
}

/// Serves until a signal.
///
/// # Errors
/// [`Failure`] with its exit code.
pub async fn serve(settings: Settings, exit_with_stdin: bool) -> Result<(), Failure> {
    let server = Server::new(&settings.server)?;
    let keys = WitnessKeys::open(&open(&settings)?, &settings.name)?;
    let state = Arc::new(WitnessState::open(&settings, keys, &(Arc::new(OsDisk) as _), Arc::new(LogClock))?);
    let shared = state.clone();
    let running =
        server.service(tower::service_fn(move |request| answer(shared.clone(), request))).start().await?;
    let stopped = shutdown::signal(exit_with_stdin);
    ready::announce(&running)?;
    let saved = state.clone();
    let saving = tokio::spawn(async move {
        loop {
            tokio::time::sleep(SAVE).await;
            let state = saved.clone();
            if tokio::task::spawn_blocking(move || state.save_notes()).await.is_err() {
                return;
            }
        }
    });
    running.run_until(stopped).await;
    saving.abort();
    tokio::task::spawn_blocking(move || state.save_notes()).await.map_err(Failure::failed)
}

async fn answer(state: Arc<WitnessState>, request: Request<RequestBody>) -> Result<Answer, Infallible> {
    Ok(route(state, request).await.unwrap_or_else(|problem| problem.to_response().map(Full::new)))
}

async fn route(state: Arc<WitnessState>, request: Request<RequestBody>) -> Handled {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::POST, "/add-checkpoint") => {
            let body = body(request, MAX_REQUEST_SIZE, Oversize::BadRequest).await?;
            let added = tokio::task::spawn_blocking(move || state.add_checkpoint(&body))
                .await
                .map_err(Problem::internal)?;
            added.map(|lines| respond(StatusCode::OK, TEXT, "no-store", lines.into())).or_else(refusal)
        }
        (_, "/add-checkpoint") => Err(Problem::method_not_allowed("POST")),
        (&Method::GET | &Method::HEAD, path) => path
            .strip_prefix('/')
            .and_then(|path| path.strip_suffix("/checkpoint"))
            .and_then(|origin| state.checkpoint(origin))
            .map(|note| respond(StatusCode::OK, TEXT, "public, max-age=10", note))
            .ok_or_else(|| Problem::not_found("nothing was cosigned for this origin")),
        _ => Err(Problem::not_found("there is nothing at this path")),
    }
}

/// The statuses of the protocol.
fn refusal(refused: NoCosignature) -> Handled {
    let text =
        |status: StatusCode, text: String| Ok(respond(status, TEXT, "no-store", format!("{text}\n").into()));
    match refused {
        NoCosignature::Malformed(detail) => text(StatusCode::BAD_REQUEST, detail),
        NoCosignature::UnknownOrigin => {
            text(StatusCode::NOT_FOUND, "the origin is not known here".to_owned())
        }
        NoCosignature::Untrusted => {
            text(StatusCode::FORBIDDEN, "no valid signature of a trusted key".to_owned())
        }
        NoCosignature::Refused(Refusal::Conflict { recorded }) => {
            let body = Bytes::from(size_body(recorded));
            let mut response: Response<Full<Bytes>> =
                respond(StatusCode::CONFLICT, SIZE_CONTENT_TYPE, "no-store", body);
            *response.status_mut() = StatusCode::CONFLICT;
            Ok(response)
        }
        NoCosignature::Refused(Refusal::OldSizeTooLarge) => {
            text(StatusCode::BAD_REQUEST, "the old size is larger than the checkpoint's".to_owned())
        }
        NoCosignature::Refused(Refusal::Inconsistent(error)) => {
            text(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
        }
        NoCosignature::Unavailable(why) => Err(Problem::unavailable("not_recorded", 10).with_internal(why)),
    }
}
