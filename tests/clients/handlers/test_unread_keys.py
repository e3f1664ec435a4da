"""Nothing is sent to be overlooked: what no client reads is a failed reply that names it."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from clients.handlers.base import missing, unread
from clients.handlers.parameters import MESSENGERS, PARAMETERS
from clients.handlers.predictions import TRAIN_PREDICTIONS
from clients.messages.requests import PredictionRequest, write_request
from clients.models.discriminator import DiscriminatorRecipe
from sim.engine.quorum import QuorumLost
from sim.workers.pools import Pool
from tests.federations import ALONE, inline, run_ours, simulated, tiny_clients


class Telling(FedAvg):
    """FedAvg that tells its clients something more, as Flower's guides do."""

    def __init__(self, phase: str, **more: Any) -> None:
        super().__init__(**ALONE)
        self.phase, self.more = phase, more

    def configure_train(self, *words: Any) -> Iterable[Message]:
        return self._told("train", super().configure_train(*words))

    def configure_evaluate(self, *words: Any) -> Iterable[Message]:
        return self._told("evaluate", super().configure_evaluate(*words))

    def _told(self, phase: str, messages: Iterable[Message]) -> Iterable[Message]:
        for message in messages:
            if phase == self.phase:
                for key, value in self.more.items():
                    if isinstance(value, MetricRecord):
                        message.content[key] = value
                    else:
                        message.content.config_records["config"][key] = value
            yield message


@pytest.mark.parametrize(
    ("phase", "more", "said"),
    [
        ("train", {"lr": 0.0}, r"key 'lr' of a 'train' .* understood: server-round, proximal-mu"),
        ("train", {"clipping_norm": 1.0}, r"key 'clipping_norm' of a 'train'"),
        ("evaluate", {"proximal-mu": 1.0}, r"key 'proximal-mu' of a 'evaluate' .*: server-round$"),
        ("train", {"control": MetricRecord({"c": 1.0})}, r"record 'control' of a 'train' .*arrays"),
    ],
)
def test_what_nobody_reads_fails_by_name(
    everyone_pool: Pool, phase: str, more: dict[str, Any], said: str
) -> None:
    reports: list[Any] = []
    with pytest.raises(QuorumLost, match=rf"(?m)only 0 of 1 .* phase {phase}: ValueError: {said}"):
        run_ours(everyone_pool, tiny_clients(1), Telling(phase, **more), report=reports.append)
    assert said.split("'")[1] in reports[0].first_failure()


def test_records_under_names_of_their_own_are_named() -> None:
    clients = tiny_clients(1)
    strategy = FedAvg(arrayrecord_key="weights", **ALONE)
    with pytest.raises(QuorumLost, match=r"record 'weights' .*understood: arrays, config"):
        run_ours(inline(simulated(clients)), clients, strategy)


def test_a_proximal_term_is_not_read_where_a_messenger_learns() -> None:
    content = RecordDict({"config": ConfigRecord({"server-round": 1, "proximal-mu": 0.1})})
    assert unread(PARAMETERS[0], content) is None
    said = unread(MESSENGERS[0], content)
    assert said is not None
    assert said.startswith("key 'proximal-mu'")


def test_all_that_a_predictions_request_can_hold_is_read() -> None:
    recipe = DiscriminatorRecipe("pixels", True, 1.0, epsilon=0.1, delta=1e-5)
    ids = np.arange(3)
    full = PredictionRequest(
        server_round=1, num_inputs=3, num_classes=2, proxy_ids=ids, negative_ids=ids, recipe=recipe,
        student={"w": ids}, digest_ids=ids, digest_epochs=1, temperature=2.0, answers="uint8",
        send_parameters=True, fields=("energy",), sites=4,
    )  # fmt: skip
    content = write_request(full)
    assert unread(TRAIN_PREDICTIONS, content) is None
    assert set(content["config"]) == set(TRAIN_PREDICTIONS.keys)
    content["config"]["lr"] = 0.1  # type: ignore[index]
    assert "'lr'" in str(unread(TRAIN_PREDICTIONS, content))


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_what_a_request_lacks_is_named(everyone_pool: Pool, kind: str) -> None:
    """A strategy of one's own that sends no parameters: it was a KeyError."""

    class Bare(Telling):
        def _told(self, phase: str, messages: Iterable[Message]) -> Iterable[Message]:
            for message in messages:
                if phase == self.phase:
                    del message.content["arrays"]
                yield message

    lacks = f"a '{kind}' request needs the record 'arrays', and this has none"
    with pytest.raises(QuorumLost, match=lacks):
        run_ours(everyone_pool, tiny_clients(1), Bare(kind))


def test_a_key_error_of_something_else_is_left_alone() -> None:
    handler, content = PARAMETERS[0], RecordDict({"arrays": ArrayRecord()})
    for error in (KeyError("arrays"), KeyError("mine"), KeyError()):
        assert missing(handler, content, error) is error
