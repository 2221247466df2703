//! Where things lie in a checkout.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the checkout that this crate was built from.
pub fn root_dir() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.ancestors().nth(2).unwrap_or(crate_dir).to_owned()
}

/// Cargo's target directory: `CARGO_TARGET_DIR`, else `target` of the checkout.
pub fn target_dir() -> PathBuf {
    let root = root_dir();
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => root.join(dir),
        _ => root.join("target"),
    }
}

/// Where the servers' programs and the stacks lie.
pub fn native_dir() -> PathBuf {
    target_dir().join("native")
}

/// The directory of the stack called `name`.
pub fn stack_dir(name: &str) -> PathBuf {
    native_dir().join(name)
}
