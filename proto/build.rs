//! Compiles the protobuf files without an installed `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "weft/v1alpha1/discovery.proto",
        "weft/v1alpha1/identity.proto",
        "weft/v1alpha1/admin.proto",
        "envoy/service/ratelimit/v3/rls.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
