//! Deployments over HTTP/JSON in a build without the feature `deployments`: each request is refused.

use warp::Filter;
use warp::filters::BoxedFilter;
use warp::path::Tail;

use super::{Context, Route};
use crate::features::Feature;

pub(super) fn routes(context: &BoxedFilter<(Context,)>) -> Route {
    warp::path("deployments")
        .and(warp::path::tail())
        .and(context.clone())
        .map(|_: Tail, context: Context| context.read(|_| Err(Feature::Deployments.denied())))
        .boxed()
}
