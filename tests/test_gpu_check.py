"""The check of a GPU says what it found, and ends with 1 where that is not right; on the CPU."""

import dataclasses
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_check, gpu_pack
from benchmarks.gpu_report import Goal

MEASURED = ["--device", "cpu", "--parts", "zoo,groups,student"]


@pytest.fixture(autouse=True)
def _less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two networks are enough, and the process keeps its threads."""
    tiny = dataclasses.replace(gpu_check.TINY, networks=("mlp", "lenet5"))
    monkeypatch.setattr(gpu_check, "TINY", tiny)
    monkeypatch.setattr(gpu_check.torch, "set_num_threads", lambda number: None)
    monkeypatch.setattr(gpu_check, "keep_memory", lambda: None)


def ended(monkeypatch: pytest.MonkeyPatch, out: Path, *words: str) -> tuple[int, Any, str]:
    """Run the check; return its exit code and what it wrote."""
    monkeypatch.setattr(sys, "argv", ["gpu_check", str(out), *words])
    with pytest.raises(SystemExit) as exit_:
        gpu_check.main()
    return int(exit_.value.code or 0), json.loads((out / "gpu.json").read_text()), page(out)


def page(out: Path) -> str:
    return (out / "gpu.md").read_text()


def test_what_is_found_is_said_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, found, said = ended(monkeypatch, tmp_path, *MEASURED)
    assert (code, found["passed"]) == (0, True)
    assert "Passed." in said
    zoo, grouped, student = found["parts"]
    assert [row["network"] for row in zoo["rows"]] == ["mlp", "lenet5"]
    assert grouped["rows"][0]["x by 2"] > 0
    assert [row["precision"] for row in student["rows"]] == ["float32 (tf32)", "bfloat16"]
    for part in found["parts"]:
        assert f"**{part['title']}**" in said
        for column in part["rows"][0]:
            assert f" {column} |" in said
    assert found["about"]["commit"][:12] in said
    assert [goal["verdict"] for goal in found["goals"]] == ["not measured"] * 2


def test_a_result_that_is_too_far_ends_it_with_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    distance = gpu_check.distance
    monkeypatch.setattr(gpu_check, "distance", lambda *sets: distance(*sets) + 0.011)
    code, found, said = ended(monkeypatch, tmp_path, "--device", "cpu", "--parts", "zoo")
    assert (code, found["passed"]) == (1, False)
    assert len(found["parts"][0]["faults"]) == 2
    assert "lenet5 is 1.1e-02 apart in float32" in said


def test_a_part_that_breaks_is_a_fault_and_the_next_follows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu_check, "trained", lambda *arguments: 1 / 0)
    parts = ("--device", "cpu", "--parts", "zoo,student")
    code, found, said = ended(monkeypatch, tmp_path, *parts)
    assert code == 1
    assert "ZeroDivisionError" in said
    assert [bool(part["rows"]) for part in found["parts"]] == [False, True]


def test_what_there_is_no_time_for_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, _, said = ended(monkeypatch, tmp_path, *MEASURED, "--minutes", "0")
    assert code == 1
    assert "Distillation: left out: 0 minutes were over" in said


@pytest.mark.parametrize(
    ("found", "verdict"), [(None, "not measured"), (19.9, "not met"), (20.0, "met")]
)
def test_goals(found: float | None, verdict: str) -> None:
    assert Goal("", 20.0, found).verdict == verdict


def test_carried_files_come_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu_pack, "MOST_BYTES", 1000)
    content = os.urandom(2500)
    (tmp_path / "there").write_bytes(content)
    size = gpu_pack.write_archive(tmp_path, "packages", [("a/b.py", tmp_path / "there")])
    parts = sorted(tmp_path.glob("packages.tar.xz.*"))
    assert [part.stat().st_size for part in parts] == [1000, 1000, size - 2000]
    ours = ".".join(platform.python_version_tuple()[:2])
    sha256 = {part.name: gpu_pack.digest(part) for part in parts}
    (tmp_path / "about.json").write_text(json.dumps({"python": ours, "sha256": sha256}))
    (folder,) = gpu_pack.unpack(tmp_path, tmp_path / "place")  # numpy is there
    assert (folder / "a/b.py").read_bytes() == content
    parts[1].write_bytes(b"something else")
    with pytest.raises(SystemExit, match=r"packages\.tar\.xz\.01 is missing or damaged"):
        gpu_pack.unpack(tmp_path, tmp_path / "place")
    (tmp_path / "about.json").write_text(json.dumps({"python": "3.9"}))
    with pytest.raises(SystemExit, match=r"packed for Python 3\.9"):
        gpu_pack.unpack(tmp_path, tmp_path / "place")


def test_only_what_may_be_asked_for_is_carried() -> None:
    there = {f"ray/{name}/__init__.py" for name in ("rllib", "util", "core")} | {"ray/__init__.py"}
    names = {"ray", "ray.core", "ray._raylet"}
    kept = {
        *("ray/util/debug/a.py", "ray/core/raylet", "ray/_raylet.so", "ray/data_folder/a.json"),
        *("ray/_raylet.cpython-311-x86_64-linux-gnu.so", "ray-2.dist-info/METADATA", "six.py"),
    }
    left = {
        *("ray/rllib/__init__.py", "ray/jars/a.jar", "ray/core/tests/a.py", "ray/util/a.pyi"),
        *("ray/_other.abi3.so", "../../bin/ray"),
    }
    assert {path for path in kept | left if gpu_pack.kept(path, names, there)} == kept
