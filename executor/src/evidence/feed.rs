//! The event log as a bell: when it grows, something was revoked or issued, and lists are worth asking for now.
//!
//! What the log says is not believed here (`announced` reads and verifies it), only that it says something new. Whoever forges that causes a few
//! requests for lists a second to the operator's own servers, and where no announcement is believed a round of questions to responders every
//! ten seconds; whoever hides it leaves the ordinary refresh.

use std::time::Duration;

use super::EvidenceError;

/// Time between two looks.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// How many looks after a change lists are fetched: an authority announces a revocation when it is made, and signs the
/// changed list within its publish interval, by default a minute.
pub(crate) const EAGER_LOOKS: u32 = 75;

/// How many of them fetch lists each time: an authority may publish at once.
pub(crate) const IMPATIENT_LOOKS: u32 = 8;

/// Of the others, every so many.
pub(crate) const PATIENT_LOOK: u32 = 5;

/// Largest checkpoint that is read, bytes.
const MAX_CHECKPOINT: usize = 64 << 10;

/// The event log's newest size.
pub(crate) struct Feed {
    http: reqwest::Client,
    url: reqwest::Url,
    size: parking_lot::Mutex<Option<u64>>,
}

/// What a look at the log showed. Nobody vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Its size.
    pub(crate) size: u64,
    /// Whether that is another one than at the last look.
    pub(crate) changed: bool,
}

impl Feed {
    /// Watches the log at `base`.
    pub(super) fn new(http: reqwest::Client, base: &str) -> Result<Self, EvidenceError> {
        let url = format!("{}/checkpoint", base.trim_end_matches('/'));
        let url = reqwest::Url::parse(&url).map_err(|_| EvidenceError::Events { url: base.to_owned() })?;
        Ok(Self { http, url, size: parking_lot::Mutex::new(None) })
    }

    /// Looks once.
    pub(crate) async fn look(&self) -> Result<Look, String> {
        let size = self.ask().await?;
        let before = self.size.lock().replace(size);
        Ok(Look { size, changed: before.is_some_and(|before| before != size) })
    }

    async fn ask(&self) -> Result<u64, String> {
        let mut response =
            self.http.get(self.url.clone()).send().await.map_err(|error| super::crls::cause(&error))?;
        if !response.status().is_success() {
            return Err(format!("HTTP status {}", response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| super::crls::cause(&error))? {
            if body.len() + chunk.len() > MAX_CHECKPOINT {
                return Err(format!("larger than {MAX_CHECKPOINT} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        let text = std::str::from_utf8(&body).map_err(|_| "no checkpoint".to_owned())?;
        let size = text.lines().nth(1).and_then(|line| line.parse().ok());
        size.ok_or_else(|| "no checkpoint".to_owned())
    }
}
