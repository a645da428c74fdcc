//! The store on a real disk: what it says was applied is there, whatever happens to its process.

mod history;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::*;
use crate::resource::{Kind, Source, parse};

fn service(name: &str, more: &str) -> Resource {
    let content = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{ports: [{{port: 80}}]{more}}}\n"
    );
    let source = Source {
        name: "-".to_owned(),
        content: content.into_bytes(),
    };
    let mut parsed = parse(&[source], "default");
    assert_eq!(parsed.problems, []);
    parsed.resources.remove(0).1
}

fn key(name: &str) -> Key {
    Key::new(Kind::Service, "shop", name)
}

fn ips(store: &Store, name: &str) -> Vec<String> {
    let Some(resource) = store.snapshot().get(&key(name)) else {
        panic!("no {name}");
    };
    let Resource::Service(service) = resource.as_ref() else {
        panic!("{name} is no Service");
    };
    service
        .spec
        .cluster_ips
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn applies_atomically_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let applied = store
        .apply(vec![service("a", ""), service("b", "")])
        .unwrap();
    assert_eq!(applied.revision, 1);
    assert_eq!(applied.changes[1], (key("b"), Action::Created));

    let again = store
        .apply(vec![service("a", ""), service("b", "")])
        .unwrap();
    assert_eq!(again.revision, 1);
    assert_eq!(again.changes[0].1, Action::Unchanged);

    let dry = store.apply_dry(vec![service("c", "")]).unwrap();
    assert_eq!((dry.revision, dry.changes[0].1), (1, Action::Created));
    assert_eq!(store.snapshot().len(), 2);

    let mut labelled = service("a", "");
    labelled
        .metadata_mut()
        .labels
        .insert("x".into(), "y".into());
    store.apply(vec![labelled]).unwrap();
    let generation = |name| {
        store
            .snapshot()
            .get(&key(name))
            .unwrap()
            .metadata()
            .generation
    };
    assert_eq!(generation("a"), 1);
    store
        .apply(vec![service("a", ", selector: {app: a}")])
        .unwrap();
    assert_eq!(generation("a"), 2);

    let deleted = store.delete(vec![key("a"), key("z")]).unwrap();
    assert_eq!(deleted.revision, 4);
    assert_eq!(
        deleted.changes,
        [(key("a"), Action::Deleted), (key("z"), Action::Unchanged)]
    );
    let names: Vec<String> = store
        .snapshot()
        .in_namespace(Kind::Service, "shop")
        .map(|resource| resource.metadata().name.clone())
        .collect();
    assert_eq!(names, ["b"]);
}

#[test]
fn keeps_virtual_ips() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store
        .apply(vec![
            service("a", ""),
            service("fixed", ", clusterIP: 10.0.0.7"),
        ])
        .unwrap();
    let first = ips(&store, "a");
    assert_eq!(first.len(), 2);
    assert_eq!(ips(&store, "fixed"), ["10.0.0.7"]);
    store
        .apply(vec![service("a", ", selector: {x: y}")])
        .unwrap();
    assert_eq!(ips(&store, "a"), first);

    let wanted = format!(", clusterIP: {}", first[0]);
    let error = store
        .apply(vec![service("c", ""), service("b", &wanted)])
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is the address of Service/shop/a"),
        "{error}"
    );
    assert_eq!(store.snapshot().get(&key("c")), None);

    store
        .apply(vec![service("headless", ", clusterIP: None")])
        .unwrap();
    assert_eq!(ips(&store, "headless"), Vec::<String>::new());
    let address = first[0].parse().unwrap();
    assert_eq!(store.snapshot().service_at(address), Some(&key("a")));
    store.delete(vec![key("a")]).unwrap();
    assert_eq!(store.snapshot().service_at(address), None);
}

#[test]
fn tells_watchers_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut changes = store.watch();
    store
        .apply(vec![service("a", ""), service("b", "")])
        .unwrap();
    store.delete(vec![key("a")]).unwrap();
    let mut seen = Vec::new();
    while let Ok(change) = changes.try_recv() {
        seen.push((change.revision, change.key.name, change.after.is_some()));
    }
    let expected = [(1, "a", true), (1, "b", true), (2, "a", false)];
    assert_eq!(
        seen,
        expected.map(|(revision, name, there)| (revision, name.to_owned(), there))
    );
}

#[test]
fn keeps_records_and_counts_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.put_record("tokens", "b", b"1").unwrap();
    store.put_record("tokens", "a", b"2").unwrap();
    store.put_record("token", "z", b"3").unwrap();
    store.put_record("tokens2", "z", b"3").unwrap();
    let names: Vec<String> = store
        .list_records("tokens")
        .unwrap()
        .into_iter()
        .map(|r| r.0)
        .collect();
    assert_eq!(names, ["a", "b"]);
    store
        .update_record::<Error>("tokens", "a", |value| {
            assert_eq!(value.as_deref(), Some(&b"2"[..]));
            Ok(None)
        })
        .unwrap();
    assert_eq!(store.get_record("tokens", "a").unwrap(), None);
    assert!(store.delete_record("tokens", "b").unwrap());
    assert!(!store.delete_record("tokens", "b").unwrap());
}

