"""One word for each thing, and a shape for each array: defects 13 and 14 of the field's codebases.

CPFL's distillation said that it goes "from n student models into a teacher"; FFL's loss took a
logit matrix as `label`, "1D class number", with T = 3 inside.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from clients.training import losses
from tests.places import ROOT

FOLDERS = ("clients", "strategies", "sim", "conf", "stillhouse", "examples")
FILES = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]

NEVER = {"aggregator", "ctx", "downlink", "fuse", "lambda", "misc", "participant", "participants",
         "party", "parties", "pseudo", "tau", "uplink"}  # fmt: skip
"""No part of a name; each has a word of ours: client, weight, merge, temperature."""

BACKWARDS = re.compile(
    r"students?\b[^.]{0,40}\b(?:in)?to (?:a|the|one) teacher|server model|global epoch"
    r"|open set|pseudo.?labels?",
    re.IGNORECASE,
)

OF_ARRAYS = (
    "clients/training/losses.py",
    "clients/training/objective*.py",
    "clients/mutual/*.py",
    "strategies/aggregation/*.py",
    "sim/analysis/drift/*.py",
)
ARRAY = re.compile(r"\b(?:Tensor|NDArray|Array)\b")


def names_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        for field in ("name", "asname", "arg", "attr", "id"):
            if isinstance(name := getattr(node, field, None), str):
                yield name


def forbidden(source: str) -> set[str]:
    """Return the words in names of a source that have another word here."""
    parts = (re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name) for name in names_in(ast.parse(source)))
    return {word.lower() for words in parts for word in words} & NEVER


def told(source: str) -> list[str]:
    """Return the docstrings of a source."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds))
    return [" ".join(doc.split()) for node in nodes if (doc := ast.get_docstring(node))]


def shapeless(source: str) -> Iterator[str]:
    """Name the public functions that take arrays and tell no shape."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = [*node.args.args, *node.args.kwonlyargs]
            kinds = [ast.unparse(each.annotation) for each in arguments if each.annotation]
            takes = any(ARRAY.search(kind) and "Callable" not in kind for kind in kinds)
            if takes and "[" not in (ast.get_docstring(node) or ""):
                yield node.name


def test_no_name_uses_a_word_that_has_another_here() -> None:
    assert len(FILES) > 350
    found = {str(file): words for file in FILES if (words := forbidden(file.read_text()))}
    assert found == {}
    assert forbidden("def f(tau, self): self.pseudo_targets = CtxBag(UPLINK)") == {
        *("tau", "pseudo", "ctx", "uplink")
    }


def test_teachers_teach_and_students_learn() -> None:
    texts = {(str(file), doc) for file in FILES for doc in told(file.read_text())}
    assert len(texts) > 2500
    assert {text for text in texts if BACKWARDS.search(text[1])} == set()
    theirs = told('"""Distill from n student models into a teacher."""')
    assert BACKWARDS.search(theirs[0])


def test_a_function_of_arrays_tells_a_shape() -> None:
    files = [file for pattern in OF_ARRAYS for file in sorted(ROOT.glob(pattern))]
    assert len(files) > 30
    assert {(str(f), name) for f in files for name in shapeless(f.read_text())} == set()
    theirs = 'def kl_loss(logits: Tensor, label: Tensor): """Label: 1D class number."""'
    assert [*shapeless(theirs)] == ["kl_loss"]


def public_losses() -> dict[str, Any]:
    own = inspect.getmembers(losses, inspect.isfunction)
    own = [each for each in own if each[1].__module__ == losses.__name__]
    return {
        name: loss for name, loss in own if "student_logits" in inspect.signature(loss).parameters
    }


def test_the_losses_of_logits_are_found() -> None:
    assert {*public_losses()} == {"kl", "reverse_kl"}


@pytest.mark.parametrize("name", sorted(public_losses()))
def test_the_temperature_of_a_loss_is_an_argument_that_is_used(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator)
    targets = torch.rand(4, 3, generator=generator).softmax(-1)
    loss, rest = public_losses()[name], {}
    for argument in [*inspect.signature(loss).parameters.values()][2:]:
        if argument.name != "temperature" and argument.default is inspect.Parameter.empty:
            rest[argument.name] = 0.5
    one, two = (loss(logits, targets, temperature=t, **rest) for t in (1.0, 3.0))
    assert not torch.allclose(one, two)


def test_a_class_number_is_no_name_for_soft_labels() -> None:
    """What a loss compares with is `targets`, or `labels` where it is documented as numbers [B]."""
    for name, loss in inspect.getmembers(losses, inspect.isfunction):
        if loss.__module__ == losses.__name__:
            assert "label" not in inspect.signature(loss).parameters, name
