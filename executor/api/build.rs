//! Turns the checked-in protocol descriptions into code, with no protoc on the machine, and lists their descriptors by
//! name for the reflection service.

use std::fmt::Write as _;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=../proto");
    let files = [
        "mentat/executor/v1/executor.proto",
        "grpc/health/v1/health.proto",
        "grpc/reflection/v1/reflection.proto",
    ];
    let descriptors = protox::compile(files, ["../proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    let mut table = String::from("&[\n");
    for (number, file) in descriptors.file.iter().enumerate() {
        let package = file.package();
        let services: Vec<String> =
            file.service.iter().map(|service| format!("{package}.{}", service.name())).collect();
        let mut symbols = services.clone();
        for (service, name) in file.service.iter().zip(&services) {
            symbols.extend(service.method.iter().map(|method| format!("{name}.{}", method.name())));
        }
        symbols.extend(file.enum_type.iter().map(|item| format!("{package}.{}", item.name())));
        let mut messages: Vec<_> =
            file.message_type.iter().map(|message| (package.to_owned(), message)).collect();
        while let Some((outer, message)) = messages.pop() {
            let name = format!("{outer}.{}", message.name());
            symbols.extend(message.enum_type.iter().map(|item| format!("{name}.{}", item.name())));
            messages.extend(message.nested_type.iter().map(|inner| (name.clone(), inner)));
            symbols.push(name);
        }
        let bytes = out.join(format!("descriptor-{number}.bin"));
        std::fs::write(&bytes, file.encode_to_vec())?;
        writeln!(
            table,
            "DescriptorFile {{ name: {:?}, services: &{services:?}, symbols: &{symbols:?}, bytes: include_bytes!({bytes:?}) }},",
            file.name()
        )?;
    }
    table.push(']');
    std::fs::write(out.join("descriptors.rs"), table)?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
