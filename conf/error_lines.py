"""From what goes wrong before and between rounds to one line for the user."""

import errno
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import InstantiationException
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from conf.errors import WHOLE, ConfigError, Stopped, tell
from conf.schema import HERE, targets_in
from conf.user_code_errors import frames_of_user, place_in_user, without_ours, written_places

PACKAGES = ("clients", "strategies", "sim", "flwr", "torch")

BUILDING = (ConfigError, InstantiationException, OmegaConfBaseException, OSError, ValueError)
"""What wrong input raises before the first round. Whatever else is raised, there or later, is a
defect, of ours or of a rule that a user brought, and keeps its traceback."""

FORGOTTEN = "is `_partial_: true` missing?"
"""Of a function that was called where it ought to have been bound."""


def key_of_user(error: BaseException, config: DictConfig | None) -> str:
    """Name the key whose `_target_` has raised an error, such as `strategy.scorer=mine.sure: `.

    Args:
        error: What was raised.
        config: The composed config; None = there is none yet.

    Returns:
        The key and what it names, with a colon; "" if no target of the config did.
    """
    named = [] if config is None else [*targets_in(config, "")]
    found = ""
    for frame, _ in frames_of_user(error):
        for key, node in named:
            module, _, name = str(node["_target_"]).rpartition(".")
            file = getattr(sys.modules.get(module), "__file__", None)
            inside = frame.f_code.co_qualname.split(".")[0] == name
            if file == frame.f_code.co_filename and inside:
                found = f"{key}={module}.{name}: "
    return found


