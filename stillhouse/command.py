"""The command line, `stillhouse` and `python run.py`: which word does what.

Importing it imports none of torch, Ray and Flower: each command imports what it needs.
"""

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

OF_PLUG_INS = ("run", "check", "conformance")
"""Commands that also find modules in the working folder; the others read folders of anybody."""

USAGE = """usage: stillhouse COMMAND WORDS

  run WORDS             run a federation; run --help tells every option
  check WORDS           the same but for the run: is the config sound, what would it cost?
  list [GROUP[/OPTION]] the options of a group of the config, or of all; the keys of an option
  copy GROUP/OPTION     a shipped option as a file of your own, to be edited
  export FOLDER         the student of a run as TorchScript or ONNX
  report FOLDER         a page about one run, or several
  conformance KIND X    does a function of yours keep the contract of its point?
  --version             ours, and those of what a result depends on"""


def main(words: Sequence[str] | None = None, otherwise: str | None = None) -> int:
    """Do what a command line says.

    Args:
        words: It; None = this process's.
        otherwise: The command that is meant where none is named; None = there must be one.

    Returns:
        The exit status.
    """
    from conf.composition_errors import usage_errors_in_one_line

    usage_errors_in_one_line()
    given = [*(sys.argv[1:] if words is None else words)]
    if otherwise is None and given[:1] and given[0] in OF_PLUG_INS:
        # Last, or a `json.py` there would be everybody's.
        sys.path.append(os.getcwd())
    if given[:1] and given[0] in ("list", "copy", "check") and {*given} & {"--help", "-h"}:
        print(USAGE)
        return 0
    if given[:1] and given[0] in COMMANDS:
        return COMMANDS[given[0]](given[1:])
    if otherwise is not None:
        return COMMANDS[otherwise](given)
    if given and given != ["--help"] and given != ["-h"]:
        meant = f"stillhouse run {' '.join(given)}"
        return _refused(
            f"'{given[0]}' is no command; is it {meant}? stillhouse --help says more", 2
        )
    print(USAGE)
    return 0


def _run(words: list[str]) -> int:
    """Run a federation, or a sweep of them, as Hydra reads the words."""
    import run
    from conf.command_line_errors import without_plus
    from conf.composing import composed_once
    from conf.composition_errors import composition_explained
    from conf.sweep_jobs import concluded
    from sim.report.command import main as write_report

    # All is closed by then; else the interpreter's end looks at a million objects, 1 to 2 s.
    atexit.register(gc.freeze)
    for word in words:
        if word in ("hydra.run.dir=", "hydra.sweep.dir="):
            return _refused(f"{word}: expected a folder")
    sys.argv[1:] = without_plus(words)
    with composition_explained(sys.argv[1:]), composed_once(sys.argv[1:]):
        run.main()
    return concluded(write_report)


def _report(words: list[str]) -> int:
    from sim.report.command import main as write_report

    return write_report(words)


def _conformance(words: list[str]) -> int:
    import run  # noqa: F401  which tells Hydra the schema, and where examples lie
    from conf.plugin_yaml import plugin_in
    from stillhouse.engine_points import engine_points
    from strategies.conformance.command import main as check_plugin

    return check_plugin(words, engine_points, plugin_in)


def _check(words: list[str]) -> int:
    """Compose, validate, rehearse, estimate; nothing runs, and no folder is made."""
    import run  # noqa: F401  which tells Hydra the schema
    from conf.composing import composed
    from conf.error_lines import explained, tell_raised
    from conf.errors import ConfigError, Stopped
    from stillhouse.wiring import check

    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--config-dir", "-cd", action="append", default=[], type=Path)
    given, overrides = flags.parse_known_args(words)
    sys.path[1:1] = [str(folder.resolve()) for folder in given.config_dir]
    try:
        with explained(ConfigError), composed(overrides, given.config_dir) as (config, _):
            try:
                print(check(config))
            except (Stopped, ConfigError):
                raise
            except Exception as error:
                tell_raised(error, config)
                return 1
    except Stopped as stopped:
        return stopped.exit_code
    return 0


def _list(words: list[str]) -> int:
    from conf.catalogue import is_option, listed
    from conf.errors import ConfigError
    from conf.reference import described

    try:
        print(described(words[0]) if words and is_option(words[0]) else listed(*words[:1]))
    except ConfigError as error:
        return _refused(str(error))
    return 0


def _copy(words: list[str]) -> int:
    from conf.catalogue import copied
    from conf.errors import ConfigError

    if len(words) != 1:
        return _refused("usage: stillhouse copy GROUP/OPTION, as strategy/scorer/entropy", 2)
    try:
        path, use = copied(words[0], Path())
    except (ConfigError, OSError) as error:
        return _refused(str(error))
    print(f"{path}; edit it, then: stillhouse run {use}")
    return 0


def _export(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="stillhouse export")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of a finished run")
    parser.add_argument("--format", choices=("torchscript", "onnx"), default="torchscript")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: student.* there")
    parser.add_argument("--peer", metavar="NAME", help="of peers/, instead of the student")
    parser.add_argument("--trust", nargs="+", default=[], metavar="MODULE.NAME",
                        help="model functions of yours that may be called")  # fmt: skip
    given = parser.parse_args(words)
    from stillhouse.models import export

    try:
        if given.trust:
            sys.path.append(os.getcwd())  # where they are
        about = {"peer": given.peer, "trust": given.trust}
        print(export(given.folder, given.format, given.out, **about))
    except (ImportError, OSError, ValueError) as error:
        return _refused(str(error))
    return 0


def _refused(story: str, status: int = 1) -> int:
    from conf.errors import tell

    tell(story)
    return status


def _version(words: list[str]) -> int:
    names = ("flwr", "ray", "torch")
    print(", ".join([f"stillhouse {own_version()}", *(f"{n} {version(n)}" for n in names)]))
    return 0


def own_version() -> str:
    """Return this package's version, of a checkout too."""
    try:
        return version("stillhouse")
    except PackageNotFoundError:  # a checkout
        import tomllib

        about = Path(__file__).parent.parent / "pyproject.toml"
        return str(tomllib.loads(about.read_text())["project"]["version"])


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": _run,
    "check": _check,
    "list": _list,
    "copy": _copy,
    "export": _export,
    "report": _report,
    "conformance": _conformance,
    "--version": _version,
}
