"""Contract checks of supernet families and tactics, also for other packages.

``check_supernet(MyFamily().tiny())`` runs all of them and reports every failure at once;
``check_tactic(TACTIC)`` does the same for a tactic. In a test suite each check can be a test of
its own; no particular test runner is needed::

    import pytest
    from hwsearch.testing import CHECKS, Examined

    SUBJECT = Examined(MyFamily().tiny())

    @pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
    def test_my_family(check):
        check(SUBJECT)

A network that writes the ONNX models of its subnets itself is checked by ``ONNX_CHECKS``. A check
that does not apply raises ``unittest.SkipTest``, which pytest takes for a skip.
"""

from hwsearch.errors import ContractError
from hwsearch.testing.contracts import (
    CHECKS,
    ONNX_CHECKS,
    TACTIC_CHECKS,
    Check,
    check_supernet,
    check_tactic,
)
from hwsearch.testing.subject import Examined

__all__ = [
    "check_supernet",
    "check_tactic",
    "CHECKS",
    "ONNX_CHECKS",
    "TACTIC_CHECKS",
    "Check",
    "ContractError",
    "Examined",
]
