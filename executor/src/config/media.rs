//! `[media]`: where media objects are kept, if not on this machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use service::{ClientTls, StartRefusal};

use super::sections::MediaSection;
use crate::features::Feature;

/// `[media]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MediaPlaces {
    /// The bucket of `grants.media = "s3"`.
    pub s3: Option<S3Section>,
}

/// `[media.s3]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Section {
    /// Address of the service; `http` on this machine only.
    pub url: String,
    /// Region that requests are signed for.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// What stands before the digest in the name of each object.
    #[serde(default)]
    pub prefix: String,
    /// Where the name of the bucket stands in addresses.
    #[serde(default)]
    pub style: BucketStyle,
    /// File with the access key, the secret key and, if there is one, the session token, a line each; mode 0600.
    pub credentials_file: PathBuf,
    /// Seconds one request may take.
    #[serde(default = "ten")]
    pub timeout_seconds: u64,
    /// PEM file with the authorities of the service; absent: the system's.
    pub tls_ca_file: Option<PathBuf>,
}

const fn ten() -> u64 {
    10
}

/// Where the name of a bucket stands in addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BucketStyle {
    /// First in the path.
    #[default]
    Path,
    /// Before the name of the host.
    VirtualHost,
}

/// The bucket, validated.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// Address of the service.
    pub url: String,
    /// Region.
    pub region: String,
    /// Bucket.
    pub bucket: String,
    /// Before the digest: nothing, or a path that ends with a slash.
    pub prefix: String,
    /// Where the bucket's name stands.
    pub style: BucketStyle,
    /// File with the credentials.
    pub credentials_file: PathBuf,
    /// For one request.
    pub timeout: Duration,
    /// Whom to believe.
    pub tls: ClientTls,
}

impl MediaPlaces {
    /// Checks every value. `base` is the folder that relative paths start from, `chosen` what `grants.media` says, `max_mib` what
    /// `grants.media_max_mib` says.
    ///
    /// # Errors
    ///
    /// The first value that cannot be used, values that have no effect, and a place that the build has no code for.
    pub fn validate(
        self,
        base: &Path,
        chosen: MediaSection,
        max_mib: Option<u64>,
    ) -> Result<Option<S3Settings>, StartRefusal> {
        let section = match (chosen, self.s3) {
            (MediaSection::S3, Some(section)) => section,
            (MediaSection::S3, None) => {
                let what = "grants.media = \"s3\" and there is no section [media.s3]";
                return Err(StartRefusal::new(what, "add the section, or choose \"local-files\""));
            }
            (_, Some(_)) => {
                let what = "[media.s3] has no effect";
                return Err(StartRefusal::new(what, "set grants.media = \"s3\", or remove the section"));
            }
            (MediaSection::LocalFiles, None) => {
                Feature::Media.required("grants.media = \"local-files\"", "remove the line")?;
                return Ok(None);
            }
            (MediaSection::None, None) => return Ok(None),
        };
        Feature::MediaS3.required("grants.media = \"s3\"", "choose another place for media")?;
        if max_mib.is_some() {
            let what = "grants.media_max_mib bounds files of this machine, not a bucket";
            return Err(StartRefusal::new(what, "remove it, and bound the bucket where it is kept"));
        }
        section.validate(base).map(Some)
    }
}

