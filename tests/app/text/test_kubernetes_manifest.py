"""The Kubernetes manifest: its parts refer to each other, and its pods meet as it says."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from kvdeck.app.cli.main import kvdeck
from kvdeck.engine.launchers import placement_of
from kvdeck.engine.meeting import MeetingOptions, meeting_of
from kvdeck.engine.spec import spec_from_yaml


def printed(*words: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(kvdeck, ["run", "--manifest", "kubernetes", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return list(yaml.safe_load_all(done.stdout))


def test_its_parts_refer_to_each_other():
    settings, service, job = printed("--ranks", "3")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert volumes.keys() == mounts.keys()
    assert volumes["settings"]["configMap"]["name"] == settings["metadata"]["name"]
    assert f"{mounts['settings']}/{next(iter(settings['data']))} --launcher k8s" in container["command"][-1]
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 3


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize(("kind", "words"), [("Job", ["image", "*=another"]), ("Service", ["selector", "app=another"])])
def test_kubectl_knows_every_field_of_it(kind: str, words: list[str], tmp_path: Path):
    """Without a cluster, `kubectl set --local` reads an object by its own types, and drops what they don't have."""
    path = tmp_path / "kvdeck.yaml"
    (ours,) = [one for one in printed("--ranks", "3") if one["kind"] == kind]
    path.write_text(yaml.safe_dump(ours))
    done = subprocess.run(["kubectl", "set", words[0], "--local", "-f", str(path), words[1], "-o", "json"],
                          capture_output=True, text=True, check=True, timeout=60)  # fmt: skip
    lost = sorted({place for place, _ in _leaves(ours)} - {place for place, _ in _leaves(json.loads(done.stdout))})
    assert not lost
    changed = {place for place, _ in _leaves(ours) ^ _leaves(json.loads(done.stdout))}
    assert any(place.endswith((".image", ".app")) for place in changed), "it was read"


def _leaves(value: Any, place: str = "") -> set[tuple[str, str]]:
    """The places of all values in an object, with the values as text."""
    if isinstance(value, (dict, list)) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return set().union(*(_leaves(item, f"{place}.{key}") for key, item in items))
    return {(place, str(value))}


def environment_of(container: dict[str, Any], index: int) -> dict[str, str]:
    """What a pod sees: the control plane sets its index, and values from elsewhere are made up here."""
    values = {one["name"]: one.get("value", f"from-{one['name']}") for one in container["env"]}
    return {**values, "JOB_COMPLETION_INDEX": str(index)}


def test_its_pods_meet_at_the_first():
    _, service, job = printed("--ranks", "3")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    meetings = [meeting_of(MeetingOptions(launcher="k8s"), environment_of(container, index)) for index in (0, 1, 2)]
    assert [meeting.rank for meeting in meetings] == [0, 1, 2]
    host = f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert {meeting.address for meeting in meetings} == {(host, service["spec"]["ports"][0]["port"])}
    assert {meeting.token for meeting in meetings} == {"from-KVDECK_RUN_TOKEN"}
    assert placement_of(environment_of(container, 2), "auto").launcher == "k8s"


def test_its_settings_are_the_run_s(tmp_path: Path):
    settings, *_ = printed("--seconds", "2", "--layout", "ls -> fc", "--layers", "4")
    path = tmp_path / "run.yaml"
    path.write_text(settings["data"]["run.yaml"])
    spec = spec_from_yaml(path)
    assert (spec.seconds, spec.layers, len(spec.layouts)) == (2.0, 4, 1)


def test_a_run_that_can_t_be_between_pods_is_refused():
    for words in (["--path", "HostToDisk"], ["--launcher", "k8s"], ["--peer", "h"], ["--ranks", "1"]):
        done = CliRunner().invoke(kvdeck, ["run", "--manifest", "kubernetes", *words])
        assert done.exit_code != 0
        assert done.stdout == ""
