//! Rewrites `schema/generated.rs` from `schema/client.fbs`.
//!
//!     cargo run --release --manifest-path schema/regenerate/Cargo.toml
//!
//! The first run compiles flatc, which takes minutes. The output is flatc's, behind a header that
//! records the CRC-32 of the schema; `schema/tests/fresh.rs` compares it with the file, so that a
//! schema that was changed without this command is noticed on machines without flatc.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs, io};

fn main() -> ExitCode {
    match regenerate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("schema/generated.rs is unchanged: {error}");
            ExitCode::FAILURE
        }
    }
}

fn regenerate() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let schema = folder.join("client.fbs");
    let scratch = env::temp_dir().join(format!("quorate-flatc-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let status =
        Command::new(flatc::flatc()).args(["--rust", "-o"]).arg(&scratch).arg(&schema).status()?;
    if !status.success() {
        return Err(io::Error::other(format!("flatc ended with {status}")));
    }
    let body = fs::read_to_string(scratch.join("client_generated.rs"))?;
    let crc = crc32fast::hash(&fs::read(&schema)?);
    let header = format!("// client.fbs {crc:08x}\n// Written by schema/regenerate; do not edit.\n\n");
    fs::write(folder.join("generated.rs"), header + &body)?;
    fs::remove_dir_all(&scratch)
}
