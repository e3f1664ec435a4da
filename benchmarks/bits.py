"""A table of hashes: the bits of 45 short runs, to be equal before and after a change.

    python -m benchmarks.bits before.json                 # at the old commit
    python -m benchmarks.bits after.json --against before.json

The runs are of seconds each and cover every strategy, both pools, chunks, quantised answers, both
kinds of discriminator, peers, graphs with drops and churn, profiles, corruption, probes and resume.
Bits are those of one kind of CPU: tables of two kinds are not compared.
"""

import argparse
import contextlib
import hashlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHORT = [
    "data.limit=400",
    "data.test_limit=100",
    "clients.num_clients=6",
    "clients.training.epochs=2",
    "clients.group_size=3",
    "rounds=2",
    "checkpoint_every=1",
]
DISTIL = [*SHORT, "strategy.distil.epochs=2"]
MUTUAL = [*SHORT, "strategy.teaching.epochs=2"]
PEERS = [*SHORT, "rounds=4"]
LIKE = ["clients=same", "partition=iid"]
BATCH_NORM = ["student=resnet8", "clients=same", "data.limit=200"]
GOSSIP = [*PEERS, "strategy=gossip", "strategy.distil.epochs=2"]
EXCHANGE = ["clients.num_clients=6", "rounds=2", "data.limit=400", "data.test_limit=100"]

RUNS: dict[str, list[str]] = {
    # one global student
    "dlad": DISTIL,
    "dlad ray": [*DISTIL, "sim=ray", "sim.workers=2"],
    "dlad pixels": [*DISTIL, "strategy/discriminator=pixels"],
    "dlad probability": [*DISTIL, "strategy/scorer=own_probability"],
    "dlad chunks uint8": [
        *DISTIL,
        "strategy.proxy_split.chunks=3",
        "strategy.ensemble.answers=uint8",
    ],
    "dlad chunks float16 ray": [
        *[*DISTIL, "strategy.proxy_split.chunks=2", "strategy.ensemble.answers=float16"],
        *["sim=ray", "sim.workers=2"],
    ],
    "dlad fed back": [*DISTIL, "strategy.feed_back=true"],
    "dlad cohort": [*DISTIL, "strategy.fraction=0.5"],
    "dlad capped": [*DISTIL, "strategy.ensemble.weight_cap=0.3", "strategy.ensemble.temperature=2"],
    "dlad alone": [*DISTIL, "clients.together=false"],
    "dlad features": [*DISTIL, "probes=with_features"],
    "dlad unwatched": [*DISTIL, "probes=none"],
    "dlad resumed": [*DISTIL, "resumed"],
    "dlad batch norm": [*DISTIL, *BATCH_NORM],
    "distillation": [*DISTIL, "strategy=distillation"],
    "distillation logits": [*DISTIL, "strategy=distillation", "strategy/combiner=mean_of_logits"],
    "distillation entropy": [*DISTIL, "strategy/scorer=entropy", "strategy/loss=reverse_kl"],
    "corruption": [*DISTIL, "experiment=byzantine", "clients.num_clients=6", "rounds=2"],
    "profile": [*DISTIL, "clients/profile=lognormal"],
    "dirichlet": [*DISTIL, "partition=dirichlet", "partition.dirichlet_concentration=0.3"],
    # parameters
    "averaging": [*SHORT, *LIKE, "strategy=averaging"],
    "averaging ray": [*SHORT, *LIKE, "strategy=averaging", "sim=ray", "sim.workers=2"],
    "averaging batch norm": [*SHORT, *LIKE, *BATCH_NORM, "strategy=averaging"],
    "fedavg": [*SHORT, *LIKE, "strategy=fedavg"],
    "fedadam": [*SHORT, *LIKE, "strategy=fedadam"],
    "fedmedian": [*SHORT, *LIKE, "strategy=fedmedian"],
    "multikrum": [*SHORT, *LIKE, "strategy=multikrum"],
    # mutual learning
    **{name: [*MUTUAL, f"strategy={name}"] for name in ("ffl", "dml", "one", "okddip")},
    "codistillation": [*MUTUAL, "strategy=codistillation"],
    "dml of clients": [
        *[*MUTUAL, "strategy=dml", "strategy.teaching.update=sequential", "strategy.peers=clients"]
    ],
    "fml": [*EXCHANGE, "experiment=fml", "clients.messenger.epochs=1"],
    "fedkd": [*EXCHANGE, "experiment=fedkd", "clients.messenger.epochs=1"],
    # without a server
    "gossip": [*GOSSIP, "topology=ring"],
    "gossip flaky": [*GOSSIP, "topology=epidemic", "availability=flaky"],
    "gossip flaky ray": [
        *[*GOSSIP, "topology=epidemic", "availability=flaky", "sim=ray", "sim.workers=2"]
    ],
    "dpsgd": [*PEERS, *LIKE, "strategy=dpsgd", "topology=ring"],
    "dpsgd churn": [*PEERS, *LIKE, "strategy=dpsgd", "topology=torus", "availability=churn"],
    "adapt then combine": [*PEERS, *LIKE, "strategy=adapt_then_combine", "topology=ring"],
    "push sum": [*PEERS, *LIKE, "strategy=push_sum", "topology=one_peer_exponential"],
    "defkt": [
        *PEERS,
        *LIKE,
        "strategy=defkt",
        "topology=random_matchings",
        "strategy.how.epochs=1",
    ],
    "cpfl": [
        *[*PEERS, *LIKE, "strategy=cpfl", "topology=clusters", "topology.graph.bridges=false"],
        *["topology.require_connected=false", "strategy.first_rounds=3"],
        "strategy.second.distil.epochs=2",
    ],
    "proxyfl": [*EXCHANGE, "experiment=proxyfl", "clients.messenger.epochs=1"],
}


