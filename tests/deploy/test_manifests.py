"""The files in deploy/ are what they should be: valid, not root, read-only, without secrets. No container is built."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").rglob("*.yaml"))
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SECRET = re.compile(r"password|secret|token|api_?key|credential", re.IGNORECASE)


def _resources() -> list[Any]:
    return [one for path in MANIFESTS for one in yaml.safe_load_all(path.read_text())]


def _pod(resource: Any) -> Any:
    """The pod of a resource that has one."""
    spec = resource.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    return spec.get("template", {}).get("spec")


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_manifests_follow_the_schemas_of_kubernetes(version: str) -> None:
    for resource in _resources():
        kubernetes_validate.validate(resource, version, strict=True)


def test_every_pod_is_unprivileged_and_read_only() -> None:
    pods = [pod for pod in map(_pod, _resources()) if pod]
    assert len(pods) == 3
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == _uid()
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} <= container["resources"].keys()
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_what_manifests_name_is_there() -> None:
    resources = _resources()
    there = {(one["kind"], one["metadata"]["name"]) for one in resources}
    for pod in filter(None, map(_pod, resources)):
        assert ("ServiceAccount", pod["serviceAccountName"]) in there
        for volume in pod["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there
    assert not any(kind == "Secret" for kind, _ in there)


def test_every_service_of_compose_is_unprivileged_and_read_only() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["user"].split(":")[0]) > 0, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert "healthcheck" in service or name == "register"


def test_what_compose_names_is_there() -> None:
    services = COMPOSE["services"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= services.keys()
        assert set(service.get("networks", ())) <= COMPOSE["networks"].keys()
        assert set(service.get("secrets", ())) <= COMPOSE["secrets"].keys()
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
        for other, wanted in service.get("depends_on", {}).items():
            assert wanted["condition"] != "service_healthy" or "healthcheck" in services[other]


def test_no_secret_is_written_down() -> None:
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            assert not SECRET.search(name) or value.startswith("/run/secrets/"), name
    for config in (one["data"] for one in _resources() if one["kind"] == "ConfigMap"):
        assert not any(SECRET.search(name) for name in config)
    for _, words in _instructions():
        assert not SECRET.search(words)


def _instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile: the name and the rest."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def _uid() -> int:
    [user] = [words for name, words in _instructions() if name == "USER"]
    return int(user.split(":")[0])


def test_the_image_runs_as_nobody_in_particular() -> None:
    instructions = _instructions()
    names = [name for name, _ in instructions]
    assert names.count("FROM") == 2
    assert "ADD" not in names
    assert _uid() > 0
    last = len(names) - 1 - names[::-1].index("FROM")
    assert "USER" in names[last:]
    assert names.index("USER") < names.index("ENTRYPOINT")


def test_the_image_copies_what_is_there_and_nothing_else_reaches_its_build() -> None:
    copied = [
        path
        for name, words in _instructions()
        if name == "COPY" and "--from" not in words
        for path in shlex.split(words)[:-1]
    ]
    assert copied
    assert all((ROOT / path).exists() for path in copied)
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied)
