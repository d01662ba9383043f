"""What every command stands on: the application, the two consoles, errors as exit codes."""

import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, ParamSpec

import typer
from rich.console import Console

import hwsearch
from hwsearch.cli.completion import complete_run
from hwsearch.errors import HwsearchError
from hwsearch.run.progress import Progress, Silent
from hwsearch.terminal import TerminalProgress


class _Settings:
    """What the options say that every command takes, and that may stand before it too."""

    quiet = verbose = debug = False


_settings = _Settings()
app = typer.Typer(
    name="hwsearch",
    help="Give it a pretrained supernet and a device; get the Pareto-optimal subnets for that "
    "device as verified ONNX files.",
    epilog="Start with: hwsearch search --out runs/first",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
out, err = Console(), Console(stderr=True)
P = ParamSpec("P")

RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder of a run.", autocompletion=complete_run)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
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


class _OnStderr(logging.Handler):
    """Writes records to stderr as it is when they come."""

    def emit(self, record: logging.LogRecord) -> None:
        err.print(self.format(record), markup=False, highlight=False, soft_wrap=True)


_handler = _OnStderr()
_handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    _settings.quiet, _settings.verbose, _settings.debug = quiet, verbose, debug
    if version:
        print(hwsearch.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def showing(as_json: bool) -> AbstractContextManager[Progress]:
    """Show progress on stdout, beside JSON on stderr, or not at all: as the options say."""
    if _settings.quiet or _settings.verbose or _settings.debug:
        return nullcontext(Silent())
    return TerminalProgress(err if as_json else out)


def reporting(command: Callable[P, None]) -> Callable[P, None]:
    """Turn errors into one line and an exit code, and add the options that every command takes.

    ``--debug`` lets errors through.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        _apply({name: bool(kwargs.pop(name, False)) for name in _EVERYWHERE})
        _LIBRARY.addHandler(_handler)
        try:
            command(*args, **kwargs)
        except HwsearchError as error:
            if _settings.debug:
                raise
            err.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt as stop:
            what_next = f"; everything measured so far is kept, {stop}" if str(stop) else ""
            err.print(f"stopped{what_next}", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(INTERRUPTED) from None
        except OSError as error:
            if _settings.debug:
                raise
            err.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(1) from None
        except Exception as error:
            if _settings.debug:
                raise
            # Ours or a plugin's: nobody foresaw it, so that the traceback is worth having.
            text = f"error: {type(error).__name__}: {error}; 'hwsearch --debug ...' shows where"
            err.print(text, markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(1) from None
        finally:
            _LIBRARY.removeHandler(_handler)
            _LIBRARY.setLevel(logging.NOTSET)

    given = inspect.signature(command)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in _EVERYWHERE.items()
    ]
    # What typer makes options of.
    wrapped.__signature__ = given.replace(parameters=[*given.parameters.values(), *added])  # type: ignore[attr-defined]
    return wrapped


def _apply(said: Mapping[str, bool]) -> None:
    """Take the options of a command beside those before it; they say how much is logged."""
    for name, value in said.items():
        setattr(_settings, name, getattr(_settings, name) or value)
    levels = {"debug": logging.DEBUG, "verbose": logging.INFO, "quiet": logging.ERROR}
    chosen = (level for name, level in levels.items() if getattr(_settings, name))
    _handler.setLevel(next(chosen, logging.WARNING))
    if _handler.level < logging.WARNING:
        _LIBRARY.setLevel(_handler.level)
