//! What is judged of a request before a byte of its message is read: who asks, and how long the message may be.
//!
//! A generated service decodes the message first and asks its method afterwards. What stands in front of it knows the path,
//! the peer and the headers, and that is all that a caller is judged by.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use executor_api::v1::executor_server::{ExecutorServer, SERVICE_NAME};
use http::{HeaderMap, Request, Response};
use service::Peer;
use service::body::RequestBody;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::service::Routes;

use super::Grpc;
use super::refusal::refuse;
use crate::Metrics;
use crate::admission::Denied;
use crate::api::access::{Access, Role, foreign_origin};
use crate::callers::Caller;

/// Largest message of a method that takes names and numbers only.
pub(super) const MAX_NAMES: usize = 64 << 10;

/// Who may ask for a method, and which of the services decodes its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    /// `None`: everybody who reaches the listener.
    role: Option<Role>,
    message: Message,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    /// At most [`MAX_NAMES`].
    Names,
    /// An input, a module, an attestation or a policy.
    Content,
}

/// The rule of a method of the executor's own service; one that is not named here is for administrators.
fn rule(method: &str) -> Rule {
    let (role, message) = match method {
        "ExecuteAgent" | "ExecuteAgentStream" => (Some(Role::Execute), Message::Content),
        "StreamEvents" => (Some(Role::Execute), Message::Names),
        "ExplainAgent" => (Some(Role::Read), Message::Content),
        "LoadAgent" => (Some(Role::Deploy), Message::Content),
        "TryPolicy" => (Some(Role::Administer), Message::Content),
        "Deploy" | "Promote" | "Rollback" | "UnloadAgent" => (Some(Role::Deploy), Message::Names),
        "HoldReleases" | "ListHolds" | "ReleaseHold" | "StopInstances" => (Some(Role::Stop), Message::Names),
        "GetDeployment" | "GetReceipt" | "GetStatus" | "IsLoaded" | "ListAgents" | "ListInstances" => {
            (Some(Role::Read), Message::Names)
        }
        "Health" => (None, Message::Names),
        _ => (Some(Role::Administer), Message::Names),
    };
    Rule { role, message }
}

/// The services behind their rules.
#[derive(Clone)]
pub struct Front {
    access: Access,
    metrics: Metrics,
    names: Routes,
    content: ExecutorServer<Grpc>,
}

impl Front {
    /// `names` serves everything, and takes short messages; `content` the methods that take long ones.
    pub(super) const fn new(
        access: Access,
        metrics: Metrics,
        names: Routes,
        content: ExecutorServer<Grpc>,
    ) -> Self {
        Self { access, metrics, names, content }
    }
}

impl Service<Request<RequestBody>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let path = request.uri().path();
        let method = path
            .strip_prefix('/')
            .and_then(|path| path.strip_prefix(SERVICE_NAME))
            .and_then(|method| method.strip_prefix('/'));
        // The standard services tell everybody how the executor is and what it speaks.
        let rule = method.map_or(Rule { role: None, message: Message::Names }, rule);
        let peer = request.extensions().get::<Peer>();
        if let Err(refused) = judge(&self.access, rule.role, request.headers(), peer) {
            self.metrics.caller_refused(refused.code);
            return Box::pin(ready(Ok(refuse(&refused).into_http())));
        }
        match rule.message {
            // The same type of body for both: one copy of the code of all methods.
            Message::Content => Box::pin(self.content.call(request.map(Body::new))),
            Message::Names => Box::pin(self.names.call(request.map(Body::new))),
        }
    }
}

/// Lets a caller through: no web page, and in the role that the method asks for.
pub(super) fn judge(
    access: &Access,
    role: Option<Role>,
    headers: &HeaderMap,
    peer: Option<&Peer>,
) -> Result<Caller, Denied> {
    not_from_a_page(access, headers)?;
    let Some(role) = role else { return Ok(Caller::default()) };
    let nobody = || Denied::new("unauthorized", "the connection has no other end that is known");
    access.check(role, headers, peer.ok_or_else(nobody)?)
}

/// Refuses what a web page in a browser of this machine can cause, reads included.
fn not_from_a_page(access: &Access, headers: &HeaderMap) -> Result<(), Denied> {
    // Browsers speak HTTP/1 without TLS and always name a host and an origin there; gRPC clients speak HTTP/2, where
    // the host is no header.
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text("host").map(str::parse::<http::uri::Authority>);
    if text("origin").is_some() || host.as_ref().is_some_and(Result::is_err) {
        return Err(foreign_origin());
    }
    let named = host.and_then(Result::ok);
    access.not_from_a_page(&http::Method::GET, named.as_ref(), &HeaderMap::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the methods from the description that is served, so that a new one is decided about here.
    #[test]
    fn every_method_has_a_rule_and_an_unknown_one_is_for_administrators() {
        let file =
            executor_api::DESCRIPTORS.iter().find(|file| file.services.contains(&SERVICE_NAME)).unwrap();
        let mut seen = Vec::new();
        for symbol in file.symbols {
            let Some(method) = symbol.strip_prefix(SERVICE_NAME).and_then(|rest| rest.strip_prefix('.'))
            else {
                continue;
            };
            let role = match rule(method).role {
                None => "everybody",
                Some(Role::Read) => "read",
                Some(Role::Deploy) => "deploy",
                Some(Role::Execute) => "execute",
                Some(Role::Stop) => "stop",
                Some(Role::Administer) => "administer",
            };
            seen.push(format!("{method} {role} {:?}", rule(method).message));
        }
        seen.sort_unstable();
        let expected = [
            "Deploy deploy Names",
            "ExecuteAgent execute Content",
            "ExecuteAgentStream execute Content",
            "ExplainAgent read Content",
            "GetDeployment read Names",
            "GetReceipt read Names",
            "GetStatus read Names",
            "Health everybody Names",
            "HoldReleases stop Names",
            "IsLoaded read Names",
            "ListAgents read Names",
            "ListHolds stop Names",
            "ListInstances read Names",
            "LoadAgent deploy Content",
            "Promote deploy Names",
            "ReleaseHold stop Names",
            "Rollback deploy Names",
            "StopInstances stop Names",
            "StreamEvents execute Names",
            "TryPolicy administer Content",
            "UnloadAgent deploy Names",
        ];
        assert_eq!(seen, expected);
        assert_eq!(rule("Other"), Rule { role: Some(Role::Administer), message: Message::Names });
    }
}
