"""Put the root of this clone on the import path, for tools that share code with the tests.

A tool imports this module before anything of ``tests``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
