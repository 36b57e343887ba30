//! The code reviewer, in Rust: a guest with the capability `network`, and a host of the test's own that it speaks to.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use mentat_tests::stack::Stack;

use crate::toolchain::{Toolchain, make};
use crate::{metrics, ran, release, sdk_folder, stack};

/// Bytes: reading and writing numbers of JSON is most of it.
const LARGEST: u64 = 120_000;

/// Answers every request for `/17.diff` with the case, and every other one with 404.
fn host(diff: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).is_ok_and(|got| got == 1) {
                head.push(byte[0]);
            }
            let (status, body) = if head.starts_with(b"GET /17.diff ") {
                ("200 OK", diff.as_str())
            } else {
                ("404 Not Found", "")
            };
            let length = body.len();
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
            let _ = connection.write_all(answer.as_bytes());
        }
    });
    address
}

/// Lets guests of the stack reach one address in clear text.
fn offer_network(stack: &mut Stack, capability: &str) {
    let path = stack.dir().join("trust/policy.yaml");
    let mut policy: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    policy["capabilities"]["within"].as_array_mut().unwrap().push(capability.into());
    std::fs::write(&path, policy.to_string()).unwrap();
    let path = stack.dir().join("config/executor.toml");
    let mut config = std::fs::read_to_string(&path).unwrap();
    config.push_str("\n[grants.network]\nmode = \"restricted\"\nopen_addresses = [\"127.0.0.1\"]\nclear_text_hosts = [\"127.0.0.1\"]\n");
    std::fs::write(&path, config).unwrap();
    assert_eq!(stack.down(), 0);
    stack.restart();
}

#[test]
fn the_code_reviewer_is_built_admitted_and_speaks_to_its_host_alone() {
    if !Toolchain::Rust.is_here("the code reviewer") {
        return;
    }
    let example = sdk_folder("examples/code-reviewer");
    make(&example, &["all", "test"]);
    let dir = tempfile::tempdir().unwrap();
    let mut stack = stack(dir.path());
    let folder = release(dir.path(), "code-reviewer", LARGEST);
    let named = folder.to_str().unwrap();
    // As it is shipped it asks for nothing that should make anybody ask back; the host of this test speaks in clear text.
    stack.ctl(&["audit-capabilities", named]).success();
    let address = host(std::fs::read_to_string(example.join("case.diff")).unwrap());
    let capability = format!("network:http:{address}");
    let manifest = std::fs::read_to_string(folder.join("manifest.yaml")).unwrap();
    let manifest = manifest.replace("network:https:patches.example.com", &capability);
    std::fs::write(folder.join("manifest.yaml"), manifest).unwrap();
    stack.ctl(&["audit-capabilities", named]).refused(1, "clear_text");
    let input = dir.path().join("input");
    let asks = |host: &str| std::fs::write(&input, format!(r#"{{"url":"http://{host}/17.diff"}}"#)).unwrap();
    asks(&address.to_string());

    // Neither policy nor operator gives it a network: signed or not, it does not run.
    stack.ctl(&["sign", named]).success();
    ran(&stack, named, &input).refused(3, "capability_denied");
    offer_network(&mut stack, &capability);
    let done = ran(&stack, named, &input).success().json();
    let expected = std::fs::read_to_string(example.join("case.output.json")).unwrap();
    assert_eq!(done["text"], expected.trim_end());
    assert_eq!(metrics(&done), ["findings"]);

    // Another port is another destination, and what is not there is the agent's own answer.
    asks("127.0.0.1:1");
    ran(&stack, named, &input).refused(1, "the manifest does not ask for it");
    std::fs::write(&input, format!(r#"{{"url":"http://{address}/18.diff"}}"#)).unwrap();
    ran(&stack, named, &input).refused(1, "status 404");
}