def hashes_of(words: list[str], folder: Path) -> dict[str, str]:
    """Run a federation, quietly; return the hashes of what it leaves."""
    from hydra import compose, initialize_config_dir
    from safetensors.numpy import load_file, save

    import run

    root = Path(run.__file__).parent
    plain = [word for word in words if word != "resumed"]
    pool = [] if any(word.startswith("sim=") for word in plain) else ["sim=inline"]
    with initialize_config_dir(str(root / "conf"), version_base="1.3"):
        config = compose("config", overrides=[*plain, *pool])
    folder.mkdir()
    with contextlib.redirect_stdout(io.StringIO()):
        if "resumed" in words:
            half = config.copy()
            half.rounds = config.rounds // 2
            run.federate(half, folder)
        result = run.federate(config, folder, resume="resumed" in words)
    hashes = {what: result[f"{what}_sha256"] for what in ("student", "metrics", "clients")}
    digest = hashlib.sha256()  # what is left beside the student, without what its header says
    for path in sorted((folder / "peers").glob("*.safetensors")):
        digest.update(path.name.encode() + save(load_file(path)))
    return hashes | {"peers": digest.hexdigest()}


def table(names: list[str]) -> dict[str, Any]:
    """Return the hashes of these runs, with what they depend on beside config and seed."""
    from sim.tracking.run_folder import versions

    rows: dict[str, Any] = {}
    for name in names:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows[name] = hashes_of(RUNS[name], Path(folder) / "run")
            except Exception as error:  # of one run; the others are still worth knowing
                rows[name] = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
        short = {what: str(value)[:12] for what, value in rows[name].items()}
        print(f"{time.perf_counter() - began:6.1f} s  {name}: {short}", flush=True)
    return {"versions": versions(), "runs": rows}


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Say which runs differ, and in what."""
    told = []
    for name, now in after["runs"].items():
        then = before["runs"].get(name, {})
        if unlike := [what for what in {**then, **now} if then.get(what) != now.get(what)]:
            told.append(f"{name}: {', '.join(unlike)}" if then else f"{name}: new")
    return told


def main() -> int:
    """Write the table of now; compare it with another."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("file", type=Path, help="where to write the table")
    words.add_argument("--against", type=Path, help="a table of before")
    words.add_argument("--only", default="", help="runs whose name contains this")
    given = words.parse_args()
    before = json.loads(given.against.read_text()) if given.against else None
    after = table([name for name in RUNS if given.only in name])
    given.file.write_text(json.dumps(after, indent=1) + "\n")
    if before is None:
        return 0
    if before["versions"] != after["versions"]:
        print(f"not to be compared: {before['versions']}, now {after['versions']}")
        return 2
    told = differences(before, after)
    print(f"{len(after['runs']) - len(told)} of {len(after['runs'])} runs have the same bits")
    print(*told, sep="\n")
    return int(bool(told))


if __name__ == "__main__":
    sys.exit(main())
