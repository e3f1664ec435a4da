"""`python run.py` as a user runs it: the same bits everywhere, files left, wrong input named."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from tests.commands import run_py
from tests.federations import SEED
from tests.places import ROOT
from tests.quick_runs import NO_FIGURES, QUICK, federated, hashes, result_of


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    folder = tmp_path_factory.mktemp("reference") / "run"
    words = [*QUICK, "rounds=2", "sim=inline", "tracking.figures_every=20"]
    return result_of(folder, *words), folder


@pytest.mark.slow  # fresh interpreters, and a Ray of its own
@pytest.mark.parametrize(
    ("pool", "hash_seed"),
    [
        (["sim.workers=2"], "2"),  # over Ray
        ([], "3"),  # too little for Ray: in one process
    ],
)
def test_bits_depend_on_config_and_seed_only(
    reference: tuple[dict, Path], pool: list[str], hash_seed: str, tmp_path: Path
) -> None:
    """Tiny federations on one, two and four workers: test_bits.py and test_fault_matrix.py."""
    cores = {"PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "2"}  # of the machine, not sim.threads
    result = result_of(tmp_path / "run", *QUICK, "rounds=2", *pool, **cores)
    assert hashes(result) == hashes(reference[0])


FEW = ["data.limit=200", "data.test_limit=60"]
MUTUAL = [*FEW, "clients.num_clients=5", "clients.training.epochs=1", "strategy.teaching.epochs=1"]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["strategy=ffl", *MUTUAL], marks=pytest.mark.slow),
        ["strategy=dml", "strategy.teaching.update=sequential", "strategy.peers=clients", *MUTUAL],
        ["experiment=fedkd", *FEW, "clients.num_clients=5", "clients.messenger.epochs=1"],
    ],
    ids=["ffl", "dml", "fedkd"],
)
def test_mutual_learning_has_the_same_bits_everywhere(words: list[str], tmp_path: Path) -> None:
    """In one process, and over two workers, resumed after the first of two rounds."""
    common = [*words, f"seed={SEED}", "checkpoint_every=1"]
    here = federated(tmp_path / "here", *common, "rounds=2")
    federated(tmp_path / "there", *common, "rounds=1", sim="ray")
    there = federated(tmp_path / "there", resumed=["rounds=2"], sim="ray")
    assert hashes(here) == hashes(there)
    left = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "peers").glob("*")}
        for name in ("here", "there")
    ]
    assert left[0] == left[1]
    assert bool(left[0]) == ("experiment=fedkd" not in words)


def test_mutual_learning_shows_and_leaves_what_the_group_is(tmp_path: Path) -> None:
    done = run_py("strategy=ffl", *MUTUAL, "sim=inline", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("round 1 ")]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert f"fused {result['fused_accuracy']:.4f}" in line
    assert f"mean of peers {result['peers_mean_accuracy']:.4f}" in line
    assert "fused classifier" in done.stdout.partition("accuracy on the test set")[2]
    assert {path.name for path in (tmp_path / "run" / "peers").iterdir()} == {
        f"{name}.safetensors" for name in ("head", "lenet5", "logistic_regression", "mlp")
    }
    documented = (ROOT / "docs/run_folder.md").read_text()
    assert all(f"`{key}`" in documented for key in result)


def test_another_seed_gives_other_bits(reference: tuple[dict, Path], tmp_path: Path) -> None:
    result = result_of(tmp_path / "run", *QUICK, "rounds=2", "sim=inline", "seed=1")
    assert all(a != b for a, b in zip(hashes(result), hashes(reference[0]), strict=True))


def test_the_run_folder_holds_what_the_docs_say(reference: tuple[dict, Path]) -> None:
    result, folder = reference
    names = {path.name for path in folder.iterdir()}
    assert names == {
        ".hydra", "clients.parquet", "config.yaml", "events", "failures.jsonl", "metrics.jsonl",
        "partition.parquet", "partition_summary.json", "result.json", "student.safetensors",
    }  # fmt: skip
    assert set(result) == {
        "seed", "rounds", "student_accuracy", "ensemble_accuracy", "clients_accuracy",
        "clients_private_accuracy", "student_sha256", "metrics_sha256", "clients_sha256",
        "request_bytes", "reply_bytes",
        "failures", "wall_time_s", "versions",
    }  # fmt: skip
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2]
    assert lines[-1]["student"]["accuracy"] == result["student_accuracy"]
    table = pq.read_table(folder / "clients.parquet")
    assert table.num_rows == 2 * 5
    assert sum(table["reply_bytes"].to_pylist()) == result["reply_bytes"]
    assert sum(table["request_bytes"].to_pylist()) == result["request_bytes"]
    cut = pq.read_table(folder / "partition.parquet")
    assert cut["client"].to_pylist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]  # two classes each
    sizes = np.bincount(cut["client"], weights=cut["num_examples"])
    assert sizes.tolist() == table["num_examples"].to_pylist()[:5]
    summary = json.loads((folder / "partition_summary.json").read_text())
    assert summary["num_examples"]["mean"] == sizes.mean()
    assert (folder / "failures.jsonl").read_text() == ""
    assert (
        "_target_: strategies.aggregation.scorers.own_odds" in (folder / "config.yaml").read_text()
    )
    documented = (ROOT / "docs/run_folder.md").read_text()
    assert all(f"`{key}`" in documented for key in result)


def test_the_saved_student_has_the_hash_of_the_result(reference: tuple[dict, Path]) -> None:
    from sim.tracking.run_folder import sha256_of_arrays

    parameters = load_file(reference[1] / "student.safetensors")
    assert sha256_of_arrays(parameters) == reference[0]["student_sha256"]


def test_reply_bytes_are_the_formula_plus_headers(reference: tuple[dict, Path]) -> None:
    # Up, per client and round: 4PC + 4P on the P distilled proxy examples, 4MC + 4M on the M test
    # examples (measured, not part of a real protocol). digits: 0.4 of 1,438 are proxy, 0.8 of these
    # distilled, 359 are for the test. Headers (npy 128 bytes an array, names, scalars) add < 600.
    result, _ = reference
    inputs = round(0.8 * round(0.4 * 1438)) + 359
    formula = 2 * 5 * (4 * 10 * inputs + 4 * inputs)
    assert formula < result["reply_bytes"] < formula + 2 * 5 * 2 * 600


def test_the_default_student_beats_the_best_client_and_the_uniform_student(tmp_path: Path) -> None:
    dlad = federated(tmp_path / "dlad")
    uniform = federated(tmp_path / "uniform", "strategy/scorer=uniform")
    assert dlad["clients_accuracy"] == uniform["clients_accuracy"]  # the same teachers
    assert dlad["student_accuracy"] > dlad["clients_accuracy"]["max"] + 0.2
    assert dlad["student_accuracy"] > uniform["student_accuracy"] + 0.2


def test_flower_strategies_run_from_the_command_line(tmp_path: Path) -> None:
    args = ["sim=inline", "clients=same", "partition=iid", "rounds=3", "clients.training.epochs=10"]
    result = result_of(tmp_path / "run", *args, "strategy=fedavg")
    assert result["student_accuracy"] > 0.5  # chance is 0.1
    assert result["ensemble_accuracy"] is result["clients_accuracy"] is None
    assert result["clients_private_accuracy"]["min"] > 0.2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["rouns=3"], "error: unknown key 'rouns'; did you mean 'rounds'?"),
        (["clients.num_clients=5000"], "num_clients=5000 but only 863 examples"),
        (["student._target_=clients.models.resnet88"], "did you mean 'resnet8'?"),
        (["data=mnist"], "neither data.root nor $STILLHOUSE_DATA is set"),
        (["data=mnist", "data.root=/nowhere"], "looked for /nowhere/MNIST/raw/train-images"),
        (["strategy=fedavg"], "FedAvg averages parameters, so all clients need the student's"),
        (["partition=from_file"], "partition.path is not set: give partition.path=..."),
        (["sim=ray", "sim.address=localhost:1"], "sim.address=localhost:1: no Ray cluster answers"),
        (["strategy/discriminator=none"], "set strategy/discriminator=features"),
        (["strategy.ensemble.weight_cap=0"], "weight_cap=0: expected a number in (0, 1]"),
    ],
)
def test_bad_input_ends_with_one_line_that_names_it(
    args: list[str], message: str, tmp_path: Path
) -> None:
    done = run_py("sim=inline", f"hydra.run.dir={tmp_path / 'run'}", *args, STILLHOUSE_DATA="")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_run_folder_is_never_written_twice(reference: tuple[dict, Path]) -> None:
    files = ("metrics.jsonl", ".hydra/overrides.yaml", ".hydra/config.yaml")
    before = [(reference[1] / file).read_bytes() for file in files]
    done = run_py("sim=inline", f"hydra.run.dir={reference[1]}")
    assert (done.returncode, "already holds a run" in done.stderr) == (1, True)
    assert [(reference[1] / file).read_bytes() for file in files] == before


def test_a_sweep_makes_a_run_folder_per_job(tmp_path: Path) -> None:
    words = "sim=inline", *QUICK, NO_FIGURES, "seed=0,1"
    done = run_py("-m", *words, f"hydra.sweep.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    seeds = [json.loads((tmp_path / job / "result.json").read_text())["seed"] for job in "01"]
    assert seeds == [0, 1]
