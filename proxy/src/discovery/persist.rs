//! The last good resources on disk: a proxy that restarts while the control plane is away serves with
//! them. The file is a magic word, the SHA-256 of the rest, and the rest: a `Push` message.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use prost::Message;
use weft_proto::v1alpha1::{Push, Resource, ResourceName};

use super::held::Held;
use super::publish::Resources;
use super::{Handle, names};
use crate::identity::{move_aside, read, write};
use crate::model::{Configuration, Name};

/// Also the version of the format.
const MAGIC: &[u8] = b"weft resources 1\n";
/// A file that is larger is not read.
const BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// The least time between two writes; pushes that come within it are written together.
const DEBOUNCE: Duration = Duration::from_secs(1);

/// Puts what is in the file in force. A file that can't be read is put aside.
pub(super) fn load(path: &Path, resources: &mut Resources, configuration: &mut Configuration) {
    let content = match read(path, BYTES_MAX) {
        Ok(Some(content)) => content,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read the stored configuration");
            return;
        }
    };
    match decode(&content) {
        Ok(push) => {
            for resource in push.resources {
                restore(path, resource, resources, configuration);
            }
        }
        Err(reason) => {
            let aside = move_aside(path).map(|aside| aside.display().to_string());
            let aside = aside.unwrap_or_else(|error| format!("nowhere: {error}"));
            tracing::warn!(
                path = %path.display(), reason, aside,
                "the stored configuration can't be used; it was moved aside"
            );
        }
    }
}

fn restore(
    path: &Path,
    resource: Resource,
    resources: &mut Resources,
    configuration: &mut Configuration,
) {
    let held = Held::new(resource.version, resource.body);
    let restored = names::from_wire(resource.r#type, &resource.name)
        .map_err(|(field, reason)| format!("{field}: {reason}"))
        .and_then(|name| {
            resources
                .restore(name, held, configuration)
                .map_err(|error| error.to_string())
        });
    if let Err(reason) = restored {
        // It was good for the version of the proxy that stored it.
        tracing::warn!(
            path = %path.display(), resource = resource.name, reason,
            "a stored resource can't be used; asking for it again when it is needed"
        );
    }
}

/// Resources as the control plane would send them.
fn whole(kept: Vec<(Name, Held)>) -> Vec<Resource> {
    let resources = kept.into_iter().map(|(name, held)| {
        let (ResourceName { r#type, name }, body) = (names::to_wire(&name), held.whole());
        Resource {
            r#type,
            name,
            version: held.version,
            body,
            ..Resource::default()
        }
    });
    resources.collect()
}

fn encode(resources: Vec<Resource>) -> Vec<u8> {
    let body = Push {
        nonce: 0,
        resources,
    }
    .encode_to_vec();
    let mut content = Vec::with_capacity(MAGIC.len() + SHA256_OUTPUT_LEN + body.len());
    content.extend_from_slice(MAGIC);
    content.extend_from_slice(digest(&SHA256, &body).as_ref());
    content.extend_from_slice(&body);
    content
}

fn decode(content: &[u8]) -> Result<Push, String> {
    let rest = content
        .strip_prefix(MAGIC)
        .ok_or("it is of no known format")?;
    let (sum, body) = rest
        .split_at_checked(SHA256_OUTPUT_LEN)
        .ok_or("it was cut off")?;
    if digest(&SHA256, body).as_ref() != sum {
        return Err("its checksum is wrong".to_owned());
    }
    Push::decode(body).map_err(|error| error.to_string())
}

/// Writes what is in force after each change, at once, and then no more often than [`DEBOUNCE`].
pub(super) async fn run(handle: &Handle) {
    let mut changed = handle.changed();
    // The handle outlives this, so the wait cannot fail.
    while changed.changed().await.is_ok() {
        store(handle).await;
        tokio::time::sleep(DEBOUNCE).await;
    }
}

/// Writes what is in force now.
pub(super) async fn store(handle: &Handle) {
    let Some(path) = handle.path() else { return };
    let kept = handle.to_keep();
    let target = path.clone();
    // Clusters that came as changes are made whole here, where nobody waits for it.
    let written = tokio::task::spawn_blocking(move || write(&target, &encode(whole(kept)))).await;
    if let Ok(Err(error)) = written {
        tracing::warn!(
            path = %path.display(), %error,
            "cannot store the configuration; a restart without the control plane would lack it"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_noticed() {
        let resource = Resource {
            name: "self".to_owned(),
            ..Resource::default()
        };
        let content = encode(vec![resource.clone()]);
        assert_eq!(decode(&content).unwrap().resources, [resource]);
        for at in 0..content.len() {
            let mut changed = content.clone();
            changed[at] ^= 1;
            assert!(decode(&changed).is_err(), "byte {at}");
            assert!(decode(&content[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_corrupt_file_is_moved_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resources");
        std::fs::write(&path, "what is this").unwrap();
        load(
            &path,
            &mut Resources::default(),
            &mut Configuration::default(),
        );
        assert!(!path.exists());
        assert!(directory.path().join("resources.corrupt").exists());
    }
}
