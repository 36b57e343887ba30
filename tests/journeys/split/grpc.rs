//! The executor over gRPC with mutual TLS: whoever is named calls, whoever is only known to the TLS authority is told so, and with
//! everybody else nothing is spoken.

use std::path::Path;
use std::time::Duration;

use executor_api::v1::executor_client::ExecutorClient;
use executor_api::{REASON_METADATA, v1};
use mentat_tests::command::finish;
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Error, Identity};

use super::Page;

const AGENT: &str = "mentatlab.sentiment";

/// What a caller gets.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The agent ran: its output.
    Ran(String),
    /// The executor refused, with this code and reason.
    Refused(Code, String),
    /// The connection carried no answer of the executor.
    Nothing,
}

/// The callers that the executor's configuration names, beside its administrator.
pub(super) const CALLERS: &str = r#"
[[callers]]
name = "gateway"
role = "execute"
subjects = ["CN=log"]
agents = ["mentatlab.*"]

[[callers]]
name = "dashboard"
role = "read"
subjects = ["CN=executor"]
"#;

fn endpoint(page: &Page, certificate: Option<&Path>) -> Result<Endpoint, Error> {
    let read = |path: &Path| std::fs::read(path).unwrap();
    let ca = Certificate::from_pem(read(&page.root.join("tls/ca.crt")));
    let mut tls = ClientTlsConfig::new().ca_certificate(ca);
    if let Some(path) = certificate {
        tls = tls.identity(Identity::from_pem(read(path), read(&path.with_extension("key"))));
    }
    let endpoint = Endpoint::from_shared(format!("https://{}", page.machines.executor))?;
    endpoint.timeout(Duration::from_secs(30)).tls_config(tls)
}

async fn execute(page: &Page, certificate: Option<&Path>) -> Answer {
    // Who is not let in may learn it with the handshake or with the first request: TLS 1.3 allows both.
    let Ok(channel) = endpoint(page, certificate).unwrap().connect().await else { return Answer::Nothing };
    let call = v1::ExecuteAgentRequest { agent: AGENT.into(), ..v1::ExecuteAgentRequest::default() };
    match ExecutorClient::new(channel).execute_agent(call).await {
        Ok(done) => Answer::Ran(String::from_utf8(done.into_inner().output.to_vec()).unwrap()),
        Err(status) => match status.metadata().get(REASON_METADATA) {
            Some(reason) => Answer::Refused(status.code(), reason.to_str().unwrap().to_owned()),
            None => Answer::Nothing,
        },
    }
}

/// An executor that runs [`AGENT`], with the [`CALLERS`] in its configuration.
pub(super) async fn who_is_let_in_calls(page: &Page) {
    for command in
        ["mentatctl tls init --dir tls/elsewhere", "mentatctl tls issue --dir tls/elsewhere --name operator"]
    {
        finish(page.other(command), b"").success();
    }
    let tls = page.root.join("tls");
    for may in ["operator", "log"] {
        let answer = execute(page, Some(&tls.join(may).with_extension("crt"))).await;
        assert!(
            matches!(&answer, Answer::Ran(output) if output.contains("\"words\":0")),
            "{may}: {answer:?}"
        );
    }
    for (who, code, reason) in [
        ("executor", Code::PermissionDenied, "role_not_allowed"),
        // Its chain verifies, and nobody named it.
        ("authority", Code::Unauthenticated, "unauthorized"),
    ] {
        let answer = execute(page, Some(&tls.join(who).with_extension("crt"))).await;
        assert_eq!(answer, Answer::Refused(code, reason.to_owned()), "{who}");
    }
    // No certificate, and one of the administrator's name by another authority.
    let elsewhere = tls.join("elsewhere/operator.crt");
    for stranger in [None, Some(elsewhere.as_path())] {
        assert_eq!(execute(page, stranger).await, Answer::Nothing, "{stranger:?}");
    }
}
