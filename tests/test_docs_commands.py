"""Every command of README, docs/, examples/ and the comments of YAML composes as it stands."""

import re
import shlex
from collections.abc import Iterator

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep

from conf.ranges import check_ranges
from conf.schema import check_keys, check_targets
from tests.composing import composed
from tests.places import ROOT

PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.stem != "configuration"),
    *sorted((ROOT / "conf").rglob("*.yaml")),
    *(p for p in sorted((ROOT / "examples").rglob("*")) if p.suffix in (".md", ".py", ".yaml")),
]
YOURS = re.compile(r"~/|\bmy_|\bWORDS\b|=F\b|\bmine\b")
"""In what only a reader can run: with rules, or a run, of his own. Rules of pages are written and
run by `test_docs_points`, `test_examples` and `test_tasks`."""


def commands() -> Iterator[tuple[str, str]]:
    """Find all commands, each with its page; lines that go on are one."""
    for page in PAGES:
        text = re.sub(r"\\\n[ #]*", " ", page.read_text())
        for found in re.findall(r"python run\.py( [^\n`]*)", text):
            if not (YOURS.search(found) or found.split()[0] in ("report", "conformance", "...")):
                yield str(page.relative_to(ROOT)), found


def words_of(command: str) -> list[str]:
    """Take off comments, flags, which Hydra has, and what stands for a path of the reader's."""
    words = [word for word in shlex.split(command, comments=True) if not word.endswith("...")]
    for number, word in [*enumerate(words)][::-1]:
        if word == "--config-dir":  # of an example: these are found without it
            assert words[number + 1].startswith("examples/")
            del words[number : number + 2]
    return [word for word in words if not word.startswith("-")]


def each_of(words: list[str]) -> Iterator[list[str]]:
    """Go through the values of a sweep, of all options together."""
    parsed = OverridesParser.create().parse_overrides(words)
    values = [
        [f"{each.get_key_element()}={value}" for value in each.value().list]
        if isinstance(each.value(), ChoiceSweep)
        else [str(each.input_line)]
        for each in parsed
    ]
    for number in range(max(map(len, values), default=1)):
        yield [several[min(number, len(several) - 1)] for several in values]


COMMANDS = {
    " ".join(words): (page, words) for page, found in commands() for words in [words_of(found)]
}


def test_how_many_commands_there_are() -> None:
    assert len(COMMANDS) > 100
    pages = {page for page, _ in COMMANDS.values()}
    assert pages >= {"docs/commands.md", "docs/mutual.md", "docs/training.md"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_composes(command: str) -> None:
    for words in each_of(COMMANDS[command][1]):
        config = composed(*words)
        check_keys(config)
        check_ranges(config)
        check_targets(config)
