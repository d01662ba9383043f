"""Python code in a process of its own, forked from one in which the libraries are loaded.

Loading them takes longer than a short search. Tests of what a process loads, or of its first and
last moments, start Python itself.
"""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path
from subprocess import TimeoutExpired

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.preloaded"])


class Forked:
    """A running process, with what tests use of `subprocess.Popen`.

    Args:
        code: What it runs.
        args: What follows in its ``sys.argv``.
        cwd: Its working directory.
        env: Variables besides those of this process. Of those that Python reads when it begins,
            PYTHONIOENCODING alone is heeded.
    """

    def __init__(self, code, *args, cwd, **env):
        self._written = Path(tempfile.mkdtemp(prefix="forked-"))
        given = (code, ["-c", *map(str, args)], str(cwd), {**os.environ, **env}, self._written)
        self._process = _SERVER.Process(target=_run, args=given)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    poll = returncode.fget

    def send_signal(self, number):
        os.kill(self.pid, number)

    def communicate(self, timeout):
        """Wait for its end; return what it wrote to stdout and stderr."""
        self._process.join(timeout)
        if self.returncode is None:
            self._process.kill()
            raise TimeoutExpired("a forked process", timeout)
        return tuple((self._written / name).read_text() for name in ("stdout", "stderr"))


def _run(code, argv, cwd, env, written):
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    tempfile.tempdir = None  # as the variables say
    sys.argv = argv
    for descriptor, name in enumerate(("stdout", "stderr"), start=1):
        os.dup2(os.open(written / name, os.O_WRONLY | os.O_CREAT), descriptor)
        encoding = env.get("PYTHONIOENCODING", "utf-8")
        stream = open(descriptor, "w", encoding=encoding, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    exec(compile(code, "<forked>", "exec"), {"__name__": "__main__"})
