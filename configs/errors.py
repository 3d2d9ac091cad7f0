"""User errors: reported in one line that says what is wrong, where, and how to fix it, without a traceback."""

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
LONGEST = 4000  # characters of a message, which may quote a file's content


class UserError(Exception):
    """An error that the user can fix; its message becomes one line, and the command exits with `exit_code`."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UnfitData(UserError):
    """Readable data that this network cannot be trained on."""


class UnknownCharacters(UnfitData):
    """Text with characters that are not in a tokenizer's vocabulary."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "; did you mean X?" for the most similar known word, "" if none is similar."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def reason(error: Exception) -> str:
    """The error's message; for a pydantic error the first location and message: `model.sizes: Field required`."""
    if errors := getattr(error, "errors", None):
        first = errors(include_url=False, include_context=False, include_input=False)[0]
        place, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        return f"{place[:80]}: {message}" if place else message
    return str(error) or type(error).__name__


def one_line(message: object) -> str:
    """The message on one line, cut to LONGEST, with control characters escaped."""
    text = " ".join(str(message).split())
    text = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def for_shell(name: object) -> str:
    """A word quoted for the shell, so that `one_line` does not change it: `a.txt`, `'my file'`, `$'a\\x0ab'`."""
    text = str(name)
    if os.name == "nt":
        return subprocess.list2cmdline([text])
    plain = shlex.quote(text)
    return plain if one_line(plain) == plain else "$'" + "".join(map(escaped, text)) + "'"


def escaped(c: str) -> str:
    """A character inside $'...'. Spaces are escaped because `one_line` merges consecutive ones."""
    plain = c.isprintable() and c not in " '\\"
    return c if plain else "".join(f"\\x{byte:02x}" for byte in os.fsencode(c))


@contextmanager
def about(what: str) -> Iterator[None]:
    """Prefix the message of a UserError with the option or setting that it is about."""
    try:
        yield
    except UserError as error:
        error.args = (f"{what}: {error}",)
        raise


class OneLineParser(argparse.ArgumentParser):
    """argparse, with one-line errors that suggest the option that was probably meant."""

    def error(self, message: str) -> NoReturn:
        words = message.removeprefix("unrecognized arguments: ").split()
        if words == message.split():
            raise UserError(f"command line: {message}")
        option = " ".join(words[:1]).split("=")[0]  # "" for an empty shell variable
        if not option.startswith("-"):
            raise UserError(f"command line: unexpected argument {option!r}")
        known = [name for name in self._option_string_actions if name.startswith("--")]
        same = [name for name in known if name.rpartition(".")[2].lstrip("-") == option.lstrip("-")]
        guess = f"; did you mean {' or '.join(same)}?" if same else did_you_mean(option, known)
        if not option.startswith("--"):
            guess += f"; if it is a file, write ./{option}"
        raise UserError(f"command line: unknown option {option}{guess}")


def answer(main: Callable[[], int | None]) -> int:
    """Run a script's main function; print an expected error in one line. Returns the exit code."""
    for out in (sys.stdout, sys.stderr):
        if isinstance(out, io.TextIOWrapper):  # its encoding may lack characters of a file name
            out.reconfigure(errors="backslashreplace")
    secure_streams()
    try:
        return run_and_flush(main) or 0
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except ModuleNotFoundError as error:
        print(f"error: this needs {error.name}, which is not installed: pip install {error.name}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, such as `head`, has exited
        drop_stdout()
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {one_line(where + (error.strerror or str(error)))}", file=sys.stderr)
        return 1
    finally:
        settle_stdout()


def run_and_flush(main: Callable[[], int | None]) -> int | None:
    """Run `main` and flush stdout, so that a failed write raises OSError here, not at exit."""
    try:
        result = main()
    except SystemExit:  # after --help and --list
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return result


@contextmanager
def spoken_once() -> Iterator[None]:
    """Silence every process that torchrun started except the first, since all print the same."""
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
    """Make Ctrl-C end the process silently: nothing has been done yet that needs saving."""
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))


def result_or_exit(parse: Callable[[], T]) -> T:
    """The result of `parse`. If it raises, print one line and exit."""
    results: list[T] = []
    with spoken_once():
        code = answer(lambda: results.append(parse()))
    return results[0] if results else sys.exit(code)
