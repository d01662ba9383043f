"""Commands about runs: search, resume, front, export, verify."""

import json
from pathlib import Path
from typing import Annotated

import typer

import hwsearch
from hwsearch.cli.app import AsJson, RunFolder, app, err, out, reporting
from hwsearch.errors import InputError, VerificationError
from hwsearch.optimizer import tactic_names
from hwsearch.terminal import TerminalProgress, front_table


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
    tactic: Annotated[
        str, typer.Option(help=f"How architectures are proposed: {_known_tactics()}.")
    ] = "hwsearch",
    seed: Annotated[int, typer.Option(help="Decides every random draw.")] = 0,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="New folder; default: runs/SUPERNET-DEVICE.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search a supernet for one device, and export the confirmed front as verified ONNX.

    By --device kit:TABLE.json it ends with candidates, and with a kit that times them.
    """
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
    print_run(run, as_json)


@app.command(epilog="Example:  hwsearch resume runs/first --budget 200")
@reporting
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
    print(json.dumps(folders) if as_json else "\n".join(folders))


@app.command(epilog="Example:  hwsearch verify runs/first")
@reporting
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


def print_run(run: "hwsearch.Run", as_json: bool) -> None:
    """Show the front of a finished run, or print it as JSON."""
    members = run.members
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
    name = "front.csv" if run.confirmed else "candidates.csv"
    out.print(f"table    {run.folder}/{name}", highlight=False)
    if not run.confirmed:
        for line in (
            f"kit      {run.folder}/kit.pyz times these candidates: ~ marks what is predicted",
            "next     there:  python kit.pyz --out timings.json",
            f"         here:   hwsearch confirm {run.folder} timings.json",
        ):
            out.print(line, markup=False, highlight=False, soft_wrap=True)
