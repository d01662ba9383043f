"""The command line: parses, prints, nothing else.

Exit codes: 0 done, 1 failure, 2 usage or bad input, 3 nothing feasible, 130 interrupted.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console
from rich.table import Table

import hwsearch
from hwsearch.errors import HwsearchError, VerificationError
from hwsearch.terminal import TerminalProgress, front_table, supernets_table


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


def _reporting(command: Callable[P, None]) -> Callable[P, None]:
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


@app.command(
    epilog="Examples:  hwsearch search --out runs/first    "
    "hwsearch search --device ort-cpu:threads=2 --constraint 'latency <= 1' --budget 100"
)
@_reporting
def search(
    supernet: Annotated[
        str, typer.Option(help="A name from 'hwsearch supernets', or MODULE:FUNCTION.")
    ] = "cifar10-resnet",
    checkpoint: Annotated[
        str | None, typer.Option(help="Weights: a file or random:SEED; else what ships.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where latency counts; see 'hwsearch devices'.")
    ] = "ort-cpu:threads=1",
    data: Annotated[
        str,
        typer.Option(
            help="bundled, cifar10:FOLDER, imagefolder:FOLDER, npz:FILE or MODULE:FUNCTION."
        ),
    ] = "bundled",
    objective: Annotated[
        list[str] | None,
        typer.Option(help="Repeat it; default: the data's metric and latency. Also macs, params."),
    ] = None,
    constraint: Annotated[
        list[str] | None, typer.Option(help="Repeat it; for example 'latency <= 12'.")
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(help="Repeat it; leave choices one option: 'stage1.*=max', 'a.width=32'."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Repeat it; leave choices some options: 'resolution in 160,192'."),
    ] = None,
    budget: Annotated[int, typer.Option(help="How many architectures to evaluate.")] = 40,
    tactic: Annotated[str, typer.Option(help="hwsearch, nsga2 or random.")] = "hwsearch",
    seed: Annotated[int, typer.Option(help="Decides every random draw.")] = 0,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="New folder; default: runs/SUPERNET-DEVICE.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search a supernet for one device, and export the confirmed front as verified ONNX."""
    with TerminalProgress(err if as_json else out) as progress:
        run = hwsearch.search(
            supernet,
            checkpoint=checkpoint,
            device=device,
            data=data,
            objectives=objective,
            constraints=constraint,
            freeze=freeze,
            only=only,
            budget=budget,
            tactic=tactic,
            seed=seed,
            out=out_folder,
            progress=progress,
        )
    _print_run(run, as_json)


