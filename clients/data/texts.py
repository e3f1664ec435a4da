"""Texts as tokens: data sets of words, for classification."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clients.data.dataset import Dataset
from clients.data.formats import data_root, missing
from clients.data.splits import hold_out
from clients.data.task import classification

SHAKESPEARE_ORIGIN = (
    "tiny Shakespeare (A. Karpathy's char-rnn; plays of W. Shakespeare, in the public domain)"
)
PADDING, UNKNOWN = 0, 1
"""Tokens of places behind a text's end, and of words that are too rare."""


def shakespeare(
    root: str | None = None,
    num_speakers: int = 10,
    length: int = 48,
    num_tokens: int = 2000,
    test_share: float = 0.2,
    seed: int = 0,
) -> tuple[Dataset, Dataset]:
    """Who speaks? Speeches of the characters of tiny Shakespeare who speak most often.

    Args:
        root: folder with `tinyshakespeare/input.txt`; None: $STILLHOUSE_DATA.
        num_speakers: C, how many characters, at least 2; ties go by name.
        length: T, words of a speech that are kept, at least 1.
        num_tokens: V, at least 3: padding, any rare word, and the V - 2 most frequent words.
        test_share: share of the speeches held out, in (0, 1).
        seed: of the shuffle that cuts test from train.

    Returns:
        Train and test set; inputs [N, T] int32 tokens below V, 0 behind a speech's end.

    Raises:
        FileNotFoundError: the file is missing, or no root is given.
        ValueError: a number is out of range, or there are fewer speakers.
    """
    for name, value, least in (
        ("num_speakers", num_speakers, 2), ("length", length, 1), ("num_tokens", num_tokens, 3),
    ):  # fmt: skip
        if value < least:
            raise ValueError(f"{name}={value}, expected at least {least}")
    path = data_root(root) / "tinyshakespeare" / "input.txt"
    if not path.is_file():
        raise FileNotFoundError(missing(path, SHAKESPEARE_ORIGIN))
    speeches = _speeches(path)
    said = Counter(speaker for speaker, _ in speeches)
    speakers = sorted(said, key=lambda name: (-said[name], name))[:num_speakers]
    if len(speakers) < num_speakers:
        raise ValueError(f"{path}: num_speakers={num_speakers}, found {len(speakers)}")
    kept = [(speakers.index(speaker), words) for speaker, words in speeches if speaker in speakers]
    labels = np.array([label for label, _ in kept], dtype=np.int64)
    tokens = _tokens([words for _, words in kept], length, num_tokens)
    task = classification((length,), num_speakers, num_tokens)
    rng = np.random.default_rng(seed)
    return hold_out("shakespeare", tokens, labels, task, 1.0, test_share, rng)


def _speeches(path: Path) -> list[tuple[str, list[str]]]:
    """Read who says what: blocks of lines, of which the first is a name and a colon."""
    found = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        name, _, speech = block.strip().partition("\n")
        words = re.findall(r"[a-z']+|[.,;:!?]", speech.lower())
        if name.endswith(":") and words:
            found.append((name[:-1], words))
    return found


def _tokens(texts: Sequence[Iterable[str]], length: int, num_tokens: int) -> npt.NDArray[np.int32]:
    """Number words by how frequent they are, ties by the alphabet; cut and pad to one length."""
    counts = Counter(word for words in texts for word in words)
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[: num_tokens - 2]
    numbers = {word: place for place, word in enumerate(frequent, start=2)}
    tokens = np.full((len(texts), length), PADDING, dtype=np.int32)
    for row, words in enumerate(texts):
        own = [numbers.get(word, UNKNOWN) for word in words][:length]
        tokens[row, : len(own)] = own
    return tokens
