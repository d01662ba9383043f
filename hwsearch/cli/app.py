"""What every command stands on: the application, the two consoles, errors as exit codes."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec

import typer
from rich.console import Console

import hwsearch
from hwsearch.errors import HwsearchError


class _Settings:
    """What the options before the command decide."""

    debug = False


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

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
INTERRUPTED = 130


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    _settings.debug = debug
    if version:
        print(hwsearch.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def reporting(command: Callable[P, None]) -> Callable[P, None]:
    """Turn errors into one line and an exit code; ``--debug`` lets them through."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
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

    return wrapped
