//! A good answer as it came, whole or in pieces.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};
use prost::encoding::{DecodeContext, decode_key, skip_field};
use prost::{DecodeError, Message};
use weft_proto::v1alpha1 as wire;

/// The field of a cluster that holds an endpoint, in a change too.
const ENDPOINTS: u32 = 4;

/// The last good answer for a resource; the empty version says that there is no such resource. It is
/// kept as it came, with what only a later version of this program understands.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub version: String,
    body: Bytes,
    /// What changed a cluster since its body came, oldest first.
    changes: Vec<Bytes>,
    changes_bytes: usize,
}

impl Held {
    /// As a whole.
    pub(super) fn new(version: String, body: Bytes) -> Self {
        Self {
            version,
            body,
            ..Self::default()
        }
    }

    /// Takes a change that was applied. Changes are put into the body when they have grown as large
    /// as it is: so they never need more room than it does, and the work is spread over as many of
    /// them as there are endpoints.
    pub(super) fn change(&mut self, version: String, change: Bytes) {
        self.version = version;
        self.changes_bytes += change.len();
        self.changes.push(change);
        if self.changes_bytes > self.body.len() {
            self.body = self.whole();
            self.changes.clear();
            self.changes_bytes = 0;
        }
    }

    /// The body of the version that is held; for a cluster that was changed it is made here.
    pub(super) fn whole(&self) -> Bytes {
        if self.changes.is_empty() {
            return self.body.clone();
        }
        splice(&self.body, &self.changes).expect("the body and each change were decoded before")
    }
}

/// A cluster's bytes with all changes in them, ordered as the control plane orders them. What isn't
/// an endpoint stays as it is.
fn splice(body: &Bytes, changes: &[Bytes]) -> Result<Bytes, DecodeError> {
    let (mut spliced, mut endpoints) = (BytesMut::with_capacity(body.len()), BTreeMap::new());
    for (tag, field) in fields(body)? {
        if tag == ENDPOINTS {
            endpoints.insert(id(&field)?, field);
        } else {
            spliced.extend_from_slice(&field);
        }
    }
    for change in changes {
        for id in wire::ClusterChange::decode(change.clone())?.removed {
            endpoints.remove(&id);
        }
        for (tag, field) in fields(change)? {
            if tag == ENDPOINTS {
                endpoints.insert(id(&field)?, field);
            }
        }
    }
    for endpoint in endpoints.values() {
        spliced.extend_from_slice(endpoint);
    }
    Ok(spliced.freeze())
}

/// The ID of the endpoint in a field, which by itself is a cluster of that one endpoint.
fn id(field: &Bytes) -> Result<String, DecodeError> {
    let alone = wire::Cluster::decode(field.clone())?.endpoints.pop();
    Ok(alone.unwrap_or_default().id)
}

/// Every field of a message by its number, with its key.
fn fields(message: &Bytes) -> Result<Vec<(u32, Bytes)>, DecodeError> {
    let (mut rest, mut fields) = (message.clone(), Vec::new());
    while rest.has_remaining() {
        let from = message.len() - rest.remaining();
        let (tag, wire_type) = decode_key(&mut rest)?;
        skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
        fields.push((tag, message.slice(from..message.len() - rest.remaining())));
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::decode::{Decoded, decode_body, decode_change};
    use super::*;
    use crate::model::{Cluster, Name};

    fn endpoint(number: u8, weight: u32) -> wire::Endpoint {
        wire::Endpoint {
            id: format!("e{number}"),
            address: "10.0.0.1".to_owned(),
            port: 1 + u32::from(number),
            weight,
            ..wire::Endpoint::default()
        }
    }

    fn encoded(endpoints: &BTreeMap<u8, u32>) -> Bytes {
        let mut of: Vec<_> = endpoints.iter().map(|(n, w)| endpoint(*n, *w)).collect();
        of.sort_by(|a, b| a.id.cmp(&b.id));
        let cluster = wire::Cluster {
            name: "shop/stock:80".to_owned(),
            service: "shop/stock".to_owned(),
            protocol: wire::Protocol::Http1.into(),
            endpoints: of,
            ..wire::Cluster::default()
        };
        cluster.encode_to_vec().into()
    }

    fn decoded(body: &[u8]) -> Cluster {
        let name = Name::Cluster("shop/stock:80".parse().unwrap());
        match decode_body(&name, body).unwrap() {
            Decoded::Cluster(cluster) => cluster,
            other => panic!("{other:?}"),
        }
    }

    /// What makes `before` into `after`.
    fn change(before: &BTreeMap<u8, u32>, after: &BTreeMap<u8, u32>) -> Bytes {
        let gone = before.keys().filter(|number| !after.contains_key(number));
        let new = after.iter().filter(|(n, w)| before.get(n) != Some(w));
        let change = wire::ClusterChange {
            removed: gone.map(|number| format!("e{number}")).collect(),
            upserted: new.map(|(n, w)| endpoint(*n, *w)).collect(),
        };
        change.encode_to_vec().into()
    }

    fn endpoints() -> impl Strategy<Value = BTreeMap<u8, u32>> {
        prop::collection::btree_map(0..40_u8, 0..3_u32, 0..30)
    }

    proptest! {
        /// A cluster after any changes is what it would be if it had come whole, in force and in bytes.
        #[test]
        fn changes_come_to_the_whole(versions in prop::collection::vec(endpoints(), 1..12)) {
            let mut held = Held::new("0".to_owned(), encoded(&versions[0]));
            let mut cluster = decoded(&held.whole());
            for (number, pair) in (1..).zip(versions.windows(2)) {
                let change = change(&pair[0], &pair[1]);
                cluster = decode_change(&cluster, &change).unwrap();
                held.change(number.to_string(), change);
                let whole = encoded(&pair[1]);
                prop_assert_eq!(&cluster, &decoded(&whole));
                prop_assert_eq!(held.whole(), whole);
                prop_assert!(held.changes_bytes <= held.body.len());
            }
            prop_assert_eq!(held.version, (versions.len() - 1).to_string());
        }
    }

    #[test]
    fn what_is_not_understood_is_kept() {
        // Field 100, a varint: of a later version of the cluster, and of an endpoint in a change.
        let later = [0xa0, 0x06, 0x01];
        let body = [&encoded(&BTreeMap::from([(1, 1)]))[..], &later].concat();
        let new = [&endpoint(2, 1).encode_to_vec()[..], &later].concat();
        let change = [&[0x22, u8::try_from(new.len()).unwrap()], &new[..]].concat();
        let mut held = Held::new("1".to_owned(), body.into());
        held.change("2".to_owned(), change.into());
        let whole = held.whole();
        assert_eq!(decoded(&whole).endpoints.len(), 2);
        let kept = whole.windows(3).filter(|bytes| *bytes == later);
        assert_eq!(kept.count(), 2);
    }
}
