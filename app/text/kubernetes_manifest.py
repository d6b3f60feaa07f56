"""Kubernetes objects that run kvdeck between pods: an indexed Job, its headless Service, and the run's settings."""

from __future__ import annotations

from typing import Any

from kvdeck.engine.launchers import ADDRESS_VARIABLE, PORT, SECRET_VARIABLE, TOKEN_VARIABLE, WORLD_VARIABLE
from kvdeck.sessions.host.documents import dump_yaml

NAME = "kvdeck"
_SETTINGS = "/etc/kvdeck"
_SESSIONS = "/var/lib/kvdeck"
_WITHOUT_TORCH = """echo "torch ; sys_platform == 'never'\""""
"""NIXL asks for torch, 3 GB, and never imports it."""
_HEAD = f"""\
# {{ranks}} pods, one on each node: rank 0 measures and prints the report, the others serve.
#
#   kubectl create secret generic {NAME} --from-literal=secret="$(openssl rand -hex 32)"
#   kubectl apply -f this-file.yaml
#   kubectl logs -f job/{NAME} --all-containers --prefix
#   kubectl delete -f this-file.yaml && kubectl delete secret {NAME}
#
# image: any with kvdeck in it starts faster, and needs no network.
# RDMA: give the pods the fabric, by `hostNetwork: true` or your device plugin's resource under `limits`.
# The session is lost with rank 0's pod: mount a volume at {_SESSIONS} to keep it.
"""


def kubernetes_manifest(run_yaml: str, ranks: int) -> str:
    """Return the objects as YAML documents.

    Args:
        run_yaml: The run's settings, which every pod reads.
        ranks: Number of pods.
    """
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata()}
    shown = "data:\n  run.yaml: |\n" + "".join(f"    {line}\n" for line in run_yaml.splitlines())
    objects = "".join(f"---\n{dump_yaml(one)}" for one in (_service(), _job(ranks)))
    return f"{_HEAD.format(ranks=ranks)}---\n{dump_yaml(settings)}{shown}{objects}"


def _service() -> dict[str, Any]:
    """Return the Service that gives each pod a name; rank 0's must be known before it is ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"app": NAME},
            "ports": [{"name": "rendezvous", "port": PORT}],
        },
    }


def _job(ranks: int) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(),
        "spec": {
            "completionMode": "Indexed",
            "completions": ranks,
            "parallelism": ranks,
            "backoffLimit": 0,
            "template": {
                "metadata": {"labels": {"app": NAME}},
                "spec": {
                    "subdomain": NAME,
                    "restartPolicy": "Never",
                    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [_apart()]}},
                    "containers": [_container(ranks)],
                    "volumes": [
                        {"name": "settings", "configMap": {"name": NAME}},
                        {"name": "shm", "emptyDir": {"medium": "Memory"}},
                        {"name": "sessions", "emptyDir": {}},
                    ],
                },
            },
        },
    }


def _container(ranks: int) -> dict[str, Any]:
    command = (
        f"{_WITHOUT_TORCH} > /tmp/overrides && exec uvx --quiet --overrides /tmp/overrides "
        f"kvdeck run {_SETTINGS}/run.yaml --launcher k8s"
    )
    return {
        "name": NAME,
        "image": "ghcr.io/astral-sh/uv:python3.12-bookworm-slim",
        "command": ["sh", "-c", command],
        "env": [
            {"name": WORLD_VARIABLE, "value": str(ranks)},
            {"name": ADDRESS_VARIABLE, "value": f"{NAME}-0.{NAME}:{PORT}"},
            {"name": SECRET_VARIABLE, "valueFrom": {"secretKeyRef": {"name": NAME, "key": "secret"}}},
            # A pod that is started again has the same index: the Job's own id tells its runs apart.
            {"name": TOKEN_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['controller-uid']"}}},
            {"name": "KVDECK_HOME", "value": _SESSIONS},
        ],
        "securityContext": {"capabilities": {"add": ["IPC_LOCK"]}},
        "volumeMounts": [
            {"name": "settings", "mountPath": _SETTINGS},
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "sessions", "mountPath": _SESSIONS},
        ],
    }


def _apart() -> dict[str, Any]:
    """Return the rule that no two pods share a node, where bytes would take no interface."""
    return {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": NAME}}}


def _metadata() -> dict[str, Any]:
    return {"name": NAME, "labels": {"app": NAME}}
