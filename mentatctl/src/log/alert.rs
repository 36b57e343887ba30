//! Alerts of a monitor: a line or JSON on standard output, and a POST to a webhook, delivered or known not to be.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::Value;

use super::watch_list::WebhookFile;
use crate::exit::{Exit, Failure, OrFail as _, Outcome, chain};
use crate::home::read_text;

/// Attempts unless the configuration says otherwise.
const ATTEMPTS: u32 = 4;
/// Longest time for one attempt unless the configuration says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Wait before the second attempt; doubled for each further one.
const WAIT: Duration = Duration::from_millis(500);
/// Longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Where alerts are sent.
#[derive(Clone, Debug)]
pub struct Webhook {
    client: Client,
    url: reqwest::Url,
    token: Option<String>,
    timeout: Duration,
    attempts: u32,
}

impl Webhook {
    /// A webhook from its configuration.
    ///
    /// # Errors
    /// Exit code 2 for an address that is not http or https, a token that cannot be read, or numbers out of range.
    pub fn new(client: Client, file: &WebhookFile) -> Outcome<Self> {
        let url = reqwest::Url::parse(&file.url).or_fail(Exit::Usage, "the webhook's address")?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Failure::usage(format!("the webhook's address {} is not http or https", file.url)));
        }
        let timeout = file.timeout_seconds.map_or(TIMEOUT, Duration::from_secs);
        let attempts = file.attempts.unwrap_or(ATTEMPTS);
        if !(1..=300).contains(&timeout.as_secs()) || !(1..=20).contains(&attempts) {
            return Err(Failure::usage("webhook: timeout_seconds is 1 to 300, attempts 1 to 20"));
        }
        let token = match &file.token_file {
            Some(path) => Some(read_text(path)?.trim().to_owned()),
            None => None,
        };
        Ok(Self { client, url, token, timeout, attempts })
    }

    /// Delivers one alert. It may arrive twice, when an answer is lost.
    ///
    /// # Errors
    /// `webhook_undelivered`, exit code 69, after the last attempt, or at once when the receiver refuses (4xx other than
    /// 408 and 429): repeating would not help.
    pub async fn deliver(&self, alert: &Value) -> Outcome<()> {
        let body = alert.to_string();
        let mut wait = WAIT;
        for attempt in 1.. {
            let mut request = self
                .client
                .post(self.url.clone())
                .timeout(self.timeout)
                .header("content-type", "application/json")
                .body(body.clone());
            if let Some(token) = &self.token {
                request = request.bearer_auth(token);
            }
            let why = match request.send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) if !worth_repeating(answer.status()) => {
                    return Err(undelivered(&format!("it answers {}", answer.status())));
                }
                Ok(answer) => format!("it answers {}", answer.status()),
                Err(error) => chain(&error.without_url()),
            };
            if attempt >= self.attempts {
                return Err(undelivered(&format!("{why}, {attempt} attempts")));
            }
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2).min(LONGEST_WAIT);
        }
        Ok(())
    }
}

fn worth_repeating(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

fn undelivered(why: &str) -> Failure {
    Failure::new(Exit::Unavailable, format!("the webhook did not take an alert: {why}"))
        .code("webhook_undelivered")
        .hint("what was found is not marked as seen: the next look reports it again")
}
