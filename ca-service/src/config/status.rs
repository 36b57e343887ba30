//! Revocation lists and status answers in the configuration.

use std::num::NonZeroU32;

use serde::Deserialize;
use service::StartRefusal;

use super::in_range;
use crate::presigned::PresignScope;

/// Revocation lists and status answers as they are written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StatusConfig {
    /// Seconds after which a changed list is signed again. Default 60.
    pub publish_interval_seconds: u64,
    /// Hours after which an unchanged list is signed again, at most 168 (R3). Default 24.
    pub refresh_hours: u32,
    /// Days from thisUpdate to nextUpdate of lists of the issuing CAs, at most 10 (R3). Default 7.
    pub crl_days: u32,
    /// Days from thisUpdate to nextUpdate of the root's list, at most 365. Default 180.
    pub root_crl_days: u32,
    /// Hours an OCSP answer lives, at most 240 (O2). Default 24.
    pub ocsp_hours: u32,
    /// OCSP answers a second for one client that are signed for it alone: with a nonce (O4), or about a serial number that was
    /// never given. Default 100.
    pub ocsp_nonce_per_second: NonZeroU32,
    /// Which OCSP answers are signed before anybody asks: `revoked` (default), `all` or `none`.
    pub ocsp_presign: PresignScope,
    /// How many of them a second. Default 100.
    pub ocsp_presign_per_second: NonZeroU32,
    /// Seconds between two looks at what `status_url` serves, 60 to 86400; 0 for none. Default 300.
    pub outside_view_seconds: u32,
}

impl Default for StatusConfig {
    fn default() -> Self {
        Self {
            publish_interval_seconds: 60,
            refresh_hours: 24,
            crl_days: 7,
            root_crl_days: 180,
            ocsp_hours: 24,
            ocsp_nonce_per_second: NonZeroU32::MIN.saturating_add(99),
            ocsp_presign: PresignScope::default(),
            ocsp_presign_per_second: NonZeroU32::MIN.saturating_add(99),
            outside_view_seconds: 300,
        }
    }
}

impl StatusConfig {
    /// Demands what is in its range.
    pub(super) fn validate(&self) -> Result<(), StartRefusal> {
        in_range("status.publish_interval_seconds", self.publish_interval_seconds, 1, 3_600)?;
        in_range("status.refresh_hours", u64::from(self.refresh_hours), 1, 168)?;
        in_range("status.crl_days", u64::from(self.crl_days), 1, 10)?;
        in_range("status.root_crl_days", u64::from(self.root_crl_days), 1, 365)?;
        in_range("status.ocsp_hours", u64::from(self.ocsp_hours), 1, 240)?;
        if self.outside_view_seconds > 0 {
            let seconds = u64::from(self.outside_view_seconds);
            in_range("status.outside_view_seconds", seconds, 60, 86_400)?;
        }
        if self.refresh_hours / 24 >= self.crl_days {
            return Err(StartRefusal::new(
                "status.refresh_hours is not below status.crl_days",
                "refresh lists before they expire",
            ));
        }
        Ok(())
    }
}
