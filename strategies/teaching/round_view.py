"""What a distillation round shows to whoever watches."""

from collections.abc import Callable, Sequence

from flwr.app import Message
from flwr.serverapp import Grid
from torch import Tensor, nn

from clients.handlers.feature_probes import EVALUATE_FEATURES, feature_request, read_features
from clients.messages.requests import node_id_of
from clients.messages.round_views import Features, RoundView
from clients.training.evaluation import predict, predict_with_features
from strategies.aggregation.ensemble import Ensemble
from strategies.teaching.answer_chunks import on_probes
from strategies.teaching.proxy_split import Ids, ProxySplit

Report = Callable[[RoundView], None]


def unwatched(view: RoundView) -> None:
    """Take no notice of a round: a strategy that is given this makes no view."""


def answers_of(student: nn.Module | None, split: ProxySplit, report: Report) -> Tensor | None:
    """Let the student answer the probe examples: logits [P, C], or None if nobody watches."""
    if student is None or report is unwatched:
        return None
    return predict(student, split.proxy, split.probe_ids)


def show(
    report: Report,
    server_round: int,
    split: ProxySplit,
    ensembles: list[Ensemble | None],
    losses: list[float],
    before: Tensor | None,
    student: nn.Module | None,
    grid: Grid | None,
) -> None:
    """Make the view of a round and hand it over.

    Args:
        report: Receives it; `unwatched` = there is nothing to do.
        server_round: 1..R.
        split: Of the proxy set.
        ensembles: One per chunk, None where nobody answered.
        losses: The student's, by epoch.
        before: What the student answered before its lesson.
        student: As it is after the lesson; None = there is none.
        grid: Where clients can be asked for their features; None = nowhere.
    """
    if report is unwatched:
        return
    proxy, ids = split.proxy, split.probe_ids

    def features(client_ids: Sequence[int]) -> Features:
        assert grid is not None, "else it is not handed over"
        assert student is not None, "nor without a student"
        clients = _features(grid, client_ids, ids)
        return Features(predict_with_features(student, proxy, ids)[1], clients)

    teachers, weights, targets = on_probes(split, ensembles)
    report(
        RoundView(
            server_round=server_round,
            proxy_ids=tuple(ids.tolist()),
            teachers=teachers,
            weights=weights,
            targets=targets,
            losses=losses,
            student_before=before,
            student_after=answers_of(student, split, report),
            features=None if grid is None or student is None else features,
        )
    )


def _features(grid: Grid, client_ids: Sequence[int], ids: Ids) -> dict[int, Tensor]:
    content = feature_request(ids)
    messages = [
        Message(content, dst_node_id=node_id_of(k), message_type=EVALUATE_FEATURES.kind)
        for k in client_ids
    ]
    return read_features(grid.send_and_receive(messages), len(ids))
