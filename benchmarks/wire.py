"""Bytes of a round of each method, measured beside what its formula says.

    python -m benchmarks.wire

prints the table of docs/methods.md. Four clients on made-up data run three rounds; what the second
one sent to and got from a client is measured, as Flower serialises it. Evaluation, which nobody
learns from, is left out.
"""

import contextlib
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf

import run
from clients.models.factory import parameters_of
from clients.models.parameter_patterns import chosen
from clients.population.drawing import draw_student
from conf.composing import composed
from conf.schema import EXAMPLES, HERE
from sim.workers.process_setup import assume_task_identity
from stillhouse import wiring

CODE = HERE.parent
SMALL = ("clients.num_clients=4", "clients.training.epochs=1", "partition=iid", "data=blobs",
         "data.source.num_examples=3000", "sim=inline", "probes=none", "rounds=3",
         "tracking.figures_every=0", "evaluate_every=3")  # fmt: skip
SAME = "clients=same student=mlp"
NORMED = "clients=same student=resnet8"
ASKED = 0.8
"""Of the proxy set, where a fifth is kept for discriminators, or for the next round."""


@dataclass(frozen=True)
class Row:
    """A method: formulas in the letters of `measured`, and the words that its run wants."""

    down: str
    up: str
    words: str = SAME
    asked: float = ASKED


MEAN, PART = Row("P", "P"), Row("S", "S")
ANSWERS, TRUSTED = Row("8*N", "4*N*C", ""), Row("8*(N + A)", "4*N*C + 4*N", "")
FED_BACK = Row("16*N + 4*N*C", "4*N*C", "")
ROWS = {
    **dict.fromkeys(("averaging", "fedavg", "fedadam", "fedavg_ft", "ditto", "feddyn"), MEAN),
    "fednova": MEAN,
    "moon": MEAN,
    "scaffold": Row("2*P", "2*P", f"{SAME} clients.training.optimizer.momentum=0"),
    **dict.fromkeys(("fedper", "fedrep", "lg_fedavg"), PART),
    **dict.fromkeys(("fedbn", "silobn"), Row("S", "S", NORMED)),
    "local_only": Row("0", "0", ""),
    **dict.fromkeys(("distillation", "fedet"), ANSWERS),
    **dict.fromkeys(("dlad", "fedaux", "fedgo", "dafkd"), TRUSTED),
    **dict.fromkeys(("dsfl", "cronus"), FED_BACK),
    **dict.fromkeys(("ktpfl", "fedmd"), Row("16*N + 4*N*C", "4*N*C", "", 1.0)),
    "feddf": Row("P + 8*N", "P + 4*N*C", f"{SAME} strategy.distil.steps=1", 0.9),
    "fedensemble": Row("P + 8*N", "P + 4*N*C", SAME, 1.0),
    "fd": Row("4*C*C + 16*C", "4*C*C + 8*C", ""),
    "feddistill_plus": Row("P + 4*C*C + 16*C", "P + 4*C*C + 8*C"),
    "fedgkt": Row("4*n*C", "n*(4*F + 4*C + 8)", "clients=same student=cnn"),
    "dense": Row("0", "P", f"{SAME} rounds=1 strategy.epochs=1 strategy.synthesis.steps=1"),
    "fedproto": Row("4*C*D + C", "4*C*D + C", "clients=same_width"),
}  # fmt: skip
OTHERS = {
    **dict.fromkeys(("dml", "one", "ffl", "okddip", "codistillation", "mutual"), "docs/mutual.md"),
    **dict.fromkeys(
        ("gossip", "dpsgd", "adapt_then_combine", "push_sum", "defkt", "cpfl"), "docs/serverless.md"
    ),
    **dict.fromkeys(("fedmedian", "multikrum"), "as fedavg"),
    "scarlet": "by what is in its cache",
    "selective_fd": "targets are sent of the examples that somebody knows",
    "fedgen": "P and its generator down",
    "fedgen_authors": "P and its generator down",
    "coboosting": "as dense",
    "partial_averaging": "as fedper",
    "heterofl": "by the slices of clients",
    "ickd": "answers, and correlations of channels",
    "noised_counts": "answers, and counts",
}
"""Without a formula of their own, and why."""


def config_of(name: str) -> DictConfig:
    """Compose the config of a method's run."""
    with composed([f"strategy={name}", *SMALL, *ROWS[name].words.split()]) as (config, _):
        if OmegaConf.select(config, "strategy.distil.epochs"):
            config.strategy.distil.epochs = 1
        return config


def measured(name: str) -> tuple[dict[str, int], dict[str, float]]:
    """Run a method; return the bytes of a client's round, and what the letters stand for."""
    config = config_of(name)
    splits = wiring.load_splits(config)
    clients = wiring.populate(config, splits)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        run.federate(config, Path(folder))
        table = pq.read_table(Path(folder) / "clients.parquet").to_pandas()
    table = table[table["round"] == min(2, config.rounds)]
    first = table[table["client"] == 0].iloc[0]
    student = draw_student(clients, "cpu")
    sizes = {key: each.nbytes for key, each in parameters_of(student).items()}
    own = {key for each in config.strategy.get("own") or () for key in chosen(each, student)}
    asked = int(ROWS[name].asked * len(splits.proxy))
    letters = {
        "P": sum(sizes.values()),
        "S": sum(size for key, size in sizes.items() if key not in own),
        "N": asked,
        "A": len(splits.proxy) - asked,
        "C": splits.private.task.num_classes,
        "n": len(clients.partitions[0]),
        "F": 16 * 2 * 2,  # of `features.2` of a CNN on 4 x 4 pixels
        "D": 32,
    }
    return {"down": int(first.request_bytes), "up": int(first.reply_bytes)}, letters


def lines_of(path: Path) -> int:
    """Count the lines of a file that are neither empty nor a comment."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return sum(bool(line) and not line.startswith("#") for line in lines)


def written(name: str) -> tuple[str, str]:
    """Count lines of a method's YAML, and of the Python file that its strategy stands in."""
    places = [HERE, *EXAMPLES]
    (config,) = [path for each in places if (path := each / f"strategy/{name}.yaml").exists()]
    module = config_of(name).strategy["_target_"].rpartition(".")[0]
    files = [each / f"{module.replace('.', '/')}.py" for each in (CODE, *EXAMPLES)]
    code = [f"`{path.name}` {lines_of(path)}" for path in files if path.exists()]
    return str(lines_of(config)), *(code or ["Flower's"])


def line(name: str) -> str:
    """Measure a method, and write its line of the table."""
    row, cells = ROWS[name], [f"`{name}`"]
    sent, letters = measured(name)
    for way in ("down", "up"):
        formula = getattr(row, way)
        cells += [formula.replace("*", " "), f"{expected(formula, letters):,}", f"{sent[way]:,}"]
    return f"| {' | '.join([*cells, *written(name)])} |"


def table() -> str:
    """Measure all, and write the table."""
    head = "| method | down | that is | measured | up | that is | measured | YAML | its file |"
    return "\n".join([head, "|" + 9 * "---|", *map(line, ROWS)])


def expected(formula: str, letters: dict[str, float]) -> int:
    """Reckon a formula of this file."""
    return int(eval(formula, {"__builtins__": {}}, letters))


if __name__ == "__main__":
    assume_task_identity(run_id=1)
    print(table())