@app.command(epilog="Example:  hwsearch resume runs/first --budget 200")
@_reporting
def resume(
    run: RunFolder,
    budget: Annotated[
        int | None, typer.Option(help="A new budget in all; default: the run's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a run that was stopped, or give a finished one a larger budget."""
    with TerminalProgress(err if as_json else out) as progress:
        finished = hwsearch.resume(run, budget=budget, progress=progress)
    _print_run(finished, as_json)


@app.command(epilog="Example:  hwsearch front runs/first --json")
@_reporting
def front(run: RunFolder, as_json: AsJson = False) -> None:
    """Show the front of a finished run."""
    _print_run(hwsearch.Run(run), as_json)


@app.command(epilog="Example:  hwsearch export runs/first --select 'latency <= 1' --to models")
@_reporting
def export(
    run: RunFolder,
    select: Annotated[
        str, typer.Option(help="all, knee, a key, or a constraint such as 'latency <= 12'.")
    ] = "all",
    to: Annotated[
        Path | None, typer.Option(help="Folder that receives copies; else only the paths.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify selected subnets of a front again and copy them."""
    folders = [str(folder) for folder in hwsearch.Run(run).export(select, to)]
    print(json.dumps(folders) if as_json else "\n".join(folders))


@app.command(epilog="Example:  hwsearch verify runs/first")
@_reporting
def verify(run: RunFolder, as_json: AsJson = False) -> None:
    """Check every exported subnet of a run again, from its files alone."""
    results = hwsearch.Run(run).verify()
    if as_json:
        print(json.dumps(results))
    for key, problem in results.items() if not as_json else ():
        out.print(f"{key}  {problem or 'ok'}", markup=False, highlight=False, soft_wrap=True)
    failed = sum(problem is not None for problem in results.values())
    if failed:
        raise VerificationError(f"{failed} of {len(results)} subnets in {run} failed")
    if not as_json:
        out.print(f"{len(results)} subnets verified")


@app.command(epilog="Example:  hwsearch measure a.onnx b.onnx --device ort-cpu:threads=2")
@_reporting
def measure(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL.onnx...", help="ONNX files.")],
    device: Annotated[str, typer.Option(help="See 'hwsearch devices'.")] = "ort-cpu:threads=1",
    as_json: AsJson = False,
) -> None:
    """Time ONNX files against each other on a device."""
    for path in models:
        _check_model(path)
    result = hwsearch.measure(models, device=device)
    if as_json:
        print(result.to_json(orient="records"))
    else:
        table = Table("model", "latency ms", "95% interval", "p90", "p99", "rounds")
        for row in result.to_dict("records"):
            interval = f"{row['low']:.4g} to {row['high']:.4g}"
            figures = [f"{row[name]:.4g}" for name in ("latency_ms", "p90", "p99")]
            table.add_row(
                str(row["model"]), figures[0], interval, *figures[1:], f"{row['rounds']:.0f}"
            )
        out.print(table)
        for row in result.to_dict("records"):
            for text in filter(None, (row["warnings"], row["error"])):
                err.print(f"{row['model']}: {text}", markup=False, highlight=False)
    failed = [row for row in result.to_dict("records") if row["error"]]
    if failed:
        raise hwsearch.HwsearchError(f"{len(failed)} of {len(result)} models could not be timed")


def _check_model(path: Path) -> None:
    """Refuse a file that is no ONNX model before a runtime is started; one may be missing."""
    import onnx

    problem = ""
    try:
        if path.is_file() and not onnx.load(path, load_external_data=False).graph.node:
            problem = "it holds no graph"
    except Exception as error:  # noqa: BLE001 - protobuf's own error class has no types
        problem = str(error)
    if problem:
        raise hwsearch.InputError(
            f"{str(path)!r} is no ONNX model ({problem}); "
            "give one such as RUN/subnets/KEY/model.onnx"
        )


@app.command(epilog="Example:  hwsearch supernets --json")
@_reporting
def supernets(as_json: AsJson = False) -> None:
    """List the supernets that are installed and the checkpoints that were imported."""
    from hwsearch.supernets.imported import imported_rows
    from hwsearch.supernets.zoo import load_family

    families = [load_family(name) for name in hwsearch.supernet_names()]
    rows: list[dict[str, Any]] = [
        {"name": f.name, "summary": f.summary, "family": None, "source": None} for f in families
    ]
    rows += imported_rows()
    if as_json:
        print(json.dumps(rows))
    else:
        out.print(supernets_table(rows))


@app.command("import", epilog="Example:  hwsearch import weights.pth --as my-supernet")
@_reporting
def import_(
    checkpoint: Annotated[
        Path, typer.Argument(help="A state dict: .safetensors, or a torch file of tensors only.")
    ],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Name to load it by.")],
    supernet: Annotated[
        str | None, typer.Option(help="Its family; default: recognised by keys and shapes.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert a checkpoint to safetensors with a card, and remember it by name."""
    from hwsearch.supernets.checkpoints import bundled_file

    imported = hwsearch.import_checkpoint(checkpoint, name, supernet)
    if as_json:
        print(json.dumps({**asdict(imported), "folder": str(imported.folder)}))
        return
    how = "given" if supernet else "recognised"
    shipped = bundled_file(imported.family, "samples.npz").is_file()
    data = "" if shipped else " --data imagefolder:FOLDER"
    for title, text in (
        ("family", f"{imported.family} ({how}): {imported.description}"),
        ("tensors", f"{imported.tensors:,} with {imported.parameters:,} parameters"),
        ("written", str(imported.folder)),
        ("next", f"hwsearch search --supernet {name}{data} --out runs/{name}"),
    ):
        out.print(f"{title:8} {text}", markup=False, highlight=False, soft_wrap=True)


@app.command(epilog="Example:  hwsearch devices --json")
@_reporting
def devices(as_json: AsJson = False) -> None:
    """List the devices that are installed, their options, and which can be used here."""
    from hwsearch.devices import device_names, load_factory

    rows: list[dict[str, Any]] = []
    for name in device_names():
        factory = load_factory(name)
        options = {o.name: {"default": o.default, "help": o.help} for o in factory.options}
        rows.append({"name": name, "missing": factory.available(), "options": options})
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("device", "here", "options")
    for row in rows:
        lines = [f"{n}={o['default']}: {o['help']}" for n, o in row["options"].items()]
        table.add_row(row["name"], row["missing"] or "ready", "\n".join(lines))
    out.print(table)


def _print_run(run: "hwsearch.Run", as_json: bool) -> None:
    members = run.front
    if as_json:
        print(members.to_json(orient="records"))
        return
    names = [(o.name, o.unit) for o in run.objectives]
    out.print(front_table(members, names, run.select("knee")[0]))
    for warning in run.recorded.get("warnings", ()):
        out.print(f"note     {warning}", markup=False, highlight=False, soft_wrap=True)
    out.print(
        f"subnets  {run.folder}/subnets/KEY/model.onnx, card.json, infer.py", highlight=False
    )
    out.print(f"picture  {run.folder}/front.png", highlight=False)
    out.print(f"table    {run.folder}/front.csv", highlight=False)


def main() -> None:
    """Entry point of the ``hwsearch`` command."""
    app()
