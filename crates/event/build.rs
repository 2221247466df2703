//! Compiles `proto/` with protox, a compiler in Rust: no `protoc` has to be installed.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let schema = root.join("driver_location.proto");
    println!("cargo::rerun-if-changed={}", schema.display());
    prost_build::compile_fds(protox::compile([&schema], [&root])?)?;
    Ok(())
}
