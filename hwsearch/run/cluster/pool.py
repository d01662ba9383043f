"""A pool of processes on this machine."""

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Lock, Semaphore

from hwsearch.devices.frames import Header
from hwsearch.devices.worker_process import Child
from hwsearch.errors import DeviceError, HwsearchError
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.machine import thread_limit
from hwsearch.run.cluster.jobs import Findings, Work, read_findings, write_work
from hwsearch.run.cluster.worker_context import check_reply, settings_of
from hwsearch.run.setup import Setup

_MAIN = "hwsearch.run.cluster.child"
_WHO = "a worker process"
_START_S = 600.0  # a supernet, and the list of an image folder, may have to be read


class Pool:
    """Does work in processes that each load the supernet once; see `Executor`.

    A process that is lost takes no other's work with it, and another one takes its place.

    Args:
        setup: The parts of the search.
        size: How many processes there are.
    """

    whole = False

    def __init__(self, setup: Setup, size: int) -> None:
        self.size = size
        self._settings = settings_of(setup, threads=max(1, thread_limit() // size))
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="hwsearch-worker")
        self._free: SimpleQueue[_Seat] = SimpleQueue()
        self._seats = [_Seat(self._settings) for _ in range(size)]
        for seat in self._seats:
            self._free.put(seat)
        self._open: dict[Future[Findings], Work] = {}
        self._room = _Room(size)

    def submit(self, work: Work) -> None:
        """Take work; see `Executor.submit`."""
        self._open[self._threads.submit(self._do, work)] = work

    def next(self) -> tuple[Work, Findings]:
        """Wait for a piece of work to end; see `Executor.next`."""
        done, _ = wait(self._open, return_when=FIRST_COMPLETED)
        future = done.pop()
        return self._open.pop(future), future.result()

    def close(self) -> None:
        """End all processes; see `Executor.close`."""
        for future in self._open:
            future.cancel()
        self._open.clear()
        for seat in self._seats:
            seat.kill()
        self._threads.shutdown()
        for seat in self._seats:
            seat.close()

    def _do(self, work: Work) -> Findings:
        seat = self._free.get()
        try:
            with self._room.entered(alone=LATENCY in work.quantities):
                return seat.do(work)
        finally:
            self._free.put(seat)


class _Seat:
    """A place for one process at a time, which is started when there is work for it."""

    def __init__(self, settings: Header) -> None:
        self._settings = settings
        self._child: Child | None = None
        self._closed = False
        self._lock = Lock()

    def do(self, work: Work) -> Findings:
        """Do work; findings say where the process was lost.

        Raises:
            InputError: The process cannot do this search.
            HwsearchError: It does not start, or fails with what is no finding.
        """
        child = self._started()
        try:
            header, arrays = child.request(*write_work(work), timeout_s=None)
        except DeviceError as error:
            if child.lost:
                return Findings(lost=str(error))
            raise HwsearchError(f"a worker process failed: {error}") from error
        return read_findings(check_reply(header, _WHO), arrays)

    def kill(self) -> None:
        """End the process, also while it works, and start no other."""
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.kill()

    def close(self) -> None:
        """Free what a process that has ended left."""
        if self._child is not None:
            self._child.close()

    def _started(self) -> Child:
        with self._lock:
            if self._child is not None and self._child.lost:
                self._child.close()
                self._child = None
            if self._closed:
                raise HwsearchError("the pool of worker processes was closed")
            if self._child is None:
                try:
                    self._child = Child(_MAIN, self._settings, start_s=_START_S)
                except DeviceError as error:
                    raise HwsearchError(f"{_WHO} does not start: {error}") from error
                check_reply(self._child.about, _WHO)
            return self._child


class _Room:
    """Up to ``size`` may be in it together, or one alone; who comes first is let in first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._door, self._places = Lock(), Semaphore(size)

    @contextmanager
    def entered(self, *, alone: bool) -> Iterator[None]:
        """Wait at the door until there is room, and be in."""
        taken = self._size if alone else 1
        with self._door:
            for _ in range(taken):
                self._places.acquire()
        try:
            yield
        finally:
            self._places.release(taken)
