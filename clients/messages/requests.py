"""Requests for answers, from server to clients, and the names of records in all messages.

Plain parameter training uses Flower's own convention (records "arrays", "config", "metrics"), so
Flower's strategies understand our clients and ours theirs; the action "predictions"
(`train.predictions`, `evaluate.predictions`) is the exchange of answers.
"""

import zlib
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.field import Field, Fields
from clients.messages.own_probs import own_probs
from clients.messages.shipped_fields import LOGITS, logits_of
from clients.models.discriminator import DiscriminatorRecipe
from clients.models.factory import Parameters

ARRAYS, CONFIG, METRICS, NOTES = "arrays", "config", "metrics", "notes"
INPUTS, STUDENT, TARGETS, PREDICTIONS = "inputs", "student", "targets", "predictions"
"""Names of records."""

IDS = ("proxy-ids", "negative-ids", "digest-ids")
NODE_ID_BASE = 1_000_000_000
"""Flower's node id is this plus the client id: stable from run to run, legible in its logs, and
clear of the ids 0 and 1 that Flower keeps for itself."""


def node_id_of(client_id: int) -> int:
    """Return Flower's node id of a client."""
    return NODE_ID_BASE + client_id


def client_id_of(node_id: int) -> int:
    """Return the client that a Flower node id stands for."""
    return node_id - NODE_ID_BASE


@dataclass(frozen=True, eq=False)
class PredictionRequest:
    """Server to client: train if it is a training round, then answer these inputs.

    Attributes:
        server_round: 1..R.
        num_inputs: N, how many answers are expected.
        num_classes: C of every answer.
        sites: S, how many rows of answers each input has.
        proxy_ids: Which proxy examples to answer [N]; None = the test examples of the round, as
            `clients.data.Splits.tested`, which N has to say.
        negative_ids: Proxy examples to tell own data from [M]; None = fit no discriminator now.
        recipe: How to fit the discriminator; None = fit none.
        student: The student's parameters, fed back; None = nothing is.
        targets: Soft labels of the round before, fed back [D, C], or [D, S, C] where each input has
            several sites, of which those that are NaN have none; None = nothing is.
        digest_epochs: Epochs of imitating these before local training, or the student where it is
            fed back to a client of another architecture.
        digest_ids: On which proxy examples that is [D]; None = those to be answered.
        temperature: T of that imitation.
        answers: How they are to be sent, one of `clients.messages.codecs.ANSWERS`; or what the
            codec is called that is on the field `logits`, which is then known.
        send_parameters: Whether the client is to send its network's parameters along.
        fields: Names of what is asked for beside logits, and a discriminator's probabilities.
    """

    server_round: int
    num_inputs: int
    num_classes: int
    proxy_ids: npt.NDArray[np.int64] | None = None
    negative_ids: npt.NDArray[np.int64] | None = None
    recipe: DiscriminatorRecipe | None = None
    student: Parameters | None = None
    targets: npt.NDArray[np.float32] | None = None
    digest_epochs: int = 0
    digest_ids: npt.NDArray[np.int64] | None = None
    temperature: float = 1.0
    answers: str = "float32"
    send_parameters: bool = False
    fields: tuple[str, ...] = ()
    sites: int = 1

    def asks(self, known: Fields) -> dict[str, Field]:
        """Return all that is asked for, `logits` first.

        Args:
            known: Fields beside those two, by name.

        Returns:
            Fields by name.

        Raises:
            ValueError: One is not known; names it.
        """
        own = {} if self.recipe is None else {"own_probs": own_probs(self.recipe)}
        for name in self.fields:
            if name not in known:
                raise ValueError(f"field '{name}': asked for, and known are {', '.join(known)}")
        asked = {name: known[name] for name in self.fields}
        return {LOGITS: logits_of(known, self.answers), **own, **asked}


def crc32_of(ids: npt.NDArray[np.int64] | None) -> int:
    """Fingerprint the ids of a request; 0 for the round's test examples."""
    return 0 if ids is None else zlib.crc32(np.ascontiguousarray(ids, dtype=np.int64).tobytes())


def write_request(request: PredictionRequest) -> RecordDict:
    """Turn a request into the content of a message."""
    config = ConfigRecord(
        {
            "server-round": request.server_round,
            "num-inputs": request.num_inputs,
            "num-classes": request.num_classes,
            "digest-epochs": request.digest_epochs,
            "temperature": request.temperature,
            "answers": request.answers,
        }
    )
    if request.sites != 1:
        config["sites"] = request.sites
    if request.send_parameters:
        config["send-parameters"] = True
    if request.fields:
        config["fields"] = [*request.fields]
    if request.recipe is not None:
        config["discriminator-inputs"] = request.recipe.inputs
        config["discriminator-balanced"] = request.recipe.balanced
        config["discriminator-l2"] = request.recipe.l2
        if request.recipe.epsilon is not None:
            config["discriminator-epsilon"] = request.recipe.epsilon
            config["discriminator-delta"] = request.recipe.delta
    content = RecordDict({CONFIG: config})
    ids = {name: getattr(request, name.replace("-", "_")) for name in IDS}
    if given := {name: value for name, value in ids.items() if value is not None}:
        content[INPUTS] = write_arrays(cast(Parameters, given))
    if request.student is not None:
        content[STUDENT] = write_arrays(request.student)
    if request.targets is not None:
        content[TARGETS] = write_arrays({TARGETS: request.targets})
    return content


def read_request(content: RecordDict) -> PredictionRequest:
    """Read what `write_request` wrote."""
    config = cast(dict[str, Any], content.config_records[CONFIG])
    inputs = read_arrays(content.array_records.get(INPUTS, ArrayRecord()))
    inputs = {name: ids.copy() for name, ids in inputs.items()}  # tensors are indexed by them
    student, targets = (content.array_records.get(name) for name in (STUDENT, TARGETS))
    recipe = None
    if "discriminator-inputs" in config:
        recipe = DiscriminatorRecipe(
            config["discriminator-inputs"],
            config["discriminator-balanced"],
            config["discriminator-l2"],
            config.get("discriminator-epsilon"),
            config.get("discriminator-delta", DiscriminatorRecipe.delta),
        )
    return PredictionRequest(
        server_round=config["server-round"],
        num_inputs=config["num-inputs"],
        num_classes=config["num-classes"],
        proxy_ids=inputs.get("proxy-ids"),
        negative_ids=inputs.get("negative-ids"),
        recipe=recipe,
        student=None if student is None else read_arrays(student),
        targets=None if targets is None else read_arrays(targets)[TARGETS],
        digest_epochs=config["digest-epochs"],
        digest_ids=inputs.get("digest-ids"),
        temperature=config["temperature"],
        answers=config["answers"],
        send_parameters=config.get("send-parameters", False),
        fields=tuple(config.get("fields", ())),
        sites=config.get("sites", 1),
    )
