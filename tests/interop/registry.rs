//! Debian's registry (Docker distribution 2.8, which knows no referrers) holds our releases.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mentat_tests::agent::signed;
use mentat_tests::clock::Deadline;
use mentat_tests::stack::Stack;
use serde_json::Value;

/// The running program, killed when dropped.
struct Registry(Child);

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running registry and its address. It cannot choose a port itself, and whatever is free may be somebody's the next moment: then
/// another one is tried.
async fn registry(folder: &Path, http: &reqwest::Client) -> (Registry, String) {
    let config = folder.join("registry.yml");
    let storage = folder.join("storage");
    let deadline = Deadline::after(Duration::from_secs(60));
    loop {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
                storage.display()
            ),
        )
        .unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = Registry(command.spawn().unwrap());
        while child.0.try_wait().unwrap().is_none() {
            if http.get(format!("http://{address}/v2/")).send().await.is_ok() {
                return (child, address);
            }
            assert!(!deadline.passed(), "docker-registry does not listen on {address}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(!deadline.passed(), "docker-registry does not start");
    }
}

#[tokio::test]
async fn a_release_goes_through_debians_registry() {
    if Command::new("docker-registry").arg("--version").output().is_err() {
        mentat_tests::skip::skipped(
            "docker-registry is not installed (Debian: apt-get install docker-registry)",
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let (_registry, address) = registry(dir.path(), &http).await;

    let stack = Stack::up(&dir.path().join("stack"));
    let folder = signed(&stack, dir.path(), "agent");
    let to = format!("oci://{address}/acme/sentiment");
    let publish = ["--json", "publish", folder.to_str().unwrap(), "--to", &to];
    let published = stack.ctl(&publish).success().json();
    assert_eq!(stack.ctl(&publish).success().json(), published, "publishing again changes nothing");
    let output = dir.path().join("out");
    let output = output.to_str().unwrap();
    stack.ctl(&["pull", published["reference"].as_str().unwrap(), "--output", output]).success();
    stack.ctl(&["verify", output]).success();

    // As any client of the registry sees it: the module is the only layer, the list of referrers stands under the tag.
    let get = |path: String| {
        let request = http.get(format!("http://{address}/v2/acme/sentiment/{path}"));
        let kinds = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
        async move { request.header("accept", kinds).send().await.unwrap().bytes().await.unwrap() }
    };
    let image: Value = serde_json::from_slice(&get("manifests/1.0.0".to_owned()).await).unwrap();
    let layer = image["layers"][0]["digest"].as_str().unwrap();
    let module = std::fs::read(folder.join("sentiment.wasm")).unwrap();
    assert_eq!(get(format!("blobs/{layer}")).await, module);
    let tag = published["digest"].as_str().unwrap().replace(':', "-");
    let list: Value = serde_json::from_slice(&get(format!("manifests/{tag}")).await).unwrap();
    let mut kinds: Vec<&str> = list["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["artifactType"].as_str().unwrap())
        .collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        ["application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.mentat.manifest.v1+yaml"]
    );
}
