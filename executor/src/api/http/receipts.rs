//! Receipts over HTTP: single ones as proof files, and the log itself as tiles (C2SP tlog-tiles).

use std::sync::Arc;

use bytes::Bytes;
use executor_api::receipt::ReceiptLog;
use http::StatusCode;
use serde::Deserialize;
use service::Problem;
use tlog::bundle::append_entry;
use tlog::tile::TilePath;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply as _};

use super::{Context, Route, answer, any_of, json, problem};
use crate::api::access::Role;
use crate::executor::Executor;

/// Of which instance.
#[derive(Debug, Deserialize)]
struct Wanted {
    instance: Option<String>,
}

pub(super) fn routes(context: BoxedFilter<(Context,)>) -> Route {
    any_of([
        warp::path!("api" / "v1" / "receipts" / u64)
            .and(warp::get())
            .and(context.clone())
            .map(|index, c: Context| c.read(|caller| c.executor.receipt_of_index(caller, index).map(file)))
            .boxed(),
        warp::path!("api" / "v1" / "receipts")
            .and(warp::get())
            .and(warp::query::<Wanted>())
            .and(context.clone())
            .map(found)
            .boxed(),
        warp::path("receipts").and(warp::path::tail()).and(warp::get()).and(context).and_then(read).boxed(),
    ])
}

fn found(wanted: Wanted, context: Context) -> Response {
    context.read(|caller| match wanted.instance {
        Some(instance) => context.executor.receipt_of_instance(caller, &instance).map(file),
        None => {
            let receipts = context.executor.receipts();
            Ok(json(&ReceiptLog {
                origin: receipts.origin().to_owned(),
                vkeys: receipts.verifier_keys().to_vec(),
                size: receipts.published().map_or(0, |published| published.tree().size),
            }))
        }
    })
}

fn file(proof: Bytes) -> Response {
    respond("text/plain; charset=utf-8", proof)
}

fn respond(kind: &'static str, body: Bytes) -> Response {
    warp::reply::with_header(Response::new(body.into()), http::header::CONTENT_TYPE, kind).into_response()
}

async fn read(rest: warp::path::Tail, context: Context) -> Result<Response, Rejection> {
    let allowed = context.allow(Role::Read).and_then(|caller| {
        context.executor.allow_whole_receipt_log(&caller).map_err(|denied| problem(&denied))
    });
    if let Err(refused) = allowed {
        return Ok(refused.into_response());
    }
    let executor = Arc::clone(&context.executor);
    let path = rest.as_str().to_owned();
    let read = tokio::task::spawn_blocking(move || tile(&executor, &path));
    Ok(answer(read.await.map_err(Problem::internal).and_then(|read| read)))
}

fn tile(executor: &Executor, path: &str) -> Result<Response, Problem> {
    let receipts = executor.receipts();
    let published = receipts.published().map_err(|denied| problem(&denied))?;
    if path == "checkpoint" {
        return Ok(respond("text/plain; charset=utf-8", published.note().clone()));
    }
    let unknown = || Problem::not_found("the receipt log has no such resource");
    let failed = |error: log_store::Error| match error {
        log_store::Error::NotFound => unknown(),
        error => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "receipts_unavailable")
            .with_internal(error.to_string()),
    };
    let log = receipts.log();
    let bytes = match TilePath::parse(path).map_err(|_| unknown())? {
        TilePath::Hashes(id) => log.tile(id.level(), id.index(), id.width(), &published).map_err(failed)?,
        TilePath::Entries(id) => {
            let (mut bytes, mut fits) = (Vec::new(), true);
            log.read(id.first_entry(), u64::from(id.width()), &published, |_, entry| {
                fits &= append_entry(&mut bytes, entry).is_ok();
            })
            .map_err(failed)?;
            if !fits {
                return Err(Problem::internal("an entry does not fit into a bundle"));
            }
            bytes.into()
        }
        _ => return Err(unknown()),
    };
    Ok(respond("application/octet-stream", bytes))
}
