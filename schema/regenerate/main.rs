//! Rewrites the generated Rust of every schema in `schema`.
//!
//!     cargo run --release --manifest-path schema/regenerate/Cargo.toml
//!
//! The first run compiles flatc, which takes minutes. The output is flatc's, behind a header that
//! records the CRC-32 of the schema; `schema/tests/fresh.rs` compares it with the file, so that a
//! schema that was changed without this command is noticed on machines without flatc.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs, io};

/// Each schema and the file that is made from it.
const SCHEMAS: [(&str, &str); 2] = [("client", "generated.rs"), ("peer", "generated_peer.rs")];

fn main() -> ExitCode {
    for (name, output) in SCHEMAS {
        if let Err(error) = regenerate(name, output) {
            eprintln!("schema/{output} is unchanged: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn regenerate(name: &str, output: &str) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let schema = folder.join(format!("{name}.fbs"));
    let scratch = env::temp_dir().join(format!("quorate-flatc-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let status =
        Command::new(flatc::flatc()).args(["--rust", "-o"]).arg(&scratch).arg(&schema).status()?;
    if !status.success() {
        return Err(io::Error::other(format!("flatc ended with {status}")));
    }
    let body = fs::read_to_string(scratch.join(format!("{name}_generated.rs")))?;
    let crc = crc32fast::hash(&fs::read(&schema)?);
    let header =
        format!("// {name}.fbs {crc:08x}\n// Written by schema/regenerate; do not edit.\n\n");
    fs::write(folder.join(output), header + &body)?;
    fs::remove_dir_all(&scratch)
}
