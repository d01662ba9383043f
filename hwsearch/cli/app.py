"""The typer application: common options, exit codes, errors as JSON."""

import functools
import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from typer.core import TyperGroup

import hwsearch
from hwsearch.cli.completion import complete_device, complete_run
from hwsearch.cli.output import (
    BROKEN_PIPE,
    Terminal,
    prepare_streams,
    reserved_stdout,
    result_stream,
    say,
    say_json,
    silence,
    tell,
)
from hwsearch.errors import HwsearchError, InputError
from hwsearch.run.progress import Progress, Silent
from hwsearch.terminal import TerminalProgress


class _Invocation:
    """State of the running command: its common options, and whether its result is printed."""

    options: set[str] = set()  # noqa: RUF012 - of one process
    answered = False


_now = _Invocation()


class _Commands(TyperGroup):
    """Group of commands that prints usage errors as JSON under ``--json``."""

    def main(self, args: Any = None, *given: Any, **options: Any) -> Any:
        prepare_streams()
        words = [*(sys.argv[1:] if args is None else args)]
        as_json = "--json" in words[: words.index("--") if "--" in words else None]
        _now.options, _now.answered = {"as_json"} if as_json else set(), False
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
    help="Give it a pretrained supernet, or any trained model, and a device; get the "
    "Pareto-optimal subnets for that device as verified ONNX files.",
    epilog="Start with: hwsearch search --out runs/first",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder of a run.", autocompletion=complete_run)
]
DeviceOption = Annotated[
    str, typer.Option(help="See 'hwsearch devices'.", autocompletion=complete_device)
]


def sizes_of(text: str) -> tuple[int | str, ...]:
    """Split ``1,4,16``; what is no whole number stays text, which is refused where it is used."""
    parts = (part.strip() for part in text.split(","))
    return tuple(int(part) if part.isdecimal() else part for part in parts)


_FLAGS = {
    "as_json": typer.Option("--json", help="Print JSON for scripts, errors included."),
    "quiet": typer.Option("--quiet", "-q", help="Show the result and errors only."),
    "verbose": typer.Option(
        "--verbose", "-v", help="Log what is done on stderr, instead of a bar."
    ),
    "debug": typer.Option("--debug", help="Log every step on stderr; show tracebacks of errors."),
}
_LEVELS = {"debug": logging.DEBUG, "verbose": logging.INFO, "quiet": logging.ERROR}
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
    quiet: Annotated[bool, _FLAGS["quiet"]] = False,
    verbose: Annotated[bool, _FLAGS["verbose"]] = False,
    debug: Annotated[bool, _FLAGS["debug"]] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    given = {"quiet": quiet, "verbose": verbose, "debug": debug}
    _now.options |= {name for name, value in given.items() if value}
    if version:
        print(hwsearch.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def showing() -> AbstractContextManager[Progress]:
    """Return the context manager of the progress display, which the options can turn off."""
    if _now.options & {*_LEVELS}:
        return nullcontext(Silent())
    return TerminalProgress(Terminal(sys.stderr))


def answer(result: Any, *shown: str | RenderableType) -> None:
    """Print the result of a command: as JSON under ``--json``, else the lines and tables."""
    _now.answered = True
    if "as_json" in _now.options:
        say_json(result)
        return
    say(*shown)


def command(
    *examples: str,
    register: Callable[..., Callable[[Any], Any]] = app.command,
    has_json: bool = True,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command with the common options; its errors become one line and an exit code.

    ``--debug`` raises errors unchanged; ``--json`` also prints them as JSON.
    """
    flags = {name: flag for name, flag in _FLAGS.items() if has_json or name != "as_json"}
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter(name, keyword, default=False, annotation=Annotated[bool, flag])
        for name, flag in flags.items()
    ]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> None:
            _now.options |= {name for name in flags if kwargs.pop(name, False)}
            _run(lambda: function(*args, **kwargs), kwargs.values())

        given = inspect.signature(function)
        # Typer derives options from the signature.
        wrapped.__signature__ = given.replace(parameters=[*given.parameters.values(), *added])  # type: ignore[attr-defined]
        title = "Example" if len(examples) == 1 else "Examples"
        register(epilog=f"{title}:  {'    '.join(examples)}")(wrapped)
        return wrapped

    return decorate


def _run(function: Callable[[], None], arguments: Iterable[object]) -> None:
    """Run a command with its log on stderr, and its errors as exit codes."""
    level = next((_LEVELS[name] for name in _LEVELS if name in _now.options), logging.WARNING)
    _handler.setLevel(level)
    _LIBRARY.addHandler(_handler)
    if level < logging.WARNING:
        _LIBRARY.setLevel(level)
    try:
        _check_texts(arguments)
        with reserved_stdout():
            function()
            result_stream().flush()
    except typer.Exit:
        raise
    except BrokenPipeError as error:
        silence(error)
        raise typer.Exit(BROKEN_PIPE) from None
    except (Exception, KeyboardInterrupt) as error:
        if "debug" in _now.options and isinstance(error, Exception):
            raise
        text, code = _text_and_code(error)
        tell(text if code == INTERRUPTED else f"error: {text}")
        _answer_error(type(error).__name__, text, code)
        raise typer.Exit(code) from None
    finally:
        _LIBRARY.removeHandler(_handler)
        _LIBRARY.setLevel(logging.NOTSET)


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
    if isinstance(error, HwsearchError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        return str(error), 1
    # A bug of hwsearch or of a plugin.
    return f"{type(error).__name__}: {error}; 'hwsearch --debug ...' shows where", 1


def _answer_error(kind: str, text: str, code: int) -> None:
    if "as_json" in _now.options and not _now.answered:
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
