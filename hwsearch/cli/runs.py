"""Commands about runs: search, resume, front, export, verify."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import hwsearch
from hwsearch.accuracy.task import NO_DATA
from hwsearch.cli.app import AsJson, RunFolder, answer, app, reporting, showing
from hwsearch.cli.completion import (
    complete_device,
    complete_objective,
    complete_run,
    complete_supernet,
    complete_tactic,
)
from hwsearch.cli.output import out, say
from hwsearch.cli.settings import ConfigFile, chosen_settings
from hwsearch.errors import InputError, VerificationError
from hwsearch.optimizer import tactic_names
from hwsearch.quantities import quantity_names
from hwsearch.run.config import REPORT, RunConfig
from hwsearch.run.disk_usage import size_of
from hwsearch.terminal import front_table, size_text, summary_lines

DEFAULTS = RunConfig()

Minutes = Annotated[
    float | None, typer.Option(help="End the search after so many, in all; export comes after.")
]
StopGain = Annotated[
    float | None,
    typer.Option(help="End it when 50 more are expected to add less; % of the hypervolume."),
]

Workers = Annotated[
    str | None,
    typer.Option(
        metavar="ray",
        help="Evaluate on the nodes of a Ray cluster; default: in this process.",
    ),
]

if TYPE_CHECKING:
    import pandas as pd


def _known_tactics() -> str:
    """Registered names for the help; where two packages clash, a search says so."""
    try:
        return ", ".join(tactic_names())
    except InputError:
        return "a registered name"


@app.command(
    epilog="Examples:  hwsearch search --out runs/first    "
    "hwsearch search --device ort-cpu:threads=2 --constraint 'latency <= 1' --budget 100"
)
@reporting
def search(
    config: ConfigFile = None,
    supernet: Annotated[
        str | None,
        typer.Option(
            help="A name from 'hwsearch supernets', or MODULE:FUNCTION; "
            f"default: {DEFAULTS.supernet}.",
            autocompletion=complete_supernet,
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="Weights: a file (FILE#ema or FILE#raw where it has both) or random:SEED; "
            "else what ships."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help=f"Where latency counts; see 'hwsearch devices'; default: {DEFAULTS.device}.",
            autocompletion=complete_device,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="bundled, none (accuracy is predicted), cifar10:FOLDER, imagefolder:FOLDER, "
            f"npz:FILE or MODULE:FUNCTION; default: {DEFAULTS.data}.",
        ),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            help="Repeat it; default: the data's metric and latency. "
            f"Known: {', '.join(quantity_names())}.",
            autocompletion=complete_objective,
        ),
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
    budget: Annotated[
        int | None,
        typer.Option(help="How many architectures to evaluate; default: 40, or what is reused."),
    ] = None,
    minutes: Minutes = None,
    stop_gain: StopGain = None,
    tactic: Annotated[
        str | None,
        typer.Option(
            help=f"How architectures are proposed: {_known_tactics()}; "
            f"default: {DEFAULTS.tactic}.",
            autocompletion=complete_tactic,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(help="Architectures proposed at a time; default: what suits the tactic."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help=f"Decides every random draw; default: {DEFAULTS.seed}."),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            help="on or off: whether a shipped predictor of accuracy may choose; "
            f"default: {DEFAULTS.prior}."
        ),
    ] = None,
    warm_start: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|FILE.csv",
            help="An earlier run, whose accuracies are not measured again, or a table to predict "
            "from.",
            autocompletion=complete_run,
        ),
    ] = None,
    workers: Workers = None,
    out_folder: Annotated[
        str | None, typer.Option("--out", help="New folder; default: runs/SUPERNET-DEVICE.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search a supernet for one device, and export the confirmed front as verified ONNX.

    By --device kit:TABLE.json it ends with candidates, and with a kit that times them; by --data
    none with candidates whose accuracy is predicted.
    """
    given = {
        "supernet": supernet,
        "checkpoint": checkpoint,
        "device": device,
        "data": data,
        "objectives": objective or None,
        "constraints": constraint or None,
        "freeze": freeze or None,
        "only": only or None,
        "budget": budget,
        "minutes": minutes,
        "stop_gain": stop_gain,
        "tactic": tactic,
        "batch": batch,
        "seed": seed,
        "prior": prior,
        "warm_start": warm_start,
        "out": out_folder,
        "workers": workers,
    }
    settings, where_from = chosen_settings(config, given)
    with showing() as progress:
        if where_from:
            progress.note(where_from)
        net = settings.pop("supernet", DEFAULTS.supernet)
        run = hwsearch.search(net, **settings, progress=progress)
    print_run(run, as_json)


