//! What the wrapper around the compiler (proxy/profile/rustc) has it told, seen with a compiler that only says what it was told.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A compiler of a new LLVM.
const COMPILER: &str =
    "#!/bin/sh\nif [ \"$1\" = -vV ]; then echo 'LLVM version: 99.0.0'; else echo \"$@\"; fi\n";

#[test]
fn the_profile_means_the_same_in_every_directory() {
    let compiler = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiler");
    std::fs::write(&compiler, COMPILER).unwrap();
    std::fs::set_permissions(&compiler, PermissionsExt::from_mode(0o755)).unwrap();
    let wrapper = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proxy/profile/rustc");
    let told = |name: &str, level: &str, metadata: &str| {
        let arguments = [
            "--crate-name",
            name,
            "-C",
            level,
            "-C",
            metadata,
            "--cfg",
            "a \"b\"",
        ];
        let mut command = Command::new(&wrapper);
        let command = command.arg(&compiler).args(arguments);
        let output = command.env_remove("WEFT_PROFILE").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for (name, has_profile) in [("weft_proxy", true), ("weft_proto", false)] {
        let here = told(name, "opt-level=3", "metadata=1");
        assert_eq!(here, told(name, "opt-level=3", "metadata=2"), "{name}");
        assert!(
            !here.contains("metadata=1") && here.contains("metadata="),
            "{here}"
        );
        assert!(here.contains("--cfg a \"b\""), "{here}");
        assert_eq!(here.contains("weft-proxy.profdata"), has_profile, "{here}");
    }
    // Neither what isn't released nor other crates are touched.
    for (name, level) in [("weft_proxy", "opt-level=1"), ("weft", "opt-level=3")] {
        let here = told(name, level, "metadata=1");
        assert!(
            here.contains("metadata=1") && !here.contains("profdata"),
            "{here}"
        );
    }
}
