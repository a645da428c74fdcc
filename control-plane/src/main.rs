//! weft's control plane and its command line.

use std::process::ExitCode;

use weft::{app, cli};

fn main() -> ExitCode {
    cli::run(|options| {
        app::serve(app::Options {
            data_dir: options.data_dir,
            listen: options.listen,
            admin: options.admin,
            trust_domain: options.trust_domain,
            svid_lifetime: options.svid_lifetime,
        })
    })
}
