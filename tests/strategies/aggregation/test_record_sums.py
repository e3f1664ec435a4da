"""Sums of records that a method made up: by hand, in parts as at once; what a cohort is sent."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict

from clients.messages.accumulator import Reducer, fold_replies, part_message
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import node_id_of
from strategies.aggregation.record_sums import RecordSums
from strategies.cohorts import to_cohort

SAID = ([1.0, 2.0], [3.0, 6.0], [2.0, 1.0])


def contents() -> list[RecordDict]:
    named = (
        {"a": np.array(said, np.float32), "n": np.array([k > 0])} for k, said in enumerate(SAID)
    )
    return [RecordDict({"sent": write_arrays(n), "other": write_arrays(n)}) for n in named]


def test_sums_and_means_by_hand() -> None:
    total = RecordSums("sent")
    for content in contents():
        total.add(content)
    assert total.clients == 3
    assert total.sums["sent"]["a"].tolist() == [6.0, 9.0]
    assert total.sums["sent"]["n"].tolist() == [2.0]  # how many said so
    assert total.mean("sent")["a"].tolist() == [2.0, 3.0]
    assert set(total.sums) == {"sent"}
    assert total.sums["sent"]["a"].dtype == np.float64


def test_parts_and_replies_come_to_the_same_and_errors_are_passed_over() -> None:
    requests = [Message(RecordDict(), node_id_of(k), "train") for k in range(4)]
    replies = [Message(c, reply_to=r) for c, r in zip(contents(), requests, strict=False)]
    replies.append(Message(Error(0, "gone"), reply_to=requests[3]))
    reducer = Reducer(lambda: RecordSums("sent"))
    parts = [reducer.fold([r.content for r in replies[:2]]), reducer.fold([replies[2].content])]
    for came, number in ((replies, 3), ([part_message(p, requests[0]) for p in parts], 2)):
        total = RecordSums("sent")
        assert fold_replies(total, came) == number
        assert total.clients == 3
        assert total.sums["sent"]["a"].tolist() == [6.0, 9.0]
    assert fold_replies(RecordSums("sent"), replies[3:]) == 0
    assert read_arrays(reducer.merge(parts)["sent"])["a"].tolist() == [6.0, 9.0]  # type: ignore[arg-type]


@pytest.mark.parametrize("odd", [{"a": np.ones(1)}, {"a": np.ones(2)}, {"n": np.ones(1)}])
def test_arrays_unlike_the_first_are_not_broadcast(odd: Any) -> None:
    total = RecordSums("sent")
    total.add(contents()[0])
    with pytest.raises(ValueError, match=r"'sent': \{.*\}, expected \{'a': \(2,\), 'n': \(1,\)\}"):
        total.add(RecordDict({"sent": write_arrays(odd)}))
    assert total.clients == 1
    with pytest.raises(ValueError, match="a record named 'clients'"):
        RecordSums("clients")


def test_a_cohort_gets_one_content_and_another_in_another_round() -> None:
    grid: Any = SimpleNamespace(get_node_ids=lambda: range(1, 101))
    content = RecordDict()

    def nodes(**changed: Any) -> list[int]:
        whom = {"fraction": 0.1, "seed": 0, "server_round": 1} | changed
        messages = to_cohort(grid, "train.mine", content, **whom)
        assert all(m.content is content for m in messages)
        assert {m.metadata.message_type for m in messages} == {"train.mine"}
        return [m.metadata.dst_node_id for m in messages]

    assert len(nodes()) == 10
    assert nodes() == nodes() == sorted(nodes())
    assert len({tuple(nodes()), tuple(nodes(seed=1)), tuple(nodes(server_round=2))}) == 3
    assert nodes(fraction=1.0) == [*range(1, 101)]
