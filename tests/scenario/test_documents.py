"""Documents that are wrong: each is refused with file, document, field and reason, and nothing of its
apply takes effect; and documents that are right, through the CLI."""

import json
import re

import pytest
import yaml

from mesh import backend, endpoint_slice, http_route, service

GOOD = yaml.safe_dump(service("good"))


def wrong(kind_document, path, value):
    """The document with one thing changed."""
    document = json.loads(json.dumps(kind_document))
    place = document
    *way, last = path
    for step in way:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return yaml.safe_dump(document)


ROUTE = http_route(
    "r", "good", [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": [backend("good", 1)]}]
)
SLICE = endpoint_slice("s", "good", ["127.0.0.1"], 80)
RULE = ("spec", "rules", 0)

# What is wrong, the document, the field path said, a word of the reason.
WRONG = [
    ("unknown field", wrong(service("a"), ("spec", "sellector"), {"app": "a"}), r"spec\.sellector", "unknown"),
    ("unknown field deep", wrong(ROUTE, (*RULE, "matches", 0, "path", "vlaue"), "/"), r"spec\.rules\[0\]\.matches\[0\]\.path\.vlaue", "unknown"),
    ("unknown top field", wrong(service("a"), ("specs",), {}), "specs", "unknown"),
    ("text for a number", wrong(service("a"), ("spec", "ports", 0, "port"), "eighty"), r"spec\.ports\[0\]\.port", "number|integer"),
    ("list for a map", wrong(service("a"), ("spec", "selector"), ["app"]), r"spec\.selector", "map|object"),
    ("map for a list", wrong(service("a"), ("spec", "ports"), {"port": 80}), r"spec\.ports", "list|array|sequence"),
    ("port 70000", wrong(service("a"), ("spec", "ports", 0, "port"), 70000), r"spec\.ports\[0\]\.port", "65535"),
    ("port 0", wrong(service("a"), ("spec", "ports", 0, "port"), 0), r"spec\.ports\[0\]\.port", "1"),
    ("port missing", wrong(service("a"), ("spec", "ports", 0, "port"), ...), r"spec\.ports\[0\]\.port", "missing|required"),
    ("targetPort 70000", wrong(service("a"), ("spec", "ports", 0, "targetPort"), 70000), r"spec\.ports\[0\]\.targetPort", "65535"),
    ("two ports of one number", wrong(service("a"), ("spec", "ports"), [{"name": "x", "port": 80}, {"name": "y", "port": 80}]), r"spec\.ports\[1\]", "80|twice|duplicate"),
    ("bad service name", wrong(service("a"), ("metadata", "name"), "No_Good"), r"metadata\.name", "."),
    ("name missing", wrong(service("a"), ("metadata", "name"), ...), r"metadata\.name", "missing|required"),
    ("bad clusterIP", wrong(service("a"), ("spec", "clusterIP"), "1.2.3"), r"spec\.clusterIP", "address|IP"),
    ("weight -1", wrong(ROUTE, (*RULE, "backendRefs", 0, "weight"), -1), r"spec\.rules\[0\]\.backendRefs\[0\]\.weight", "."),
    ("weight above the limit", wrong(ROUTE, (*RULE, "backendRefs", 0, "weight"), 1_000_001), r"spec\.rules\[0\]\.backendRefs\[0\]\.weight", "1000000|1,000,000"),
    ("bad regular expression", wrong(ROUTE, (*RULE, "matches", 0, "path"), {"type": "RegularExpression", "value": "(["}), r"spec\.rules\[0\]\.matches\[0\]\.path", "."),
    ("path without a slash", wrong(ROUTE, (*RULE, "matches", 0, "path", "value"), "a"), r"spec\.rules\[0\]\.matches\[0\]\.path\.value", "/"),
    ("unknown match type", wrong(ROUTE, (*RULE, "matches", 0, "path", "type"), "Glob"), r"spec\.rules\[0\]\.matches\[0\]\.path\.type", "Exact|PathPrefix"),
    ("unknown method", wrong(ROUTE, (*RULE, "matches", 0, "method"), "FETCH"), r"spec\.rules\[0\]\.matches\[0\]\.method", "."),
    ("bad header name", wrong(ROUTE, (*RULE, "matches", 0, "headers"), [{"name": "a b", "value": "c"}]), r"spec\.rules\[0\]\.matches\[0\]\.headers\[0\]\.name", "."),
    ("endpoint that is no address", wrong(SLICE, ("endpoints", 0, "addresses"), ["nowhere"]), r"endpoints\[0\]\.addresses\[0\]", "address|IP"),
    ("endpoint of the other family", wrong(SLICE, ("endpoints", 0, "addresses"), ["::1"]), r"endpoints\[0\]\.addresses\[0\]|addressType", "IPv4"),
    ("kind missing", wrong(service("a"), ("kind",), ...), "kind", "missing|required"),
    ("unknown version of a kind of ours", wrong(ROUTE, ("apiVersion",), "gateway.networking.k8s.io/v9"), "apiVersion", "v1"),
    ("not YAML", "a: [b\nc: }", "", "."),
    ("a bare text", "hello", "", "."),
    ("a tab for indentation", "apiVersion: v1\nkind: Service\nmetadata:\n\tname: a\n", "", "tab|indent|."),
    ("one key twice", "apiVersion: v1\nkind: Service\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec: {ports: [{port: 80}]}\n", "kind|", "duplicate|twice"),
    ("deep nesting", "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec: " + "{a: " * 5000 + "1" + "}" * 5000, "", "deep|depth|nest|limit"),
    ("anchors that multiply", "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi")), "", "alias|anchor|limit|budget"),
    ("an anchor", "apiVersion: v1\nkind: Service\nmetadata: &m {name: a, namespace: shop}\nspec: {ports: [{port: 80}], selector: *m}\n", "", "alias|anchor|unknown|."),
]  # fmt: skip


