"""What a user's mistake is answered with: one line that says what, where, and the way out. Never a traceback."""

import argparse
import difflib
import io
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import NoReturn, TypeVar

from configs.terminal import drop_stdout, secure_streams, settle_stdout

T = TypeVar("T")
INTERRUPTED = 130  # 128 + SIGINT, as shells count
LONGEST = 4000  # characters of a message; what a file holds may be quoted in it


class UserError(Exception):
    """A mistake that one line answers; `exit_code` is what the command then returns to the shell."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UnfitData(UserError):
    """Data that can be read, but that this network cannot be trained on."""


class UnknownCharacters(UnfitData):
    """Text with characters that a tokenizer has no tokens for."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "; did you mean X?" for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def reason(error: Exception) -> str:
    """The first mistake that an error tells of, in a line; pydantic's has a place and a message."""
    if errors := getattr(error, "errors", None):
        first = errors(include_url=False, include_context=False, include_input=False)[0]
        place, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        return f"{place[:80]}: {message}" if place else message
    return str(error) or type(error).__name__


def one_line(message: object) -> str:
    """The message on one line, without anything that could steer a terminal."""
    text = " ".join(str(message).split())
    text = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def for_shell(name: object) -> str:
    """A word as it is typed in a command and shown by `one_line`: `a.txt`, `'my file'`, `$'a\\x0ab'`."""
    text = str(name)
    if os.name == "nt":
        return subprocess.list2cmdline([text])
    plain = shlex.quote(text)
    return plain if one_line(plain) == plain else "$'" + "".join(map(escaped, text)) + "'"


def escaped(c: str) -> str:
    """A character between $' and '. A space is escaped because `one_line` would make one of two."""
    plain = c.isprintable() and c not in " '\\"
    return c if plain else "".join(f"\\x{byte:02x}" for byte in os.fsencode(c))


@contextmanager
def about(what: str) -> Iterator[None]:
    """The message of a mistake begins with what it is in: an option or a setting."""
    try:
        yield
    except UserError as error:
        error.args = (f"{what}: {error}",)
        raise


class OneLineParser(argparse.ArgumentParser):
    """argparse, with its mistakes answered in one line that names the option that was probably meant."""

    def error(self, message: str) -> NoReturn:
        words = message.removeprefix("unrecognized arguments: ").split()
        if words == message.split():
            raise UserError(f"command line: {message}")
        option = " ".join(words[:1]).split("=")[0]  # no word at all where a shell's variable was empty
        if not option.startswith("-"):
            raise UserError(f"command line: {option!r} is one word too many")
        known = [name for name in self._option_string_actions if name.startswith("--")]
        same = [name for name in known if name.rpartition(".")[2].lstrip("-") == option.lstrip("-")]
        guess = f"; did you mean {' or '.join(same)}?" if same else did_you_mean(option, known)
        if not option.startswith("--"):
            guess += f"; a name that begins with - is written ./{option}"
        raise UserError(f"command line: there is no option {option}{guess}")


def answer(main: Callable[[], int | None]) -> int:
    """Run a script's main function and turn what goes wrong into one line and an exit code."""
    for out in (sys.stdout, sys.stderr):
        if isinstance(out, io.TextIOWrapper):  # a name that its encoding lacks is no reason to stop
            out.reconfigure(errors="backslashreplace")
    secure_streams()
    try:
        return written(main) or 0
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except ModuleNotFoundError as error:
        print(f"error: this needs {error.name}, which is not installed: pip install {error.name}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        drop_stdout()
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {one_line(where + (error.strerror or str(error)))}", file=sys.stderr)
        return 1
    finally:
        settle_stdout()


def written(main: Callable[[], int | None]) -> int | None:
    """What `main` returns, once all that it printed is written; raises OSError here, not at exit, if that fails."""
    try:
        result = main()
    except SystemExit:  # after --help and --list
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return result


@contextmanager
def spoken_once() -> Iterator[None]:
    """Of several processes that torchrun started, all of which do the same, only the first is heard."""
    if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0":
        yield
        return
    with (
        open(os.devnull, "w", encoding="utf-8", errors="replace") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        yield


def end_quietly_at_interrupt() -> None:
    """Ctrl-C from now on ends the process without a word: nothing has been done yet."""
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))


def result_or_exit(parse: Callable[[], T]) -> T:
    """What `parse` returns; the process ends in one line if it can't."""
    results: list[T] = []
    with spoken_once():
        code = answer(lambda: results.append(parse()))
    return results[0] if results else sys.exit(code)