@app.command(epilog="Example:  hwsearch resume runs/first --budget 200")
@reporting
def resume(
    run: RunFolder,
    budget: Annotated[
        int | None, typer.Option(help="A new budget in all; default: the run's.")
    ] = None,
    minutes: Minutes = None,
    stop_gain: StopGain = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a run that was stopped, or give a finished one a larger budget."""
    with showing() as progress:
        finished = hwsearch.resume(
            run,
            budget=budget,
            minutes=minutes,
            stop_gain=stop_gain,
            workers=workers,
            progress=progress,
        )
    print_run(finished, as_json)


@app.command(epilog="Example:  hwsearch front runs/first --json")
@reporting
def front(run: RunFolder, as_json: AsJson = False) -> None:
    """Show the front of a finished run, or its candidates."""
    print_run(hwsearch.Run(run), as_json)


@app.command(epilog="Example:  hwsearch export runs/first --select 'latency <= 1' --to models")
@reporting
def export(
    run: RunFolder,
    select: Annotated[
        str,
        typer.Option(
            help="all, knee, a key, a constraint such as 'latency <= 12', or, with how sure it "
            "has to be, 'latency <= 12 @ 95%': the best that is."
        ),
    ] = "all",
    to: Annotated[
        Path | None, typer.Option(help="Folder that receives copies; else only the paths.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify selected subnets of a front again and copy them."""
    folders = [str(folder) for folder in hwsearch.Run(run).export(select, to)]
    answer(folders) if as_json else say(*folders)


@app.command(epilog="Example:  hwsearch verify runs/first")
@reporting
def verify(run: RunFolder, as_json: AsJson = False) -> None:
    """Check every exported subnet of a run again, from its files alone, and all files' digests."""
    results = hwsearch.Run(run).verify()
    if as_json:
        answer(results)
    for key, problem in results.items() if not as_json else ():
        say(f"{key}  {problem or 'ok'}")
    failed = sum(problem is not None for problem in results.values())
    if failed:
        raise VerificationError(f"{failed} of {len(results)} checks of {run} failed")
    if not as_json:
        say(f"{len(results)} subnets verified")


def print_run(run: "hwsearch.Run", as_json: bool) -> None:
    """Show the front of a finished run, or print it as JSON."""
    members = run.members
    if as_json:
        answer(json.loads(members.to_json(orient="records")))
        return
    names = [(o.name, o.unit) for o in run.objectives]
    out.print(front_table(members, names, run.select("knee")[0]))
    for warning in run.recorded.get("warnings", ()):
        say(f"note     {warning}")
    summary = run.summary
    for line in summary_lines(summary) if summary is not None else ():
        say(line)
    files = "card.json" if run.config.data == NO_DATA else "model.onnx, card.json, infer.py"
    say(f"subnets  {run.folder}/subnets/KEY/{files}")
    if (run.folder / REPORT).is_file():
        say(f"report   {run.folder}/{REPORT}")
    pictures = "front.png" if summary is None else "front.png, search.png"
    say(f"picture  {run.folder}/{pictures}")
    if summary is not None:
        say(f"summary  {run.folder}/search.json")
    name = "front.csv" if run.confirmed else "candidates.csv"
    say(f"table    {run.folder}/{name}")
    say(f"disk     {size_text(size_of(run.folder))} in {run.folder}")
    for line in _next_steps(run, members):
        say(line)


def _next_steps(run: "hwsearch.Run", members: "pd.DataFrame") -> list[str]:
    """What makes a front of candidates: ~ marks what is predicted of them."""
    lines = []
    if "latency_source" in members:
        lines += [
            f"kit      {run.folder}/kit.pyz times these candidates: ~ marks what is predicted",
            "next     there:  python kit.pyz --out timings.json",
            f"         here:   hwsearch confirm {run.folder} timings.json",
        ]
    if run.config.data == NO_DATA:
        lines += [
            "models   none: batch statistics, and the check of a model, need images; ~ marks what "
            "is predicted",
            f"next     with images:  {run.with_images}",
        ]
    return lines
