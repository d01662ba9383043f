"""From candidates to a front: measurements of a run's kit replace predictions."""

from contextlib import closing
from pathlib import Path

from hwsearch.run.checksums import remove_checksums
from hwsearch.run.config import TRIALS
from hwsearch.run.finish import Finisher
from hwsearch.run.folder import Draw, RunFolder, draw_nothing
from hwsearch.run.lock import locked
from hwsearch.run.outcome import KIT, SUBNETS, write_outcome
from hwsearch.run.progress import Progress, Silent
from hwsearch.run.setup import check_same, prepare
from hwsearch.run.summarize import replay_optimizer, summarize_search
from hwsearch.run.timings import read_timings
from hwsearch.run.value_sources.registry import with_recorded_predictor
from hwsearch.supernets.supernet import Supernet
from hwsearch.trial_store import Store


def confirm(
    folder: str | Path,
    timings: str | Path,
    *,
    net: Supernet | None = None,
    progress: Progress | None = None,
    draw: Draw = draw_nothing,
) -> RunFolder:
    """Turn the candidates of a run into a front by the timings of its kit; can be repeated.

    Raises:
        InputError: The folder is no run; the timings are incomplete, changed, or of another kit,
            run or device; or supernet or data have changed. The run stays as it was.
        InfeasibleError: No measured candidate satisfies the constraints; the text names the
            closest.
    """
    run = RunFolder(folder)
    with locked(run.folder):
        return _confirmed(run, Path(timings), net, progress or Silent(), draw)


def _confirmed(
    run: RunFolder, timings: Path, net: Supernet | None, progress: Progress, draw: Draw
) -> RunFolder:
    read = read_timings(run.folder / KIT, timings)
    setup = with_recorded_predictor(
        prepare(run.config, net, directories=run.directories), run.folder, run.recorded
    )
    setup.read(progress)
    check_same(run.folder, run.recorded, setup.recorded())
    remove_checksums(run.folder)
    with Store(run.folder / TRIALS) as store, closing(setup.evaluator(store)) as evaluator:
        try:
            finisher = Finisher(setup, evaluator, run.folder / SUBNETS, progress)
            for key, reason in read.failed.items():
                progress.note(f"{key} leaves the candidates: {reason}")
            rows = finisher.confirm(read.remember(store), read.manifest)
            summary = summarize_search(replay_optimizer(setup, store), store, setup, rows)
        finally:
            setup.device.close()
    write_outcome(run.folder, rows, setup, summary)
    draw(run, setup)
    return run
