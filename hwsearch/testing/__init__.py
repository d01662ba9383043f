"""Contract checks of supernet families and tactics, for those of other packages too.

``check_supernet(MyFamily().tiny())`` runs all of them and says everything that is wrong at once.
In a test suite they can be cases of their own; no particular test runner is needed::

    import pytest
    from hwsearch.testing import CHECKS, Examined

    SUBJECT = Examined(MyFamily().tiny())

    @pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
    def test_my_family(check):
        check(SUBJECT)

A check that does not apply raises ``unittest.SkipTest``, which pytest takes for a skip.

``check_tactic(TACTIC)`` does the same for a tactic: a way to decide what a search evaluates next.
"""

from hwsearch.errors import ContractError
from hwsearch.testing.family_checks import CHECKS, Check, check_supernet
from hwsearch.testing.subject import Examined
from hwsearch.testing.tactic_checks import TACTIC_CHECKS, check_tactic

__all__ = [
    "check_supernet",
    "check_tactic",
    "CHECKS",
    "TACTIC_CHECKS",
    "Check",
    "ContractError",
    "Examined",
]
