"""Commands about devices: measure, devices, devices check."""

from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
from rich.table import Table

import hwsearch
from hwsearch.cli.app import DeviceOption, answer, app, command, showing, sizes_of
from hwsearch.cli.completion import complete_device
from hwsearch.cli.output import tell
from hwsearch.terminal import figures

devices_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
app.add_typer(devices_app, name="devices")


@command(
    "hwsearch measure a.onnx b.onnx --device ort-cpu:threads=2",
    "hwsearch measure a.onnx --batch-sizes 1,4,16",
)
def measure(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL.onnx...", help="ONNX files.")],
    device: DeviceOption = "ort-cpu:threads=1",
    batch_sizes: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            parser=sizes_of,
            help="Batch sizes to time too, for the throughput at the best of them.",
        ),
    ] = None,
) -> None:
    """Time ONNX files against each other on a device."""
    for path in models:
        _check_model(path)
    sizes = cast("tuple[int, ...] | None", batch_sizes)
    rows = hwsearch.measure(models, device=device, batch_sizes=sizes).to_dict("records")
    table = Table("model", "latency ms", "95% interval", "p50", "p90", "p99", "rounds")
    for column in ("samples/s", "95% interval", "best batch") if sizes else ():
        table.add_column(column)
    for row in rows:
        interval = f"{row['low']:.4g} to {row['high']:.4g}"
        latency, *spread = [f"{row[name]:.4g}" for name in ("latency_ms", "p50", "p90", "p99")]
        told = [latency, interval, *spread, f"{row['rounds']:.0f}"]
        if sizes:
            throughput, low, high = (figures(row[f"throughput{end}"], 4) for end in _ENDS)
            told += [throughput, f"{low} to {high}", f"{row['best_batch']:.0f}"]
        table.add_row(str(row["model"]), *told)
    transfers = [
        f"{row['model']}: {row['device_ms']:.4g} ms on the device, {row['end_to_end_ms']:.4g} ms "
        f"end to end; the latency has transfers {row['transfers']}"
        for row in rows
        if row["transfers"]
    ]
    answer(rows, table, *transfers)
    for row in rows:
        for text in filter(None, (row["warnings"], row["error"])):
            tell(f"{row['model']}: {text}")
    failed = [row for row in rows if row["error"]]
    if failed:
        raise hwsearch.HwsearchError(f"{len(failed)} of {len(rows)} models could not be timed")


_ENDS = ("", "_low", "_high")


def _check_model(path: Path) -> None:
    """Refuse an existing file that is no ONNX model before a runtime is started."""
    from hwsearch.models.onnx_file import read_model

    problem = ""
    try:
        if path.is_file() and not read_model(path).graph.node:
            problem = "it holds no graph"
    except Exception as error:  # noqa: BLE001 - protobuf's own error class has no types
        problem = str(error)
    if problem:
        raise hwsearch.InputError(
            f"{str(path)!r} is no ONNX model ({problem}); "
            "give one such as RUN/subnets/KEY/model.onnx"
        )


@command(
    "hwsearch devices --json", "hwsearch devices check ort-cpu", register=devices_app.callback
)
def devices(context: typer.Context) -> None:
    """List the devices that are installed, their options, and which can be used here."""
    from hwsearch.devices import device_names, load_factory

    if context.invoked_subcommand is not None:
        return
    rows: list[dict[str, Any]] = []
    for name in device_names():
        factory = load_factory(name)
        options = {o.name: {"default": o.default, "help": o.help} for o in factory.options}
        row: dict[str, Any] = {"name": name, "missing": factory.available(), "options": options}
        rows.append({**row, "untested": factory.untested, "takes": factory.takes})
    table = Table("device", "here", "options")
    for row in rows:
        lines = [f"{n}={o['default']}: {o['help']}" for n, o in row["options"].items()]
        lines += filter(None, [row["takes"]])
        untested = "\nuntested on hardware" if row["untested"] else ""
        table.add_row(row["name"] + untested, row["missing"] or "ready", "\n".join(lines))
    answer(rows, table)


@command(
    "hwsearch devices check ort-cpu:threads=2 --pairs 200",
    "hwsearch devices check ssh:pi@board/ort-cpu:threads=4",
    register=devices_app.command,
)
def check(
    device: Annotated[
        str,
        typer.Argument(
            help="The device, such as ort-cpu:threads=1, or ssh:HOST/DEVICE.",
            autocompletion=complete_device,
        ),
    ],
    pairs: Annotated[int, typer.Option(help="Pairs measured in each condition.")] = 20,
    seed: Annotated[int, typer.Option(help="Draws the orders of turns.")] = 0,
) -> None:
    """Measure models against themselves: can latencies be trusted to 1% on the device's machine?

    Another machine is only measured as it is; this one beside a busy core, too.
    """
    from hwsearch.run.device_check import BUSY, CHECK, TOLERANCE, check_device

    with showing() as progress:
        found = check_device(device, pairs=pairs, seed=seed, progress=progress)
    rows: list[dict[str, Any]] = [
        {
            "condition": condition,
            "pairs": result.pairs,
            "agreed": result.agreed,
            "low": result.interval[0],
            "high": result.interval[1],
            "median": float(np.median(np.abs(result.differences))),
            "largest": float(np.abs(result.differences).max()),
            "held": result.held,
            "reached": result.reached,
        }
        for condition, result in found.items()
    ]
    table = Table(
        "",
        f"pairs within {TOLERANCE:.0%}",
        "95% interval",
        "median",
        "largest",
        "within intervals",
        f"measured to {CHECK.half_width:.1%}",
    )
    for row in rows:
        table.add_row(
            row["condition"],
            f"{row['agreed']} of {row['pairs']}",
            f"{row['low']:.1%} to {row['high']:.1%}",
            f"{row['median']:.2%}",
            f"{row['largest']:.2%}",
            f"{row['held']} of {row['pairs']}",
            f"{row['reached']} of {row['pairs']}",
        )
    answer(rows, table)
    if BUSY not in found:
        tell(f"{device} was only measured as it is: the busy core would be one of this machine")
