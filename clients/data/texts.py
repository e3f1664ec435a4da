"""Texts as tokens: data sets of words, for classification."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt

from clients.data.dataset import Dataset
from clients.data.public_file_formats import data_root, missing
from clients.data.splits import hold_out
from clients.data.task import classification

SHAKESPEARE_ORIGIN = (
    "tiny Shakespeare (A. Karpathy's char-rnn; plays of W. Shakespeare, in the public domain)"
)
UNKNOWN, FIRST = 1, 2
"""Tokens of words that are too rare, and of the most frequent one; 0 is behind a text's end."""


def shakespeare(
    root: str | None = None,
    num_speakers: Annotated[int, ">= 2"] = 10,
    length: Annotated[int, ">= 1"] = 32,
    num_tokens: Annotated[int, ">= 3"] = 2000,
    test_share: float = 0.2,
    seed: int = 0,
) -> tuple[Dataset, Dataset]:
    """Who speaks? Passages of the characters of tiny Shakespeare who say most.

    What a character says in all is cut into passages of `length` words and marks; the last, shorter
    one is left out.

    Args:
        root: folder with `tinyshakespeare/input.txt`; None: $STILLHOUSE_DATA.
        num_speakers: C, how many characters, at least 2; ties go by name.
        length: T, words and marks of a passage, at least 1.
        num_tokens: V, at least 3: padding, any rare word, and the V - 2 most frequent words.
        test_share: share of the passages held out, in (0, 1).
        seed: of the shuffle that cuts test from train.

    Returns:
        Train and test set; inputs [N, T] int32 tokens in 1..V - 1, numbered by how frequent words
        are in both.

    Raises:
        FileNotFoundError: the file is missing, or no root is given.
        ValueError: a number is out of range, or there are fewer speakers with a passage.
    """
    for name, value, least in (
        ("num_speakers", num_speakers, 2), ("length", length, 1), ("num_tokens", num_tokens, 3),
    ):  # fmt: skip
        if value < least:
            raise ValueError(f"{name}={value}, expected at least {least}")
    path = data_root(root) / "tinyshakespeare" / "input.txt"
    if not path.is_file():
        raise FileNotFoundError(missing(path, SHAKESPEARE_ORIGIN))
    said = _said(path)
    speakers = sorted(said, key=lambda name: (-len(said[name]), name))[:num_speakers]
    passages = [
        (label, said[speaker][start : start + length])
        for label, speaker in enumerate(speakers)
        for start in range(0, len(said[speaker]) - length + 1, length)
    ]
    if len(found := {label for label, _ in passages}) < num_speakers:
        raise ValueError(
            f"{path}: num_speakers={num_speakers}, found {len(found)} who say {length} words"
        )
    labels = np.array([label for label, _ in passages], dtype=np.int64)
    tokens = _tokens([words for _, words in passages], num_tokens)
    task = classification((length,), num_speakers, num_tokens)
    rng = np.random.default_rng(seed)
    return hold_out("shakespeare", tokens, labels, task, 1.0, test_share, rng)


def _said(path: Path) -> dict[str, list[str]]:
    """Read who says what in all: blocks of lines, of which the first is a name and a colon."""
    found: dict[str, list[str]] = {}
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        name, _, speech = block.strip().partition("\n")
        if name.endswith(":"):
            words = re.findall(r"[a-z']+|[.,;:!?]", speech.lower())
            found.setdefault(name[:-1], []).extend(words)
    return found


def _tokens(texts: Sequence[Sequence[str]], num_tokens: int) -> npt.NDArray[np.int32]:
    """Number the words of texts of one length by how frequent they are, ties by the alphabet."""
    counts = Counter(word for words in texts for word in words)
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[: num_tokens - FIRST]
    numbers = {word: place for place, word in enumerate(frequent, start=FIRST)}
    return np.array([[numbers.get(word, UNKNOWN) for word in words] for words in texts], np.int32)
