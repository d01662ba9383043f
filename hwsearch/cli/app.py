"""The typer application: common options, exit codes, errors as JSON."""

import functools
import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from typer.core import TyperGroup

import hwsearch
from hwsearch.cli.completion import complete_run
from hwsearch.cli.output import BROKEN_PIPE, err, prepare_streams, say_json, silence, tell
from hwsearch.cli.stdout import reserved_stdout, result_stream
from hwsearch.errors import HwsearchError, InputError
from hwsearch.run.progress import Progress, Silent
from hwsearch.terminal import TerminalProgress


class _Invocation:
    """State of the running command; ``answered`` is set once a result is printed as JSON."""

    quiet = verbose = debug = as_json = answered = False


_now = _Invocation()


class _Commands(TyperGroup):
    """Group of commands that prints usage errors as JSON under ``--json``."""

    def main(self, args: Any = None, *given: Any, **options: Any) -> Any:
        prepare_streams()
        words = [*(sys.argv[1:] if args is None else args)]
        _now.as_json = "--json" in words[: words.index("--") if "--" in words else None]
        _now.answered = False
        return super().main(args, *given, **options)

    def make_context(self, *given: Any, **options: Any) -> Any:
        with _usage_as_json():
            return super().make_context(*given, **options)

    def invoke(self, context: Any) -> Any:
        with _usage_as_json():
            return super().invoke(context)


app = typer.Typer(
    name="hwsearch",
    cls=_Commands,
    help="Give it a pretrained supernet and a device; get the Pareto-optimal subnets for that "
    "device as verified ONNX files.",
    epilog="Start with: hwsearch search --out runs/first",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
P = ParamSpec("P")

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder of a run.", autocompletion=complete_run)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts, errors included.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show the result and errors only.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Log what is done on stderr, instead of a bar.")
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Log every step on stderr; show tracebacks of errors.")
]
_EVERYWHERE = {"quiet": Quiet, "verbose": Verbose, "debug": Debug}
_LIBRARY = logging.getLogger("hwsearch")
INTERRUPTED = 130


class _StderrHandler(logging.Handler):
    """Writes records to the current stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        tell(self.format(record))


_handler = _StderrHandler()
_handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    _now.quiet, _now.verbose, _now.debug = quiet, verbose, debug
    if version:
        print(hwsearch.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def showing() -> AbstractContextManager[Progress]:
    """Return the context manager of the progress display, which the options can turn off."""
    if _now.quiet or _now.verbose or _now.debug:
        return nullcontext(Silent())
    return TerminalProgress(err)


def answer(result: Any) -> None:
    """Print the result of a command as JSON."""
    _now.answered = True
    say_json(result)


def reporting(command: Callable[P, None]) -> Callable[P, None]:
    """Add the common options to a command, and turn its errors into one line and an exit code.

    ``--debug`` raises errors unchanged; ``--json`` also prints them as JSON.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        _apply({name: bool(kwargs.pop(name, False)) for name in _EVERYWHERE})
        _LIBRARY.addHandler(_handler)
        try:
            _check_texts(kwargs.values())
            with reserved_stdout():
                command(*args, **kwargs)
                result_stream().flush()
        except (HwsearchError, OSError, KeyboardInterrupt) as error:
            if isinstance(error, BrokenPipeError):
                silence(error)
                raise typer.Exit(BROKEN_PIPE) from None
            if _now.debug and not isinstance(error, KeyboardInterrupt):
                raise
            raise _failed(error, *_text_and_code(error)) from None
        except typer.Exit:
            raise
        except Exception as error:
            if _now.debug:
                raise
            # A bug of hwsearch or of a plugin.
            text = f"{type(error).__name__}: {error}; 'hwsearch --debug ...' shows where"
            raise _failed(error, text, 1) from None
        finally:
            _LIBRARY.removeHandler(_handler)
            _LIBRARY.setLevel(logging.NOTSET)

    given = inspect.signature(command)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in _EVERYWHERE.items()
    ]
    # Typer derives options from the signature.
    wrapped.__signature__ = given.replace(parameters=[*given.parameters.values(), *added])  # type: ignore[attr-defined]
    return wrapped


def _apply(given: dict[str, bool]) -> None:
    """Combine the options of a command with those before it, and set the log level."""
    for name, value in given.items():
        setattr(_now, name, getattr(_now, name) or value)
    levels = {"debug": logging.DEBUG, "verbose": logging.INFO, "quiet": logging.ERROR}
    chosen = (level for name, level in levels.items() if getattr(_now, name))
    _handler.setLevel(next(chosen, logging.WARNING))
    if _handler.level < logging.WARNING:
        _LIBRARY.setLevel(_handler.level)


def _check_texts(values: Iterable[object]) -> None:
    """Refuse arguments with bytes that are not UTF-8, or with a null character."""
    for value in values:
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str | Path) and re.search("[\0\ud800-\udfff]", str(text)):
                raise InputError(
                    f"{str(text)!r} has bytes that are no UTF-8 text; rename it, or give a link "
                    "to it that has another name"
                )


def _text_and_code(error: BaseException) -> tuple[str, int]:
    if isinstance(error, KeyboardInterrupt):
        next_step = f"; everything measured so far is kept, {error}" if str(error) else ""
        return f"stopped{next_step}", INTERRUPTED
    return str(error), error.exit_code if isinstance(error, HwsearchError) else 1


def _failed(error: BaseException, text: str, code: int) -> typer.Exit:
    """Print an error on stderr, also as JSON on stdout under ``--json``; return the exit."""
    tell(text if code == INTERRUPTED else f"error: {text}")
    _answer_error(type(error).__name__, text, code)
    return typer.Exit(code)


def _answer_error(kind: str, text: str, code: int) -> None:
    if _now.as_json and not _now.answered:
        answer({"error": {"type": kind, "message": text, "exit_code": code}})
        try:
            result_stream().flush()
        except BrokenPipeError as error:
            silence(error)


@contextmanager
def _usage_as_json() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Versions of typer with their own copy of click have another class.
        if hasattr(error, "format_message"):
            _answer_error("UsageError", error.format_message(), getattr(error, "exit_code", 2))
        raise
