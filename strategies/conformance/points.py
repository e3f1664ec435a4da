"""Conformance: the points where functions of a user's own go in, and what each is held to."""

from collections.abc import Callable
from typing import Any

from clients.data.proxy_conditions import OFFERED as OF_PROXY_CONDITIONS
from clients.data.proxy_conditions import noisy_inputs
from clients.execution.trainer_calls import OFFERED as OF_TRAINERS
from clients.execution.trainer_calls import PLACES as TRAINER_PLACES
from clients.handlers.function_probes import OFFERED as OF_PROBES
from clients.handlers.function_probes import PLACES as PROBE_PLACES
from clients.handlers.peer_parameters import send_own
from clients.messages.codecs import OF_PARAMETERS, RECEIVED, Precision
from clients.models.confidence import OFFERED as OF_CONFIDENCES
from clients.models.confidence import energy
from clients.models.factory import OFFERED as OF_MODELS
from clients.mutual.rules import dml
from clients.partition import iid
from clients.points import Call, Check, Point, places_of
from clients.population.label_conditions import symmetric_noise
from clients.population.plugin_arguments import CONDITION, PARTITION
from clients.population.profiles import alike
from clients.population.shape_plans import OFFERED as OF_SHAPES
from clients.population.views import OFFERED as OF_VIEWS
from clients.population.views import rotated
from clients.population.widths import first_units, share_of_units
from clients.training.loop import train
from clients.training.losses import kl
from strategies.aggregation.combiners import mean_of_probs
from strategies.aggregation.rule_arguments import OFFERED as OF_RULES
from strategies.aggregation.scorers import uniform
from strategies.conformance import (
    of_answers,
    of_data,
    of_handlers,
    of_losses,
    of_messages,
    of_networks,
    of_objectives,
    of_trainers,
)
from strategies.conformance.checks import needs_no_more
from strategies.teaching.selection import OFFERED as OF_SELECTIONS
from strategies.teaching.student import TAUGHT, VALIDATION


def function(
    kind: str,
    key: str,
    returns: str,
    like: Callable[..., Any] | tuple[str, ...],
    places: int,
    names: tuple[str, ...],
    checks: tuple[Check, ...],
) -> Point:
    """Make the point of one function.

    Args:
        kind: As in `Point`.
        key: As there.
        returns: As in `Call`.
        like: A function that is shipped for it, whose first arguments are called what the point's
            are; or what they are called.
        places: How many it gets by position.
        names: As in `Call`.
        checks: What it is held to, beside that it needs nothing else.

    Returns:
        The point.
    """
    by_position = like if isinstance(like, tuple) else places_of(like, places)
    call = Call(returns, by_position, names)
    return Point(kind, key, (call,), (needs_no_more(places, names), *checks))


ARRAYS = places_of(Precision("float32").encode, 1)
OF_LOSSES = places_of(kl, 3)
"""The last one by name."""

POINTS = (
    Point("data", "data.source", (Call("a train and a test Dataset"),), of_data.DATA),
    function(
        "trainer", "clients.training, strategy.distil", "the mean loss of each epoch", train,
        TRAINER_PLACES, (*OF_TRAINERS, *TAUGHT, VALIDATION), of_trainers.TRAINER,
    ),
    function("view", "clients.view", "inputs of the same shape", rotated, 1, OF_VIEWS,
             of_data.VIEW),
    function(
        "proxy_condition", "data.proxy_condition", "a Dataset of the same task", noisy_inputs, 1,
        OF_PROXY_CONDITIONS, of_data.PROXY_CONDITION,
    ),
    function("profile", "clients.profile", "Profiles of K clients", alike, 2, (), of_data.PROFILE),
    function("condition", "clients.condition", "labels [n], -1 = none, or soft labels [n, C]",
             symmetric_noise, 4, CONDITION, of_data.CONDITIONS),
    function("partition", "partition", "indices of each client", iid, 3, PARTITION,
             of_data.PARTITION),
    function(
        "model", "student, clients.architectures.NAME.model", "a network", (), 0,
        (*OF_MODELS, "tier", "profile"), of_networks.MODEL,
    ),
    Point(
        "shape", "clients.shape",
        (
            Call("a plan: arrays by name; None = it stays", places_of(share_of_units, 3), OF_SHAPES,
                 "choose"),
            Call("the network in that shape", places_of(first_units, 2), (), "apply"),
        ),
        of_networks.SHAPE, made=True,
    ),
    Point(
        "objective", "clients.objective, strategy.loss",
        (
            Call("of each example [B]", ("outputs", "targets", "anchors"), (), "loss"),
            Call("a scalar", ("parameters", "anchors"), (), "penalty"),
            Call("gradients", ("gradients", "parameters", "anchors"), (), "correct"),
        ),
        of_objectives.OBJECTIVE, made=True,
    ),
    Point(
        "loss", "strategy.loss", (Call("of each example [B]", OF_LOSSES[:2], OF_LOSSES[2:]),),
        of_losses.LOSS,
    ),
    function(
        "scorer", "strategy.scorer", "scores [K, N] >= 0", uniform, 1, OF_RULES, of_answers.SCORER
    ),
    function(
        "combiner", "strategy.combiner", "soft labels [N, C]", mean_of_probs, 3,
        ("teachers", *OF_RULES), of_answers.COMBINER,
    ),
    function(
        "confidence", "strategy.discriminator", "[N] in [0, 1]", energy, 2, OF_CONFIDENCES,
        of_messages.CONFIDENCE,
    ),
    Point(
        "field", "strategy.ask.NAME", (Call("[N, ...], or of a client", ("asked",), (), "of"),),
        of_messages.FIELD, made=True,
    ),
    Point(
        "codec",
        "clients.codec, clients.codec_down, strategy.ensemble.answers, strategy.ask.NAME.codec",
        (
            Call("arrays that are sent", ARRAYS, OF_PARAMETERS, "encode"),
            Call("arrays as they were", ARRAYS, (RECEIVED,), "decode"),
        ),
        of_messages.CODEC, made=True,
    ),
    function(
        "selection", "strategy.selection", "positions [M], or a mask [N]", (), 0, OF_SELECTIONS,
        of_answers.SELECTION,
    ),
    function("rule", "strategy.rule", "Terms: a loss of each peer", dml, 4, (), of_losses.RULE),
    function(
        "probe", "probes.NAME.of", "numbers by name", ("network", "inputs", "labels"),
        PROBE_PLACES, OF_PROBES, of_networks.PROBE,
    ),
    Point(
        "handler", "handlers of a strategy",
        (Call("content of the reply", places_of(send_own, 4), (), "each"),),
        of_handlers.HANDLER, made=True,
    ),
)  # fmt: skip