#[test]
fn is_its_owners_alone_and_open_once() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let store = Store::open(&dir).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("store.redb")), 0o600);
    let second = Store::open(&dir).err().unwrap().to_string();
    assert!(second.contains("in use by another weft serve"), "{second}");
    drop(store);
    Store::open(&dir).unwrap();
}

#[test]
fn says_when_the_directory_cannot_be_made() {
    let error = Store::open(Path::new("/proc/weft"))
        .err()
        .unwrap()
        .to_string();
    assert!(error.starts_with("/proc/weft: "), "{error}");
}

const CHILD_DIR: &str = "WEFT_TEST_STORE_CHILD_DIR";

/// Not a test of its own: the process that [`survives_being_killed`] kills.
#[test]
fn writes_until_killed() {
    let Ok(dir) = std::env::var(CHILD_DIR) else {
        return;
    };
    let store = Store::open(Path::new(&dir)).unwrap();
    let first = store.snapshot().len();
    for number in first..first + 10_000 {
        let name = format!("s{number}");
        store
            .apply(vec![
                service(&name, ""),
                service("last", &format!(", selector: {{n: {name}}}")),
            ])
            .unwrap();
        store.put_record("names", &name, name.as_bytes()).unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {name}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn survives_being_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::tests::writes_until_killed",
                "--nocapture",
            ])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = acknowledged.len() + 1 + round % 7;
        let mut line = lines.next();
        while let Some(Ok(text)) = line {
            acknowledged.extend(text.split("acknowledged ").nth(1).map(str::to_owned));
            if acknowledged.len() == enough {
                child.kill().unwrap();
            }
            line = lines.next();
        }
        child.wait().unwrap();
        assert!(acknowledged.len() >= enough, "the child ended by itself");

        let store = Store::open(dir.path()).unwrap();
        let snapshot = store.snapshot();
        for name in &acknowledged {
            assert!(
                snapshot.get(&key(name)).is_some(),
                "round {round}: {name} is lost"
            );
            assert!(
                store.get_record("names", name).unwrap().is_some(),
                "round {round}: record {name}"
            );
        }
        let Some(Resource::Service(last)) = snapshot.get(&key("last")).as_deref().cloned() else {
            panic!("round {round}: no last");
        };
        let newest = &last.spec.selector["n"];
        assert!(
            snapshot.get(&key(newest)).is_some(),
            "round {round}: half an apply"
        );
        assert_eq!(snapshot.revision, snapshot.len() as u64 - 1);
    }
}

const FULL_DIR: &str = "WEFT_TEST_STORE_FULL_DIR";

/// Not a test of its own: the process whose file may not grow, of [`says_when_the_disk_is_full`].
#[test]
fn writes_until_refused() {
    let Ok(dir) = std::env::var(FULL_DIR) else {
        return;
    };
    let store = Store::open(Path::new(&dir)).unwrap();
    let annotated = |number: usize| {
        let mut resource = service(&format!("s{number}"), "");
        let annotations = &mut resource.metadata_mut().annotations;
        annotations.insert("filler".into(), "x".repeat(100 << 10));
        resource
    };
    let mut changes = store.watch();
    let refused = (0..10_000).find_map(|number| store.apply(vec![annotated(number)]).err());
    let refused = refused.expect("the file grew beyond its limit").to_string();
    let snapshot = store.snapshot();
    assert_eq!(snapshot.revision, snapshot.len() as u64);
    let told = std::iter::from_fn(|| changes.try_recv().ok()).count();
    assert_eq!(told, snapshot.len());
    // What is there can still be read, and removed.
    assert_eq!(store.list_records("tokens").unwrap(), []);
    assert_eq!(store.snapshot().revision, snapshot.revision);
    println!("acknowledged {} {refused}", snapshot.len());
}

#[test]
fn says_when_the_disk_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    // A limit on the file's size, in blocks of 512 or 1024 bytes, stands for the full disk.
    let script = "trap '' XFSZ; ulimit -f 6000; exec \"$0\" --exact store::tests::writes_until_refused --nocapture";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(exe)
        .env(FULL_DIR, dir.path())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}{error}");
    let line = out.split("acknowledged ").nth(1).unwrap();
    let (count, reason) = line.split_once(' ').unwrap();
    assert!(reason.contains("store.redb: "), "{reason}");
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.snapshot().len().to_string(), count);
}
