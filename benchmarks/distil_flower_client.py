"""The ClientApp that Flower's workers run: digest, train, answer the proxy set with logits.

Examples stay in the worker as tensors; a client's network is in its context's state, as Flower has
it for what must survive. Each message says which client its node is, because Flower numbers nodes
at random, and a worker finds what work there is in its environment.
"""

import json
import os
from functools import cache
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.distil_plain import Tensors, answer, digest, train
from benchmarks.distil_work import Federation, Work, federation_of

WORK = "BENCHMARK_WORK"
app = ClientApp()


@cache
def resident() -> tuple[Federation, Tensors]:
    """Load what every client of this worker shares."""
    torch.set_num_threads(1)
    federation = federation_of(Work(**json.loads(os.environ[WORK])))
    return federation, Tensors(federation)


@app.train()
def learn_and_answer(message: Message, context: Context) -> Message:
    """Digest the soft labels that came, if any did, train, and answer."""
    federation, data = resident()
    content: Any = message.content
    client, server_round = content["config"]["client"], content["config"]["server-round"]
    network = federation.network(client)
    state: Any = context.state
    if "model" in state:
        network.load_state_dict(state["model"].to_torch_state_dict())
    if "targets" in content:
        targets = content["targets"].to_torch_state_dict()["targets"]
        digest(network, data, targets, server_round, client)
    train(network, data, server_round, client)
    state["model"] = ArrayRecord(network.state_dict())
    logits = ArrayRecord({"logits": answer(network, data.proxy)})
    return Message(RecordDict({"logits": logits}), reply_to=message)
