"""A config composed outside Hydra's own command: for `check`, and for runs that Python begins."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from conf.command_line_errors import without_plus
from conf.composition_errors import told
from conf.errors import ConfigError
from conf.schema import EXAMPLES, HERE, search_word


@contextmanager
def composed(
    words: Sequence[str], folders: Sequence[Path] = ()
) -> Iterator[tuple[DictConfig, Path]]:
    """Compose the config of a run, for the block; Hydra is left as it was found.

    Args:
        words: The command line without flags, such as `["strategy=feddf", "seed=1"]`.
        folders: The user's own config folders, as after `--config-dir`.

    Yields:
        The config, and the folder that a run of it would have.

    Raises:
        ConfigError: The words are not to be composed; says which, and what is nearest.
    """
    if absent := [folder for folder in folders if not folder.is_dir()]:
        raise ConfigError(f"--config-dir {absent[0]}: no such folder")
    theirs, their_config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    try:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(HERE), job_name="run", version_base="1.3"):
            places, words = (
                [search_word(*(each.resolve() for each in folders))],
                without_plus([*words]),
            )
            try:
                _require_one_run(words)
                config = compose("config", [*places, *words], return_hydra_config=True)
            except (HydraException, OmegaConfBaseException, MarkedYAMLError) as error:
                flags = [word for folder in folders for word in ("--config-dir", str(folder))]
                raise ConfigError(told(error, [*flags, *words])) from error
        HydraConfig.instance().set_config(config)
        folder = Path(config.hydra.run.dir)
        with open_dict(config):
            del config["hydra"]
        yield config, folder
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = theirs, their_config


@contextmanager
def composed_once(words: Sequence[str]) -> Iterator[None]:
    """Keep Hydra from composing all twice, 0.2 s, where nothing can say that this is a sweep.

    It does so to read `hydra.mode`, which of all that ships experiments alone set; a file of conf/
    or of the examples may be somebody's by now.

    Args:
        words: The command line, without the program's name.

    Yields:
        Nothing.
    """
    keys = [word.partition("=")[0].lstrip("+~") for word in words]
    flagged = any(k.startswith(("-", "hydra")) and k != "hydra.run.dir" for k in keys)
    if flagged or "experiment" in keys or _sweeps_by_itself():
        yield
        return
    ask = Hydra.get_mode
    Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = ask  # type: ignore[method-assign]


def _sweeps_by_itself() -> bool:
    """Tell whether a YAML that is no experiment says `mode: MULTIRUN`; 10 ms for all of them."""
    files = (file for place in (HERE, *EXAMPLES) for file in place.rglob("*.yaml"))
    return any(b"MULTIRUN" in f.read_bytes() for f in files if f.parent.name != "experiment")


def _require_one_run(words: Sequence[str]) -> None:
    """Refuse flags, and words that mean several runs: those are for Hydra's own command."""
    if flags := [word for word in words if word.startswith("-")]:
        raise ConfigError(f"'{flags[0]}': expected GROUP=OPTION or KEY=VALUE, and no flag")
    for override in OverridesParser.create().parse_overrides([*words]):
        if override.is_sweep_override():
            raise ConfigError(
                f"{override.input_line}: several runs: expected one value, or [a,b] for a list; a "
                "sweep is begun by stillhouse run -m"
            )
