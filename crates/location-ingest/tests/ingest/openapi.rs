//! The description is true: schemathesis makes requests of it, right ones and wrong ones, and checks each answer.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::cluster::Running;

/// Pinned: another release may find something else to check, and a test must not change by itself.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
/// Cases of each operation and phase.
const EXAMPLES: &str = "25";

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; Python 3 with venv is needed (make install)"))
}

fn must(command: &mut Command) {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Installs it once, beside everything else that is built.
fn schemathesis() -> PathBuf {
    let dir = native::stack_dir("schemathesis");
    let (done, program) = (dir.join(SCHEMATHESIS), dir.join("bin/schemathesis"));
    if !done.exists() {
        must(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir));
        let pip = ["install", "--quiet", "--disable-pip-version-check", SCHEMATHESIS];
        must(Command::new(dir.join("bin/pip")).args(pip));
        std::fs::write(done, "").unwrap();
    }
    program
}

fn check(program: &Path, url: &str) -> Output {
    let dir = native::stack_dir("schemathesis-run");
    std::fs::create_dir_all(&dir).unwrap();
    let arguments = [
        "run",
        &format!("{url}/openapi.json"),
        "--max-examples",
        EXAMPLES,
        "--phases",
        "examples,coverage,fuzzing",
        // What is wrong with a position that only looks right (a time far ahead, an unprintable id) no schema can say, and
        // a batch with wrong items is answered with 200, item by item. That what is wrong is refused has its own tests
        // (validation.rs, formats.rs).
        "--exclude-checks",
        "negative_data_rejection,positive_data_acceptance",
        "--seed",
        "17",
        "--generation-database",
        "none",
        "--no-color",
    ];
    run(Command::new(program).args(arguments).current_dir(dir))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_description_says_is_true() {
    let ingest = Running::ready("openapi", &[]).await;
    let url = format!("http://{}", ingest.address);
    let output = tokio::task::spawn_blocking(move || check(&schemathesis(), &url)).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    ingest.stop().await.unwrap();
}
