"""Python in docs/: it runs as it stands, and shows what the text says."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from clients.messages.answers import Answers
from run import federate
from tests.composing import composed
from tests.places import ROOT

SHORT = ("sim=inline", "rounds=6", "clients.training.epochs=5", "strategy.distil.epochs=1")


def blocks_of(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / name).read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which somebody ran the second example of docs/reading-drift.md, but shorter."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "runs" / "byzantine").mkdir(parents=True)
    federate(composed("experiment=byzantine", *SHORT), folder / "runs" / "byzantine")
    return folder


def test_the_table_of_clients_is_read_as_the_page_says(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    blocks = blocks_of("clients_table.md")
    assert len(blocks) >= 8
    names: dict[str, Any] = {}
    capsys.readouterr()
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"clients_table.md, block {number}", "exec"), names)
        assert number == 1 or not capsys.readouterr().err
    assert names["change"].idxmin() == 3
    assert (names["when"], names["who"]) == (5, 3)
    assert names["places"].idxmin(axis=1).to_dict()[6] == 3
    assert (names["together"]["classes"] == 3).all()


def test_a_client_that_is_not_trusted_gets_nothing_by_the_rule_of_the_page() -> None:
    (block,) = blocks_of("reading-drift.md")
    names: dict[str, Any] = {}
    exec(compile(block, "reading-drift.md", "exec"), names)
    teachers = Answers(
        client_ids=(1, 3, 8),
        logits=torch.zeros(3, 2, 4),
        mask=torch.ones(3, 2, dtype=torch.bool),
        own_probs=torch.tensor([[0.5, 0.8], [0.9, 0.9], [0.75, 0.5]]),
        num_examples=torch.ones(3),
    )
    scores = names["but_for"](teachers, clients=[3])
    torch.testing.assert_close(scores, torch.tensor([[1.0, 4.0], [0.0, 0.0], [3.0, 1.0]]))


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_links_of_the_docs_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text())
    assert not [link for link in links if not (page.parent / link).is_file()]


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert pictures
    assert max(picture.stat().st_size for picture in pictures) < 60_000
