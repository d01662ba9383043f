"""Commands about latency tables and kits: profile, kit, confirm."""

from pathlib import Path
from typing import Annotated

import typer

import hwsearch
from hwsearch.cli.app import DeviceOption, RunArgument, answer, command, showing
from hwsearch.cli.completion import complete_supernet
from hwsearch.cli.runs import print_run

_SupernetName = Annotated[
    str,
    typer.Argument(
        help="A name from 'hwsearch supernets', or MODULE:FUNCTION.",
        autocompletion=complete_supernet,
    ),
]
_Restriction = Annotated[
    list[str] | None,
    typer.Option(help="Repeat it; as for 'hwsearch search': only a part of the space."),
]


@command("hwsearch profile cifar10-resnet --device ort-cpu:threads=2")
def profile(
    supernet: _SupernetName,
    device: DeviceOption = "ort-cpu:threads=1",
    checkpoint: Annotated[
        str | None, typer.Option(help="Weights; latency does not depend on them.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of blocks, as in a search: 'fp32,int8:per-block' adds boundaries between them."
        ),
    ] = None,
    freeze: _Restriction = None,
    only: _Restriction = None,
    subnets: Annotated[
        int | None,
        typer.Option(help="Subnets to measure blocks in; default: each block spec in three."),
    ] = None,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Default: among the user's latency tables.")
    ] = None,
) -> None:
    """Measure every block of a supernet on a device: a latency table."""
    from hwsearch.data import user_data
    from hwsearch.devices import load_device, mixed_spec
    from hwsearch.kit.build import load_for_latency
    from hwsearch.precision import PrecisionSetting
    from hwsearch.run.profile import deviation, make_table
    from hwsearch.tables import FOLDER, file_name

    net = load_for_latency(supernet, checkpoint)
    if precision is not None:
        setting = PrecisionSetting.parse(precision)
        device = mixed_spec(device, setting.options)
        net = net.with_precision(*setting.options, per=setting.per)
    net = net.restrict(freeze or (), only or ())
    chosen = load_device(device)
    path = out_file or user_data() / FOLDER / file_name(net.family, chosen.slug)
    try:
        with showing() as progress:
            table = make_table(net, chosen, path, subnets=subnets, progress=progress)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("go on with: the same command") from stop
    finally:
        chosen.close()
    found = deviation(table, net)
    lines = [f"table    {path}: {len(table.blocks)} block specs by {table.facts['method']}"]
    if found is not None:
        lines.append(f"checked  sums of its blocks are {found} that it was not made from")
    answer({"table": str(path), "specs": len(table.blocks), **table.facts}, *lines)


@command("hwsearch kit ofa-mbv3-w1.0 --out kit.pyz")
def kit(
    supernet: _SupernetName = "cifar10-resnet",
    out_file: Annotated[
        Path, typer.Option("--out", help="The file; it runs with Python, numpy and onnxruntime.")
    ] = Path("kit.pyz"),
    subnets: Annotated[int, typer.Option(help="How many subnets it measures.")] = 40,
    freeze: _Restriction = None,
    only: _Restriction = None,
    precision: Annotated[
        str,
        typer.Option(
            help="Of its models, as the device takes them: fp32, fp16 or int8, or a choice as in "
            "a search, such as 'fp32,int8:per-block'."
        ),
    ] = "fp32",
    processor: Annotated[
        str | None,
        typer.Option(
            help="The device's, x86_64 or aarch64, for int8; default: as this machine's."
        ),
    ] = None,
) -> None:
    """Make one file that measures a supernet's subnets on a machine without hwsearch."""
    from hwsearch.kit.manifest import EXAMPLES
    from hwsearch.quantization import MIXED

    with showing() as progress:
        progress.phase("models", subnets)
        made = hwsearch.make_kit(
            supernet,
            out_file,
            subnets=subnets,
            freeze=freeze or (),
            only=only or (),
            precision=precision,
            processor=processor,
            built=lambda _: progress.advance(),
        )
    size = out_file.stat().st_size
    chosen = f" --precision '{precision}'" if made.precision == MIXED else ""
    devices, there = ", ".join(made.devices), EXAMPLES[made.precision]
    answer(
        {"file": str(out_file), "bytes": size, "digest": made.digest},
        f"kit      {out_file}: {len(made.models)} subnets with {len(made.specs)} block specs, "
        f"{size / 1e6:.1f} MB",
        f"next     there:  python {out_file.name} --device {there} --out table.json",
        f"         here:   hwsearch search --device kit:table.json{chosen}",
        f"devices  {devices}; it needs Python 3.10 or later, numpy and the device's runtime",
    )


@command("hwsearch confirm runs/phone timings.json")
def confirm(
    run: RunArgument,
    timings: Annotated[
        Path, typer.Argument(metavar="TIMINGS.json", help="What the run's kit wrote.")
    ],
) -> None:
    """Turn the candidates of a run into a front by what its kit measured."""
    with showing() as progress:
        confirmed = hwsearch.confirm(run, timings, progress=progress)
    print_run(confirmed)
