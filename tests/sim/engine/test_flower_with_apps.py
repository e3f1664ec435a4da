"""Flower's strategies with ClientApps of their own: a liar for Bulyan, trees for XGBoost's."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Bulyan, FedXgbBagging, FedXgbCyclic

from tests.federations import open_pool, run_foreign


def of_clients(answer: Callable[[int, Message], tuple[ArrayRecord, int]]) -> ClientApp:
    """Make an app of what client k answers, and on how many examples."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays, examples = answer(int(context.node_config["partition-id"]), message)
        metrics = MetricRecord({"num-examples": examples})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 1, "loss": 0.0})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def test_bulyan_takes_the_mean_of_those_near_the_median_of_the_selected() -> None:
    """One liar of seven: five are selected, 0 to 4; of these the three nearest to 2."""
    said = (1.0, 2.0, 4.0, 8.0, 100.0, 0.0, 3.0)
    with open_pool("inline", of_clients(lambda k, _: (ArrayRecord([np.full(2, said[k])]), 1))) as p:
        kept = Bulyan(num_malicious_nodes=1, fraction_evaluate=0.0)
        run = run_foreign(p, kept, ArrayRecord([np.zeros(2)]), 7)
    assert run.parameters["0"].tolist() == [2.0, 2.0]


def tree(client: int) -> dict[str, Any]:
    return {"id": 0, "split": client}


def forest(*clients: int) -> bytes:
    """Write a model as XGBoost does, one tree of each client, as far as Flower looks at it."""
    model = {
        "gbtree_model_param": {"num_trees": str(len(clients)), "num_parallel_tree": "1"},
        "iteration_indptr": [*range(len(clients) + 1)],
        "trees": [tree(k) for k in clients],
        "tree_info": [0] * len(clients),
    }
    return json.dumps({"learner": {"gradient_booster": {"model": model}}}).encode()


def as_arrays(model: bytes) -> ArrayRecord:
    return ArrayRecord([np.frombuffer(model, np.uint8)])


def grown(arrays: Any) -> list[int]:
    model = json.loads(arrays["0"].tobytes())["learner"]["gradient_booster"]["model"]
    assert int(model["gbtree_model_param"]["num_trees"]) == len(model["trees"])
    return [each["split"] for each in model["trees"]]


@pytest.mark.parametrize("pool_kind", ["inline", "ray"])
def test_bagging_gathers_each_clients_new_tree(pool_kind: str) -> None:
    with open_pool(pool_kind, of_clients(lambda k, _: (as_arrays(forest(k)), 1))) as pool:
        kept = FedXgbBagging(fraction_evaluate=0.0)
        run = run_foreign(pool, kept, as_arrays(b""), 3, rounds=2)
    assert grown(run.parameters) == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("pool_kind", ["inline", "ray"])
def test_cyclic_boosting_grows_one_clients_tree_a_round(pool_kind: str) -> None:
    def boosted(client: int, message: Message) -> tuple[ArrayRecord, int]:
        sent = message.content.array_records["arrays"]["0"].numpy()
        return as_arrays(forest(*(grown({"0": sent}) if sent.size else []), client)), 1

    with open_pool(pool_kind, of_clients(boosted)) as pool:
        kept = FedXgbCyclic(fraction_evaluate=0.0)
        run = run_foreign(pool, kept, as_arrays(b""), 3, rounds=4)
    order = grown(run.parameters)
    assert sorted(order[:3]) == [0, 1, 2]  # in Flower's order of nodes, which is by chance
    assert order[3] == order[0]
