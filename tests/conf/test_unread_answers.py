"""A discriminator that nobody looks at is told, once, before anybody trains."""

import pytest

from conf.unread_answers import tell_unread
from tests.commands import run_py
from tests.composing import composed

UNIFORM = ("strategy=distillation", "strategy/discriminator=energy")
MINE = "{_target_: tests.conf.test_unread_answers.looking, _partial_: true}"


def looking(view: object) -> dict[str, float]:
    return {}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (UNIFORM, True),
        (("strategy=distillation", "strategy/discriminator=features"), True),
        (("strategy/scorer=uniform",), True),  # of dlad
        ((*UNIFORM, "strategy/scorer=entropy", "strategy.ensemble.fallback_below=0"), True),
        ((*UNIFORM, "strategy/scorer=entropy"), False),  # but where nobody knows an example
        ((*UNIFORM, "strategy/scorer=own_odds"), False),
        ((*UNIFORM, f"strategy.scorer={MINE}"), False),
        ((*UNIFORM, f"+probes.mine={MINE}"), False),
        ((*UNIFORM, f"+strategy.selection={MINE}"), False),
        ((*UNIFORM, "+strategy.loss.anchors=[own_probs]"), False),
        (("strategy=distillation",), False),
        (("strategy=gossip",), False),
        (("strategy=gossip", "strategy/scorer=uniform"), True),
        (("strategy=fedavg",), False),
    ],
)
def test_only_what_nobody_looks_at_is_told(
    words: tuple[str, ...], told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_unread(composed(*words))
    assert bool(capsys.readouterr().err) is told


def test_both_keys_are_named_before_round_one() -> None:
    words = ("clients.num_clients=2", "partition=iid", "clients=same", "sim=inline")
    [line] = run_py("check", *UNIFORM, *words).stderr.splitlines()
    assert line == (
        "note: strategy.discriminator=energy is asked of every client, and sent, and "
        "strategy.scorer=uniform does not look at it: expected strategy/discriminator=none, or a "
        "scorer that does, such as strategy/scorer=own_probability"
    )