impl S3Section {
    fn validate(self, base: &Path) -> Result<S3Settings, StartRefusal> {
        let refuse = |field: &str, rule: &str| {
            Err(StartRefusal::new(format!("media.s3.{field} cannot be used"), format!("it is {rule}")))
        };
        let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if !(3..=63).contains(&self.bucket.len())
            || !self.bucket.bytes().all(|b| lower(b) || b == b'-' || b == b'.')
            || !self.bucket.split('.').all(|label| label.bytes().next().is_some_and(lower))
        {
            return refuse("bucket", "3 to 63 characters of a-z, 0-9, `-` and `.`");
        }
        if !(1..=64).contains(&self.region.len()) || !self.region.bytes().all(|b| lower(b) || b == b'-') {
            return refuse("region", "1 to 64 characters of a-z, 0-9 and `-`");
        }
        // A segment of dots would leave the bucket.
        let segment = |part: &str| {
            !part.is_empty()
                && part.bytes().any(|b| b != b'.')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let plain = self.prefix.strip_suffix('/').is_some_and(|path| path.split('/').all(segment));
        if self.prefix.len() > 256 || !(self.prefix.is_empty() || plain) {
            return refuse("prefix", "empty, or a path such as `mentat/media/`");
        }
        if !(1..=60).contains(&self.timeout_seconds) {
            return refuse("timeout_seconds", "1 to 60");
        }
        let tls = ClientTls::new("media.s3", self.tls_ca_file.map(|file| base.join(file)), None, None)?;
        tls.allow("media.s3.url", &self.url)?;
        Ok(S3Settings {
            url: self.url,
            region: self.region,
            bucket: self.bucket,
            prefix: self.prefix,
            style: self.style,
            credentials_file: base.join(self.credentials_file),
            timeout: Duration::from_secs(self.timeout_seconds),
            tls,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: &str =
        "[s3]\nurl = 'https://s3.example'\nregion = 'eu-1'\nbucket = 'media'\ncredentials_file = 's3.key'\n";

    fn read(text: &str, chosen: MediaSection, max_mib: Option<u64>) -> Result<Option<S3Settings>, String> {
        let places: MediaPlaces = toml::from_str(text).map_err(|error| error.to_string())?;
        places.validate(Path::new("/etc"), chosen, max_mib).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_section_and_a_choice_belong_together() {
        assert!(read("", MediaSection::None, Some(1)).unwrap().is_none());
        assert!(read("", MediaSection::S3, None).unwrap_err().contains("no section"));
        assert!(read(SECTION, MediaSection::LocalFiles, None).unwrap_err().contains("no effect"));
    }

    #[cfg(not(feature = "media"))]
    #[test]
    fn a_build_without_media_refuses_to_start_and_says_which_feature_it_lacks() {
        let refused = read("", MediaSection::LocalFiles, None).unwrap_err();
        assert!(refused.contains("feature `media`"), "{refused}");
    }

    #[cfg(not(feature = "media-s3"))]
    #[test]
    fn a_build_without_a_client_refuses_to_start_and_says_which_feature_it_lacks() {
        let refused = read(SECTION, MediaSection::S3, None).unwrap_err();
        assert!(refused.contains("feature `media-s3`"), "{refused}");
    }

    #[cfg(feature = "media-s3")]
    #[test]
    fn values_that_cannot_be_meant_are_refused() {
        let good = read(SECTION, MediaSection::S3, None).unwrap().unwrap();
        assert_eq!(good.credentials_file, Path::new("/etc/s3.key"));
        assert_eq!((good.timeout, good.style), (Duration::from_secs(10), BucketStyle::Path));
        assert!(read(SECTION, MediaSection::S3, Some(5)).unwrap_err().contains("media_max_mib"));
        for (from, to, part) in [
            ("https://s3.example", "http://s3.example", "another machine"),
            ("https://s3.example", "ftp://s3.example", "media.s3.url"),
            ("'media'", "'Media'", "bucket"),
            ("'media'", "'a/b'", "bucket"),
            ("'media'", "'..a'", "bucket"),
            ("'eu-1'", "''", "region"),
            ("bucket", "timeout_seconds = 0\nbucket", "timeout_seconds"),
            ("bucket", "prefix = 'a'\nbucket", "prefix"),
            ("bucket", "prefix = '../'\nbucket", "prefix"),
            ("bucket", "prefix = 'a/../'\nbucket", "prefix"),
            ("bucket", "prefix = '/'\nbucket", "prefix"),
            ("bucket", "secret = 'x'\nbucket", "unknown field"),
        ] {
            let text = SECTION.replacen(from, to, 1);
            let refused = read(&text, MediaSection::S3, None).unwrap_err();
            assert!(refused.contains(part), "{to}: {refused}");
        }
        let prefixed =
            SECTION.replacen("bucket", "prefix = 'mentat/media.v1/'\nstyle = 'virtual-host'\nbucket", 1);
        let prefixed = read(&prefixed, MediaSection::S3, None).unwrap().unwrap();
        assert_eq!(
            (prefixed.prefix.as_str(), prefixed.style),
            ("mentat/media.v1/", BucketStyle::VirtualHost)
        );
        let local = SECTION.replacen("https://s3.example", "http://127.0.0.1:9000", 1);
        read(&local, MediaSection::S3, None).unwrap();
    }
}
