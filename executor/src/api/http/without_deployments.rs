//! Deployments over HTTP/JSON in a build without the feature `deployments`: each request is refused.

use warp::filters::BoxedFilter;
use warp::path::Tail;
use warp::{Filter, Reply as _};

use super::{Context, Route, problem};
use crate::features::Feature;

pub(super) fn routes(context: BoxedFilter<(Context,)>) -> Route {
    warp::path("deployments")
        .and(warp::path::tail())
        .and(context)
        .map(|_: Tail, _: Context| problem(&Feature::Deployments.denied()).into_response())
        .boxed()
}
