"""Run folders written by hand, and what a report of them says."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from sim.report import drawing
from sim.report.command import main


def line(number: int, student: float, **changes: Any) -> dict[str, Any]:
    """A line of metrics.jsonl as a distillation's."""
    quantiles = {"mean": 0.3, "min": 0.1, "q25": 0.2, "median": 0.3, "q75": 0.4, "max": 0.5}
    return {
        "round": number,
        "student": {"accuracy": student, "loss": 2.0 - student},
        "strategy": {"ensemble_accuracy": student + 0.01, "num_teachers": 3.0},
        "clients": {"accuracy": quantiles},
        "probes": {"output_js": 0.2},
        "bytes": {"request": 1000, "reply": 3000},
        "failures": 0,
        **changes,
    }


def write_run(
    folder: Path,
    seed: int = 0,
    student: float = 0.5,
    lines: list[dict[str, Any]] | None = None,
    over: bool = True,
    config: dict[str, Any] | None = None,
    clients: int = 3,
) -> Path:
    """Write a run folder of three rounds, as a run would leave it."""
    folder.mkdir(parents=True)
    lines = [line(n, student - 0.1 * (3 - n)) for n in (1, 2, 3)] if lines is None else lines
    common = {"seed": seed, "rounds": 3, "sim": {"threads": 1}}
    (folder / "config.yaml").write_text(yaml.safe_dump(common | (config or {})))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    ids = np.arange(clients, dtype=np.int32)
    who = {"architecture": [("linear", "mlp")[k % 2] for k in ids], "failure": [""] * clients}
    rounds = [one["round"] for one in lines]
    table = [
        pa.table(
            {"round": np.full(clients, r, np.int32), "client": ids, **who, "accuracy": ids / 1e4}
        )
        for r in rounds
    ]
    if table:
        pq.write_table(pa.concat_tables(table), folder / "clients.parquet")
    cut = {"client": np.repeat(ids, 2), "label": np.tile([0, 7], clients)}
    counts = np.full(2 * clients, 5)
    pq.write_table(pa.table({**cut, "num_examples": counts}), folder / "partition.parquet")
    if over:
        result = {
            "seed": seed,
            "rounds": 3,
            "student_accuracy": student,
            "ensemble_accuracy": None,
            "clients_accuracy": {"min": 0.1, "mean": 0.3, "max": 0.5},
            "request_bytes": 3000,
            "reply_bytes": 9_000_000,
            "failures": 0,
            "wall_time_s": 75.0,
        }
        (folder / "result.json").write_text(json.dumps(result))
    return folder


class Page(HTMLParser):
    """Collects what a test asks of a page."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.open: list[str] = []
        self.data: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("href", "src", "xlink:href"):
                self.references.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.data.append(data)

    def marks(self, kind: str) -> list[str]:
        return [each for each in self.ids if re.fullmatch(rf"\w+-\d*-?{kind}(-\d+)*", each)]


def report(tmp_path: Path, *folders: Path) -> tuple[Page, str, str]:
    out = tmp_path / "report.html"
    assert main([*map(str, folders), "--out", str(out)]) == 0
    text = out.read_text()
    return Page(text), text, out.with_suffix(".md").read_text()


def told(tmp_path: Path, *folders: Path) -> tuple[str, str]:
    """Page and Markdown without pictures, which are nine tenths of a report's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "svg", lambda figure, prefix, described: described)
        return report(tmp_path, *folders)[1:]


def table_of(markdown: str, head: str) -> list[list[str]]:
    """The rows of the Markdown table whose first row begins so."""
    lines = markdown.splitlines()
    heads = [n for n, one in enumerate(lines) if one.startswith("|---")]
    start = next(n - 1 for n in heads if lines[n - 1].startswith(f"| {head} |"))
    rows = []
    for one in lines[start + 2 :]:
        if not one.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", one)[1:-1]])
    return rows


def sweep(folder: Path, accuracies: dict[int, float], **config: Any) -> Path:
    for seed, accuracy in accuracies.items():
        write_run(folder / f"{seed}", seed, accuracy, config=config)
    return folder