@pytest.fixture(scope="module")
def control(shared_mesh):
    return shared_mesh


def names(control):
    listed = control.weft("get", "services", "-A", "-o", "json").json()
    items = listed["items"] if isinstance(listed, dict) else listed
    return {item["metadata"]["name"] for item in items}


@pytest.mark.parametrize(("document", "field", "reason"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_wrong_document_is_refused_and_nothing_is_applied(control, tmp_path, document, field, reason):
    file = tmp_path / "wrong.yaml"
    before = names(control)
    # "not YAML" and the like may spoil the whole file; the good document stands first either way.
    file.write_text(f"{wrong(service('never'), ('spec', 'type'), 'ClusterIP')}---\n{document}\n")
    for verb in ("apply", "validate"):
        outcome = control.weft(verb, "-f", file, check=False)
        said = outcome.stderr + (outcome.stdout if verb == "validate" else "")
        assert outcome.code == 1, (verb, outcome)
        assert "wrong.yaml" in said, said
        assert re.search(r"\b(document|doc)?\s*#?\s*2\b", said), f"no document number: {said}"
        assert re.search(field, said), said
        assert re.search(reason, said, re.IGNORECASE), said
        assert "panicked" not in said
    assert names(control) == before


def test_all_problems_are_told_at_once(control, tmp_path):
    file = tmp_path / "several.yaml"
    first = wrong(service("a"), ("spec", "ports", 0, "port"), 70000)
    second = wrong(service("b"), ("spec", "sellector"), {})
    file.write_text(f"{first}---\n{second}")
    outcome = control.weft("apply", "-f", file, check=False)
    assert outcome.code == 1
    assert "spec.ports[0].port" in outcome.stderr and "spec.sellector" in outcome.stderr


def test_two_documents_of_one_name_in_one_apply(control, tmp_path):
    file = tmp_path / "twice.yaml"
    file.write_text(f"{yaml.safe_dump(service('twin'))}---\n{yaml.safe_dump(service('twin', port=81))}")
    outcome = control.weft("apply", "-f", file, check=False)
    assert outcome.code == 1
    assert "twin" in outcome.stderr and "twice.yaml" in outcome.stderr and "2" in outcome.stderr
    assert "twin" not in names(control)


def test_a_route_to_a_port_that_is_not_there(control):
    control.apply(service("good"), wait=False)
    route = http_route("nowhere", "good", [{"backendRefs": [backend("good", 1, port=4444)]}])
    outcome = control.apply(route, wait=False, check=False)
    if outcome.code == 0:
        # Gateway API: it is accepted, and its status says that the reference does not resolve.
        status = control.weft("get", "httproute", "nowhere", "-n", "shop", "-o", "json").json()
        conditions = [c for parent in status["status"]["parents"] for c in parent["conditions"]]
        resolved = [c for c in conditions if c["type"] == "ResolvedRefs"]
        assert resolved and resolved[0]["status"] == "False", conditions
        assert "4444" in resolved[0]["message"]
    else:
        assert re.search(r"spec\.rules\[0\]\.backendRefs\[0\]\.port", outcome.stderr) and "4444" in outcome.stderr


def test_ten_mebibytes_of_yaml(control, tmp_path):
    file = tmp_path / "big.yaml"
    line = "# " + "x" * 1021 + "\n"
    file.write_text(GOOD.replace("good", "bigone") + line * (10 * 1024) + "spec2: 1\n")
    outcome = control.weft("apply", "-f", file, check=False)
    assert outcome.code == 1 and "big.yaml" in outcome.stderr, outcome.stderr[:500]
    assert "bigone" not in names(control)


def test_a_missing_file(control, tmp_path):
    outcome = control.weft("apply", "-f", tmp_path / "no.yaml", check=False)
    assert outcome.code in (1, 2) and "no.yaml" in outcome.stderr


def test_wrong_usage_is_exit_status_2(control):
    assert control.weft("apply", check=False).code == 2
    assert control.weft("frobnicate", check=False).code == 2


def test_kubernetes_kinds_that_are_not_ours_are_skipped_with_a_notice(control):
    namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"
    deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: shop}\nspec: {replicas: 1}\n"
    outcome = control.apply(namespace, service("beside"), deployment, wait=False)
    assert "Namespace" in outcome.stdout + outcome.stderr and "Deployment" in outcome.stdout + outcome.stderr
    assert "beside" in names(control)


def test_json_is_taken_as_yaml_is(control):
    control.weft("apply", "-f", "-", stdin=json.dumps(service("from-json")))
    assert "from-json" in names(control)


def test_a_directory_is_applied_as_a_whole(control, tmp_path):
    (tmp_path / "1.yaml").write_text(yaml.safe_dump(service("dir-one")))
    (tmp_path / "2.yml").write_text(yaml.safe_dump(service("dir-two")))
    (tmp_path / "notes.txt").write_text("not a document")
    control.weft("apply", "-f", tmp_path)
    assert {"dir-one", "dir-two"} <= names(control)


def test_a_dry_run_changes_nothing(control):
    control.weft("apply", "-f", "-", "--dry-run", stdin=yaml.safe_dump(service("dry")))
    assert "dry" not in names(control)


def test_what_was_applied_can_be_read_described_and_deleted(control):
    control.apply(service("full"), http_route("full-route", "full", [{"backendRefs": [backend("full", 1)]}]), wait=False)
    one = control.weft("get", "service", "full", "-n", "shop", "-o", "json").json()
    assert one["spec"]["ports"][0]["port"] == 80
    assert yaml.safe_load(control.weft("get", "service", "full", "-n", "shop", "-o", "yaml").stdout)["kind"] == "Service"
    assert "full" in control.weft("get", "services", "-n", "shop").stdout
    table = control.weft("get", "httproutes", "-n", "shop").stdout
    assert "full-route" in table and "Accepted" in table.replace("ACCEPTED", "Accepted"), table
    assert "full-route" in control.weft("describe", "httproute", "full-route", "-n", "shop").stdout
    control.weft("delete", "httproute", "full-route", "-n", "shop")
    missing = control.weft("get", "httproute", "full-route", "-n", "shop", check=False)
    assert missing.code == 1 and "full-route" in missing.stderr


def test_virtual_ips_are_allotted_and_stay(control):
    control.apply(service("with-ip"), wait=False)

    def ips():
        return (
            control.weft("get", "service", "with-ip", "-n", "shop", "-o", "json").json()["spec"].get("clusterIPs")
            or (control.weft("get", "service", "with-ip", "-n", "shop", "-o", "json").json()["status"]["virtualIPs"])
        )

    first = ips()
    assert any(ip.startswith("24") for ip in first) and any(ip.startswith("fd77:6566:7400:") for ip in first), first
    control.apply(service("with-ip", port=81), wait=False)
    assert ips() == first
    control.control_plane.kill()
    control.control_plane.restart()
    assert ips() == first


def test_check_says_that_all_is_well(control):
    outcome = control.weft("check")
    assert outcome.code == 0


def test_completions_are_printed(control):
    assert "weft" in control.weft("completions", "bash").stdout
