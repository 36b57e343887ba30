//! A log's files in a folder: read as the answers of a server are, and trusted as little.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;

use crate::error::Error;
use crate::http::Answer;

/// The file of a path below the log's base; status 404 where there is none.
pub(crate) async fn read(folder: &Path, path: &str, limit: usize) -> Result<Answer, Error> {
    let answer =
        |status, body: Vec<u8>| Answer { status, headers: HeaderMap::new(), body: Bytes::from(body) };
    // Every path is made here, and none of them leads out of the folder.
    if !Path::new(path).components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(answer(StatusCode::NOT_FOUND, Vec::new()));
    }
    let file = folder.join(path);
    let failed = |source| Error::Folder { path: file.clone(), source };
    let reading = tokio::task::spawn_blocking({
        let file = file.clone();
        move || read_bounded(file, limit)
    });
    match reading.await.map_err(|error| failed(io::Error::other(error)))? {
        Ok(body) if body.len() > limit => Err(Error::TooLarge { limit }),
        Ok(body) => Ok(answer(StatusCode::OK, body)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(answer(StatusCode::NOT_FOUND, Vec::new())),
        Err(error) => Err(failed(error)),
    }
}

/// At most one byte more than the limit: enough to see that a file is too long.
fn read_bounded(file: PathBuf, limit: usize) -> io::Result<Vec<u8>> {
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(file)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_outside_of_the_folder_is_read() {
        let outside = tempfile::tempdir().unwrap();
        let inside = outside.path().join("log");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        std::fs::write(inside.join("checkpoint"), "y").unwrap();
        let absolute = outside.path().join("secret");
        for path in ["../secret", "tile/../../secret", absolute.to_str().unwrap()] {
            assert_eq!(read(&inside, path, 10).await.unwrap().status, StatusCode::NOT_FOUND, "{path}");
        }
        assert_eq!(read(&inside, "checkpoint", 10).await.unwrap().body, "y");
    }
}