def with_key(error: BaseException, config: DictConfig | None) -> str:
    """Say what a function that the config names has refused, with the key of its argument.

    Args:
        error: What was raised; a message may begin with an argument, as in "classes=0: expected".
        config: The composed config; None = there is none yet.

    Returns:
        The message, which then begins with a key.
    """
    said, frames = str(error), [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    word = re.match(r"(\w+)[=:]", said)
    if word is None or config is None or not frames or word[1] in config:
        return said
    for key, node in targets_in(config, ""):
        module, _, name = str(node["_target_"]).rpartition(".")
        target = getattr(sys.modules.get(module), name, None)  # which may come from another module
        file = getattr(sys.modules.get(getattr(target, "__module__", "")), "__file__", None)
        named = [
            frame.f_locals
            for frame in frames
            if frame.f_code.co_qualname.split(".")[0] == name
            and frame.f_code.co_filename == file  # or a helper that lies beside it has raised
            and Path(file).parent == Path(frames[-1].f_code.co_filename).parent
        ]
        if named and word[1] in {*node, *named[-1]}:
            return f"{key}.{said}" if word[1] in node else f"{key}: {said}"
    return said


def raised_by_user(error: BaseException, config: DictConfig | None) -> str:
    """Say in one line what a user's code has raised, where, and which key names it.

    Args:
        error: What was raised.
        config: The composed config; None = there is none yet.

    Returns:
        The line; "" if it was not a user's code.
    """
    if place := place_in_user(error):
        return f"{key_of_user(error, config)}{type(error).__name__}: {error}{place}"
    if isinstance(error, TypeError) and config is not None:  # of the call: no frame is theirs
        for key, node in targets_in(config, ""):
            module, _, name = str(node["_target_"]).rpartition(".")
            said = str(error).startswith((f"{name}() ", f"{name}.__init__() "))
            left_out = re.findall("'(\\w+)'", str(error)) if "missing" in str(error) else []
            groups = ["/".join([*key.split("."), name]) for name in left_out]
            if said and any((HERE / group).is_dir() for group in groups):
                chosen = " ".join(f"{group}=NAME" for group in groups)
                return f"{groups[0].replace('/', '.')} is not set: choose one, {chosen}"
            if module.split(".")[0] not in PACKAGES and said:
                called = left_out and not node.get("_partial_")
                hint = FORGOTTEN if called else "docs/points.md says what it is given"
                if re.search("missing .* keyword-only", str(error)):
                    given = " ".join(f"{key}.{name}=..." for name in left_out)
                    hint = f"give {given}, if {'they are' * (len(left_out) > 1) or 'it is'} yours"
                return f"{key}={module}.{name}: {error}; {hint}"
    return ""


def given_by_user(error: BaseException, config: DictConfig | None) -> str:
    """Say in one line what was refused of what a user's code has given, such as a selection.

    Args:
        error: What was raised: one of ours, that begins with the key or with what it names.
        config: The composed config; None = there is none yet.

    Returns:
        The line; "" if it is of nothing that a user brought.
    """
    if isinstance(error, ValueError) and config is not None:
        for key, node in targets_in(config, ""):
            target = str(node["_target_"])
            begins = rf"{re.escape(key)}(?=[:, ])|\w+ {re.escape(target)}: "
            if target.split(".")[0] not in PACKAGES and re.match(begins, str(error)):
                return str(error)
    return ""


def written_by_user(error: BaseException, config: DictConfig | None) -> str:
    """Say what a user's rule has raised in a worker, whose traceback comes as a text; "" if none.

    Args:
        error: What was raised here, with that text.
        config: The composed config; None = there is none yet.

    Returns:
        What failed, then the traceback's last line, and which key, or file, is the user's.
    """
    where, _, text = str(error).partition(":\nTraceback (most recent call last):\n")
    lines = text.strip().splitlines()
    if not lines or config is None:
        return ""
    files, keys = written_places(text), []
    for key, node in targets_in(config, ""):
        module = str(node["_target_"]).rpartition(".")[0]
        file = getattr(sys.modules.get(module), "__file__", None)
        inside = file in [name for name, _ in files]
        # Of what it gave: no frame is theirs.
        gave = key.startswith("strategy.") and module.split(".")[0] not in PACKAGES
        if inside or (gave and not files):
            keys.append(f"{key}={node['_target_']}")
    place = " ({}, line {})".format(*files[-1]) if files else ""
    return f"{', '.join(keys)}: {where}: {lines[-1]}{place}" if keys else ""


def tell_raised(error: Exception, config: DictConfig) -> str:
    """Print an error that nobody expected, and its traceback: of a user's code without ours.

    Args:
        error: What was raised.
        config: The composed config, for the key that names the code.

    Returns:
        The line that was printed last.
    """
    said = (say(error, config) for say in (raised_by_user, given_by_user, written_by_user))
    story = next(filter(None, said), "")
    noted = [note for note in getattr(error, "__notes__", ()) if not story.startswith(note)]
    notes = "".join(f"{note}: " for note in reversed(noted))
    if story and not WHOLE:
        lines = traceback.StackSummary.extract(frames_of_user(error)).format()
        head = "Traceback (most recent call last):\n" if lines else ""
        print("".join([head, *lines]), end="", file=sys.stderr)
        if written_places(str(error)):  # in a worker
            print(without_ours(str(error).partition(":\n")[2]).rstrip(), file=sys.stderr)
    else:
        traceback.print_exception(error)
    story = notes + (story or f"{type(error).__name__}: {error}; a defect, not of your config")
    tell(" ".join(story.split()))
    return story


@contextmanager
def explained(*kinds: type[Exception], config: DictConfig | None = None) -> Iterator[None]:
    """Tell the user about errors of these kinds, at once: what is to be closed may take seconds.

    Args:
        *kinds: Which errors say all that there is to say.
        config: The composed config, for the key that names a user's code that raised one.

    Yields:
        Nothing.

    Raises:
        Stopped: Instead of the error, with its message.
    """
    try:
        yield
    except kinds as error:
        cause: BaseException = error
        while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
            cause = cause.__cause__
        if not isinstance(cause, (*kinds, TypeError)):
            raise
        theirs = "" if isinstance(cause, ConfigError) else raised_by_user(cause, config)
        story = theirs or with_key(cause, config)
        if isinstance(cause, TypeError) and not theirs:  # arguments that do not fit: of which key?
            key = str(error).partition("full_key: ")[2]
            story = f"{key}: {story}" + f"; {FORGOTTEN}" * ("missing" in story)
        if isinstance(cause, MissingMandatoryValue):
            story = f"{cause.full_key} is not set: give {cause.full_key}=..."
        elif isinstance(cause, OmegaConfBaseException):
            story = f"{cause.full_key or 'config'}: {str(cause.msg or cause).splitlines()[0]}"
            if isinstance(cause, AttributeError):  # ~rounds
                story = f"{cause.full_key} is left out: expected {cause.full_key}=..."
        tell(story, error)
        raise Stopped(story, getattr(cause, "exit_code", 1)) from error


FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""What a disk says that takes no more."""

REFUSED = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EIO, errno.ESTALE}
"""What it says to whoever reads, too."""


@contextmanager
def disk_explained(folder: Path) -> Iterator[None]:
    """Tell the user about a disk that takes no more, or refuses.

    Args:
        folder: What was written to, if the error does not say.

    Yields:
        Nothing.

    Raises:
        Stopped: Instead of the error.
    """
    try:
        yield
    except OSError as error:
        cause: BaseException | None = error
        while isinstance(cause, OSError) and cause.errno is None:
            cause = cause.__cause__
        if not isinstance(cause, OSError) or cause.errno not in FULL | REFUSED:
            raise
        if isinstance(error.__context__, Stopped):  # as it closed: the user has been told why
            raise error.__context__ from error
        fault = "cannot be written" if cause.errno in FULL else "cannot be used"
        story = f"{cause.filename or folder}: {fault}: {cause.strerror}"
        tell(story, error)
        raise Stopped(story) from error
