//! What is judged of a request before a byte of its message is read: who asks, and how long the message may be.
//!
//! A generated service decodes the message first and asks its method afterwards. What stands in front of it knows the path,
//! the peer and the headers, and that is all that a caller is judged by.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
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

/// The services behind their rules. Every request has a clone, so it is one pointer.
#[derive(Clone)]
pub struct Front(Arc<Services>);

struct Services {
    access: Access,
    metrics: Metrics,
    names: Routes,
    content: ExecutorServer<Grpc>,
}

/// Who sent a request, as it was found out here: in the request's extensions, which nothing that is sent gets into.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    /// For what.
    pub(super) role: Option<Role>,
    pub(super) caller: Caller,
}

impl Front {
    /// `names` serves everything, and takes short messages; `content` the methods that take long ones.
    pub(super) fn new(
        access: Access,
        metrics: Metrics,
        names: Routes,
        content: ExecutorServer<Grpc>,
    ) -> Self {
        Self(Arc::new(Services { access, metrics, names, content }))
    }
}

impl Service<Request<RequestBody>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        let services = &self.0;
        let path = request.uri().path();
        let method = path
            .strip_prefix('/')
            .and_then(|path| path.strip_prefix(SERVICE_NAME))
            .and_then(|method| method.strip_prefix('/'));
        // The standard services tell everybody how the executor is and what it speaks.
        let rule = method.map_or(Rule { role: None, message: Message::Names }, rule);
        let peer = request.extensions().get::<Peer>();
        let caller = match judge(&services.access, rule.role, request.headers(), peer) {
            Ok(caller) => caller,
            Err(refused) => {
                services.metrics.caller_refused(refused.code);
                return Box::pin(ready(Ok(refuse(&refused).into_http())));
            }
        };
        request.extensions_mut().insert(Judged { role: rule.role, caller });
        match rule.message {
            // The same type of body for both: one copy of the code of all methods.
            Message::Content => Box::pin(services.content.clone().call(request.map(Body::new))),
            Message::Names => Box::pin(services.names.clone().call(request.map(Body::new))),
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
    use service::admin::AdminConfig;
    use tonic::Code;

    use super::*;
    use crate::api::caller_tests::refusal;
    use crate::testing::Server;

    #[tokio::test]
    async fn who_was_found_out_here_is_not_found_out_again_but_for_another_role() {
        let server = Server::start().await;
        let admin = AdminConfig { subjects: vec!["CN=root".into()], ..AdminConfig::default() };
        let access = Access::new(&admin, &[], false).unwrap();
        let grpc = Grpc { executor: Arc::clone(&server.executor), access, arriving: Arc::default() };
        // Nothing else in these requests says who sent them.
        let judged = |role| {
            let mut request = tonic::Request::new(());
            request.extensions_mut().insert(Judged { role, caller: Caller::new("caller:a") });
            request
        };
        let known = grpc.allow(Role::Execute, &judged(Some(Role::Execute))).unwrap();
        assert_eq!(known, Caller::new("caller:a"));
        for other in [None, Some(Role::Read)] {
            let refused = refusal(grpc.allow(Role::Execute, &judged(other)));
            assert_eq!(refused, (Code::Unauthenticated, "unauthorized".to_owned()), "{other:?}");
        }
    }

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
