//! `[telemetry]`: where traces of calls go.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use service::{ClientTls, StartRefusal};

use crate::features::Feature;

/// Most calls that may wait for the collector: some ten MiB.
const MAX_QUEUE: usize = 65_536;

/// `[telemetry]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetrySection {
    /// Whole URL of the collector's endpoint for traces (OTLP over HTTP); `http` on this machine only.
    pub url: String,
    /// Share of the traces that begin here which are exported, 0 to 1. What a caller follows is exported in any case, what it
    /// does not follow never is.
    #[serde(default = "all")]
    pub ratio: f64,
    /// Calls that may wait for the collector; further ones are dropped and counted.
    #[serde(default = "queue")]
    pub queue: usize,
    /// PEM file with the authorities of the collector; absent: the system's.
    pub tls_ca_file: Option<PathBuf>,
}

const fn all() -> f64 {
    1.0
}

const fn queue() -> usize {
    2048
}

/// The collector, validated.
#[derive(Debug, Clone)]
pub struct TelemetrySettings {
    /// Address of its endpoint.
    pub url: String,
    /// Share of new traces, 0 to 1.
    pub ratio: f64,
    /// Calls that may wait.
    pub queue: usize,
    /// Whom to believe.
    pub tls: ClientTls,
}

impl TelemetrySection {
    /// Checks every value. `base` is the folder that relative paths start from.
    ///
    /// # Errors
    ///
    /// The first value that cannot be used, and any in a build that exports nothing.
    pub fn validate(self, base: &Path) -> Result<TelemetrySettings, StartRefusal> {
        Feature::Telemetry.required("[telemetry] is configured", "remove the section")?;
        if !(0.0..=1.0).contains(&self.ratio) {
            return Err(StartRefusal::new("telemetry.ratio is no share", "choose a value from 0.0 to 1.0"));
        }
        if !(1..=MAX_QUEUE).contains(&self.queue) {
            let what = format!("telemetry.queue = {} is out of range", self.queue);
            return Err(StartRefusal::new(what, format!("choose a value from 1 to {MAX_QUEUE}")));
        }
        let tls = ClientTls::new("telemetry", self.tls_ca_file.map(|file| base.join(file)), None, None)?;
        tls.allow("telemetry.url", &self.url)?;
        Ok(TelemetrySettings { url: self.url, ratio: self.ratio, queue: self.queue, tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TelemetrySettings, String> {
        let section: TelemetrySection = toml::from_str(text).map_err(|error| error.to_string())?;
        section.validate(Path::new("/etc")).map_err(|refusal| refusal.to_string())
    }

    #[cfg(not(feature = "telemetry"))]
    #[test]
    fn a_build_that_exports_nothing_refuses_to_start_and_says_which_feature_it_lacks() {
        let refused = read("url = 'http://127.0.0.1:4318/v1/traces'").unwrap_err();
        assert!(refused.contains("feature `telemetry`"), "{refused}");
    }

    #[cfg(feature = "telemetry")]
    #[test]
    fn values_that_cannot_be_meant_are_refused() {
        let url = "url = 'http://127.0.0.1:4318/v1/traces'";
        let good = read(url).unwrap();
        assert_eq!((good.ratio.to_bits(), good.queue), (1.0f64.to_bits(), 2048));
        for (more, part) in [
            ("ratio = 1.5", "ratio"),
            ("ratio = -0.1", "ratio"),
            ("ratio = nan", "ratio"),
            ("queue = 0", "queue"),
            ("queue = 65537", "queue"),
            ("sampler = 'all'", "unknown field"),
        ] {
            let refused = read(&format!("{url}\n{more}")).unwrap_err();
            assert!(refused.contains(part), "{more}: {refused}");
        }
        assert!(read("url = 'http://collector.example/v1/traces'").unwrap_err().contains("another machine"));
        assert!(read("url = 'collector'").unwrap_err().contains("telemetry.url"));
        read("url = 'https://collector.example/v1/traces'\nratio = 0.0").unwrap();
    }
}
