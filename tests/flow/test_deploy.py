"""What `deploy/` holds, read by the tools that will read it: Helm, the parser of compose files, nginx."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from brickless.hub.arguments import parser
from brickless.linux.process import Completed, run

ROOT = Path(__file__).parents[2]
CHART = str(ROOT / "deploy" / "helm" / "brickless-hub")
COMPOSE = ROOT / "deploy" / "compose"
VARIABLE = re.compile(r"BRICKLESS_HUB_[A-Z_]+")


def tool(name: str, *arguments: str, check: bool = True) -> Completed:
    argv = [str(ROOT / ".cache" / "bin" / name), *arguments]
    return run(argv, purpose=name, timeout_s=120, check=check)


def known() -> set[str]:
    """The environment variables that the hub reads."""
    return {f"BRICKLESS_HUB_{action.dest.upper()}" for action in parser({})._actions}


@pytest.mark.needs("helm")
def test_the_chart_passes_helms_own_linter() -> None:
    done = tool("helm", "lint", "--strict", CHART)
    assert b"1 chart(s) linted, 0 chart(s) failed" in done.stdout


@pytest.mark.needs("helm")
@pytest.mark.parametrize("values", [[], ["ingress.enabled=true", "replicas=1", "tracesUrl=http://c:4318/v1/traces"]])
def test_the_chart_renders_and_sets_only_what_the_hub_reads(values: list[str]) -> None:
    options = [argument for value in values for argument in ("--set", value)]
    text = tool("helm", "template", "x", CHART, "--kube-version", "1.30.0", *options).stdout.decode()
    kinds = re.findall(r"^kind: (\w+)$", text, re.M)
    expected = {"Deployment", "Service", "ServiceAccount", "Ingress" if values else "PodDisruptionBudget"}
    assert set(kinds) == expected
    found = set(VARIABLE.findall(text))
    assert found
    assert found <= known()


@pytest.mark.needs("helm")
@pytest.mark.parametrize(
    "value", ["replicas=0", "publicUrl=hub.example.com", "objectsUrl=/objects", "defaultPlan=GOLD", "replica=3"]
)
def test_the_chart_refuses_values_that_cannot_work(value: str) -> None:
    done = tool("helm", "lint", CHART, "--set", value, check=False)
    assert done.returncode != 0
    assert value.partition("=")[0].encode() in done.stdout


@pytest.mark.needs("compose")
def test_the_compose_file_is_what_the_specification_says(tmp_path: Path) -> None:
    lines = [line.partition("=") for line in (COMPOSE / "env.example").read_text().split()]
    values = {name: value for name, _, value in lines}

    def filled(found: re.Match[str]) -> str:
        name, default = found[1], found[2]
        assert default.startswith(":-") or name in values, f"env.example does not say {name}"
        return values.get(name) or default.removeprefix(":-") if default.startswith(":-") else "secret"

    # The parser's command reads no variables of its own: they are filled in as `docker compose` does it from .env.
    text = re.sub(r"\$\{(\w+)(:[-?][^}]*)\}", filled, (COMPOSE / "compose.yaml").read_text())
    (tmp_path / "compose.yaml").write_text(text)
    project = json.loads(tool("compose", "-format", "json", str(tmp_path / "compose.yaml")).stdout)
    assert set(project["services"]) == {"keys", "hub-1", "hub-2", "front", "database", "bucket"}
    for name in ("hub-1", "hub-2", "keys"):
        variables = {key for key in project["services"][name]["environment"] if VARIABLE.match(key)}
        assert variables
        assert variables <= known(), name


@pytest.mark.needs("compose")
def test_the_compose_file_starts_nothing_without_secrets() -> None:
    done = tool("compose", str(COMPOSE / "compose.yaml"), check=False)
    assert done.returncode != 0
    assert b"set it in .env" in done.stderr + done.stdout


@pytest.mark.needs("nginx")
def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    text = (COMPOSE / "nginx.conf").read_text()
    # The names exist inside compose's network only.
    (tmp_path / "nginx.conf").write_text(text.replace("hub-1:", "127.0.0.1:").replace("hub-2:", "127.0.0.2:"))
    argv = ["nginx", "-t", "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path), "-g", f"pid {tmp_path}/pid;"]
    done = run(argv, purpose="nginx", timeout_s=60, check=False)
    assert b"test is successful" in done.stderr, done.stderr


def test_the_image_installs_what_is_locked_and_uses_what_is_there() -> None:
    text = (ROOT / "deploy" / "hub" / "Containerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M):
        for source in line.split():
            assert (ROOT / source).exists(), source
    assert "--require-hashes -r requirements/hub.txt" in text
    assert set(VARIABLE.findall(text)) <= known()
    locked = (ROOT / "requirements" / "hub.txt").read_text()
    assert "obstore==" in locked
    assert "pytest" not in locked
