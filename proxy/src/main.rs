use clap::Parser;
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: weft_proxy::bootstrap::Options,
}
fn main() {
    tracing_subscriber::fmt()
        .with_env_filter(std::env::var("WEFT_LOG").unwrap_or("info".into()))
        .with_writer(std::io::stderr)
        .init();
    let settings = Cli::parse()
        .options
        .validate()
        .unwrap_or_else(|e| panic!("{e}"));
    if let Err(e) = weft_proxy::app::run(settings, Box::new(|_| Err(String::from("not yet")))) {
        eprintln!("{e}");
        std::process::exit(1)
    }
}
