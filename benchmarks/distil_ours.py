"""Distillation by ours, as `run.py` runs it: its config, its pools, a strategy of one file.

python -m benchmarks.distil_ours --workers 2 --clients 20 --proxy 1000    # Ray; 0 = inline
python -m benchmarks.distil_ours --teachers    # measure every teacher too, as is the default
python -m benchmarks.distil_ours --overrides   # say what `python run.py` would be told
"""

import argparse
import json
import tempfile
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from benchmarks.distil_work import (
    DISTIL_EPOCHS,
    LEARNING_RATE,
    LOCAL_BATCH,
    NETWORKS,
    PROXY_BATCH,
    SEED,
    STUDENT_LEARNING_RATE,
    Watch,
    Work,
    arguments,
    conclude,
    data_root,
    work_of,
)
from conf.schema import register
from run import federate
from sim.checkpoint.stop_signals import Stop

ROOT = Path(__file__).parent.parent
GROUP_SIZE = 5
"""Clients that a worker gets at once: two workers share 20 evenly. The default is 8."""


class EndOfRound(Stop):
    """Asked after each round, by the loop and as it is committed, whether to go on."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def asked(self) -> bool:
        """Note that a round has ended, once."""
        if self._watch.running:
            self._watch.end_round()
        return super().asked()


def overrides(
    work: Work, workers: int, *, teachers: bool, threads: int = 1, half: bool = False
) -> list[str]:
    """Return what `run.py` is told.

    Args:
        work: What to do.
        workers: Of Ray; 0 = inline.
        teachers: Measure every teacher on the test set too.
        threads: Of the student.
        half: Whether all compute in bfloat16.

    Returns:
        Overrides of the config.
    """
    strategy = "Digesting" if work.digests else "Timed" if teachers else "StudentOnly"
    sim = ["sim=ray", f"sim.workers={workers}"] if workers else ["sim=inline"]
    root = [f"data.root={data_root()}"] if work.source == "mnist" else []
    others = [
        f"+clients.architectures.{name}={{share: 1, model: "
        f"{{_target_: clients.models.{name}, _partial_: true}}}}"
        for name in NETWORKS[work.networks]
        if name != "student"
    ]
    return [
        *sim,
        f"seed={SEED}",
        f"student_threads={threads}",
        f"rounds={work.rounds}",
        f"data={work.source}",
        *root,
        f"data.limit={work.private + work.proxy}",
        f"data.proxy_share={work.proxy / (work.private + work.proxy)}",
        "partition=iid",
        "clients=same",
        f"clients.num_clients={work.clients}",
        f"clients.group_size={GROUP_SIZE}",
        "clients.training.epochs=1",
        f"clients.training.batch_size={LOCAL_BATCH}",
        f"clients.training.optimizer.lr={LEARNING_RATE}",
        "clients.training.optimizer.momentum=0.0",
        *others,
        *(["clients.training.autocast=bfloat16", "strategy.distil.autocast=bfloat16"] * half),
        "student=cnn",
        "strategy=distillation",
        f"strategy._target_=benchmarks.distil_strategy.{strategy}",
        f"strategy.digest_epochs={DISTIL_EPOCHS}",
        f"strategy.distil.epochs={DISTIL_EPOCHS}",
        f"strategy.distil.batch_size={PROXY_BATCH}",
        f"strategy.distil.optimizer.lr={STUDENT_LEARNING_RATE}",
        "strategy.proxy_split.negative_share=0.0",
        "probes=none",
        "tracking.figures_every=0",
    ]


def run(
    work: Work, workers: int, *, teachers: bool, threads: int = 1, half: bool = False
) -> tuple[Watch, list[float], float]:
    """Run a federation as `run.py` does.

    Args:
        work: What to do.
        workers: Of Ray; 0 = inline.
        teachers: Measure every teacher on the test set too.
        threads: Of the student.
        half: Whether all compute in bfloat16.

    Returns:
        What noted the rounds; the student's accuracy after each; bytes a round, both ways.
    """
    words = overrides(work, workers, teachers=teachers, threads=threads, half=half)
    GlobalHydra.instance().clear()
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", overrides=words)
    from benchmarks import distil_strategy

    watch = distil_strategy.WATCH = Watch()
    with tempfile.TemporaryDirectory() as name:
        result = federate(config, Path(name), stop=EndOfRound(watch))
        lines = (Path(name) / "metrics.jsonl").read_text().splitlines()
    sent = result["request_bytes"] + result["reply_bytes"]
    return watch, [json.loads(line)["student"]["accuracy"] for line in lines], sent / work.rounds


def main() -> None:
    """Run the work and say what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments(parser)
    parser.add_argument("--workers", type=int, default=2, help="of Ray; 0 = inline")
    parser.add_argument("--teachers", action="store_true", help="measure them too")
    parser.add_argument("--overrides", action="store_true", help="print these, run nothing")
    parser.add_argument("--student-threads", type=int, default=1, help="part of the bits")
    parser.add_argument("--half", action="store_true", help="in bfloat16")
    args = parser.parse_args()
    work = work_of(args)
    if work.digests and args.teachers:
        raise SystemExit("--teachers: expected --protocol one-way")
    about = {"teachers": args.teachers, "threads": args.student_threads, "half": args.half}
    if args.overrides:
        print("\n".join(overrides(work, args.workers, **about)))
        return
    conclude(args, *run(work, args.workers, **about))


if __name__ == "__main__":
    main()
