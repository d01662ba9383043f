"""Put this clone and its tests' plug-in on the import path, for tools that share code with tests.

A tool imports this module before anything of ``tests``.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "plugin")]
