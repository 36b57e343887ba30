//! A headless Chromium, driven over WebDriver (W3C) by plain HTTP.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mentat_tests::clock::Deadline;
use mentat_tests::skip::skipped;
use reqwest::{Client, Method};
use serde_json::{Value, json};

/// Member by which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// How long the page may take to show something. Generous: the machine may be compiling beside it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the page's scripts run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scripts {
    Run,
    Blocked,
}

/// A browser with one window. Dropping it ends the driver and with it the browser.
pub(crate) struct Browser {
    driver: Child,
    client: Client,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts driver and browser; `None`, and a loud line, where they are not installed.
    pub(crate) async fn start(scripts: Scripts) -> Option<Self> {
        let installed = |program: &str| {
            Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success())
        };
        if !installed("chromedriver") || !installed("chromium") {
            skipped(
                "chromium or chromedriver is not installed (Debian: apt-get install chromium chromium-driver)",
            );
            return None;
        }
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = said
            .find_map(|line| {
                line.split("started successfully on port ").nth(1)?.trim_end_matches('.').parse::<u16>().ok()
            })
            .expect("chromedriver says its port");
        // The pipe must stay open and empty, or the driver blocks on it.
        std::thread::spawn(move || said.for_each(drop));
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(120)).build().unwrap();
        let javascript = if scripts == Scripts::Run { 1 } else { 2 };
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": {
                "args": [
                    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                    "--disable-background-networking", "--disable-component-update", "--disable-sync",
                    "--window-size=1000,1600", format!("--user-data-dir={}", profile.path().display()),
                ],
                "prefs": { "profile.managed_default_content_settings.javascript": javascript },
            },
        } } });
        let url = format!("http://127.0.0.1:{port}/session");
        let mut browser = Self { driver, client, session: url, _profile: profile };
        let session = browser.send(Method::POST, "", capabilities).await;
        let id = session["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {session}"));
        browser.session = format!("{}/{id}", browser.session);
        Some(browser)
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> Value {
        let request = self.client.request(method.clone(), format!("{}{path}", self.session));
        let request = if method == Method::POST { request.json(&body) } else { request };
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{method} {path} {body}: {text}");
        serde_json::from_str::<Value>(&text).unwrap()["value"].clone()
    }

    /// Opens an address in a fresh document.
    pub(crate) async fn open(&self, url: &str) {
        // Two addresses that differ behind `#` only would be one document.
        self.send(Method::POST, "/url", json!({ "url": "about:blank" })).await;
        self.send(Method::POST, "/url", json!({ "url": url })).await;
    }

    /// What a script returns. It runs in the page, beside the page's own.
    pub(crate) async fn script(&self, script: &str) -> Value {
        self.send(Method::POST, "/execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// Waits until a script returns something else than null and false.
    pub(crate) async fn until(&self, script: &str) -> Value {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let value = self.script(script).await;
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return value;
            }
            assert!(!deadline.passed(), "the page never came to `{script}`:\n{}", self.text("body").await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn element(&self, css: &str) -> String {
        let found =
            self.send(Method::POST, "/element", json!({ "using": "css selector", "value": css })).await;
        found[ELEMENT].as_str().unwrap_or_else(|| panic!("no {css}")).to_owned()
    }

    /// Types into a field, after emptying it.
    pub(crate) async fn type_into(&self, css: &str, text: &str) {
        let element = self.element(css).await;
        self.send(Method::POST, &format!("/element/{element}/clear"), json!({})).await;
        self.send(Method::POST, &format!("/element/{element}/value"), json!({ "text": text })).await;
    }

    /// Chooses a file.
    pub(crate) async fn choose_file(&self, css: &str, path: &str) {
        let element = self.element(css).await;
        self.send(Method::POST, &format!("/element/{element}/value"), json!({ "text": path })).await;
    }

    /// Clicks.
    pub(crate) async fn click(&self, css: &str) {
        let element = self.element(css).await;
        self.send(Method::POST, &format!("/element/{element}/click"), json!({})).await;
    }

    /// The text that a person sees.
    pub(crate) async fn text(&self, css: &str) -> String {
        let element = self.element(css).await;
        let text = self.send(Method::GET, &format!("/element/{element}/text"), Value::Null).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// What the browser complained about since the last call: blocked content, missing files, errors in scripts.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.send(Method::POST, "/se/log", json!({ "type": "browser" })).await;
        let entries = log.as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .filter(|entry| entry["level"] == "SEVERE")
            .map(|entry| entry["message"].to_string())
            .collect()
    }

    /// A picture of the window, PNG, into the folder that `MENTAT_SCREENSHOTS` names, if it does.
    pub(crate) async fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("MENTAT_SCREENSHOTS") else { return };
        use base64::Engine as _;
        let picture = self.send(Method::GET, "/screenshot", Value::Null).await;
        let bytes = base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap()).unwrap();
        std::fs::write(std::path::Path::new(&folder).join(format!("{name}.png")), bytes).unwrap();
    }

    /// Closes the browser.
    pub(crate) async fn close(self) {
        self.send(Method::DELETE, "", Value::Null).await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to end, the driver takes the browser with it; killed, it would leave it behind.
        let asked = Command::new("kill").arg(self.driver.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.driver.kill();
        }
        let _ = self.driver.wait();
    }
}
