//! What each revision was, and going back to it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What is stored, but for what every change makes anew.
fn stored(store: &Store) -> BTreeMap<Key, (Resource, BTreeMap<String, String>)> {
    let snapshot = store.snapshot();
    let bare = |resource: &Arc<Resource>| {
        let key = resource.key();
        let labels = resource.metadata().labels.clone();
        let mut resource = Resource::clone(resource);
        *resource.metadata_mut() = crate::resource::Metadata::default();
        (key, (resource, labels))
    };
    snapshot.iter().map(bare).collect()
}

/// `REVISION CAUSE: NAME ACTION, ..`, the newest first.
fn shown(store: &Store) -> Vec<String> {
    let history = store.history().unwrap().into_iter();
    let line = |revision: Revision| {
        let changes = revision.changes.iter();
        let changes = changes.map(|(key, action)| format!("{} {}", key.name, action.as_str()));
        let changes = changes.collect::<Vec<_>>().join(", ");
        format!("{} {}: {changes}", revision.revision, revision.cause)
    };
    history.map(line).collect()
}

#[test]
fn what_was_changed_can_be_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store
        .apply(vec![service("a", ""), service("b", "")])
        .unwrap();
    let (first, address) = (stored(&store), ips(&store, "b"));
    store
        .apply(vec![service("a", ", selector: {x: y}"), service("c", "")])
        .unwrap();
    store.delete(vec![key("b")]).unwrap();
    store
        .apply(vec![service("a", ", selector: {x: y}")])
        .unwrap();

    let dry = store.rollback(1, true).unwrap();
    assert_eq!((dry.revision, store.snapshot().revision), (3, 3));
    let rolled = store.rollback(1, false).unwrap();
    assert_eq!(rolled, Applied { revision: 4, ..dry });
    assert_eq!(stored(&store), first);
    assert_eq!(ips(&store, "b"), address);
    drop(store);

    let store = Store::open(dir.path()).unwrap();
    assert_eq!(
        shown(&store),
        [
            "4 rollback to 1: a configured, b created, c deleted",
            "3 delete: b deleted",
            "2 apply: a configured, c created",
            "1 apply: a created, b created",
        ]
    );
    store.rollback(0, false).unwrap();
    assert!(store.snapshot().is_empty());
    assert_eq!(
        store.rollback(5, false).unwrap().revision,
        5,
        "nothing to do"
    );
    let refused = store.rollback(6, false).unwrap_err().to_string();
    assert!(refused.contains("the store is at 5"), "{refused}");
}

#[test]
fn the_oldest_revisions_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for number in 0..HISTORY_REVISIONS_MAX + 3 {
        let selector = format!(", selector: {{x: v{number}}}");
        store.apply(vec![service("a", &selector)]).unwrap();
    }
    let history = store.history().unwrap();
    assert_eq!(history.len() as u64, HISTORY_REVISIONS_MAX);
    assert_eq!(history.last().unwrap().revision, 4);
    let refused = store.rollback(2, true).unwrap_err().to_string();
    assert!(refused.contains("kept from 3 on"), "{refused}");
    store.rollback(3, false).unwrap();
    let selector = match &*store.snapshot().get(&key("a")).unwrap() {
        Resource::Service(service) => service.spec.selector["x"].clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(selector, "v2");
}

#[test]
fn addresses_find_their_way_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let at = |address: &str| format!(", clusterIP: {address}");
    let both = |a: &str, b: &str| vec![service("a", &at(a)), service("b", &at(b))];
    store.apply(both("240.0.0.8", "240.0.0.9")).unwrap();
    store.apply(both("240.0.0.10", "240.0.0.8")).unwrap();
    store.apply(vec![service("a", &at("240.0.0.9"))]).unwrap();
    store.rollback(1, false).unwrap();
    assert_eq!(
        (ips(&store, "a"), ips(&store, "b")),
        (vec!["240.0.0.8".to_owned()], vec!["240.0.0.9".to_owned()])
    );
    store.rollback(3, false).unwrap();
    assert_eq!(ips(&store, "b"), ["240.0.0.8"]);
}

/// Names, and what becomes of them: applied with a selector, or deleted.
fn step() -> impl Strategy<Value = (usize, Option<u8>)> {
    (0..4_usize, prop::option::weighted(0.7, 0..3_u8))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Every revision can be gone back to, from wherever the store is.
    #[test]
    fn going_back_is_exact(
        steps in prop::collection::vec(step(), 1..14),
        back in prop::collection::vec(0..20_u64, 1..5),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut states = vec![stored(&store)];
        for (number, to) in steps {
            let name = ["a", "b", "c", "d"][number];
            match to {
                Some(value) => {
                    let selector = format!(", selector: {{x: v{value}}}");
                    store.apply(vec![service(name, &selector)]).unwrap();
                }
                None => {
                    store.delete(vec![key(name)]).unwrap();
                }
            }
            states.truncate(usize::try_from(store.snapshot().revision).unwrap());
            states.push(stored(&store));
        }
        for revision in back {
            let revision = revision % states.len() as u64;
            store.rollback(revision, false).unwrap();
            prop_assert_eq!(&stored(&store), &states[usize::try_from(revision).unwrap()]);
            states.truncate(usize::try_from(store.snapshot().revision).unwrap());
            states.push(stored(&store));
        }
    }
}
