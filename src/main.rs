//! The one binary: `quorate server` and everything that talks to one. What the command line can say
//! stands in `cli`; what a server is, in the crate `server`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::main()
}
