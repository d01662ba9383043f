"""What a supernet family owes, as checks that anyone can run on a family of their own.

``check_supernet(MyFamily().tiny())`` runs all of them and says everything that is wrong at once.
In a test suite they can be cases of their own; no particular test runner is needed::

    import pytest
    from hwsearch.testing import CHECKS, Examined

    SUBJECT = Examined(MyFamily().tiny())

    @pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
    def test_my_family(check):
        check(SUBJECT)

A check that does not apply raises ``unittest.SkipTest``, which pytest takes for a skip.
"""

from hwsearch.errors import ContractError
from hwsearch.testing.contract import CHECKS, Check, check_supernet
from hwsearch.testing.examined import Examined

__all__ = ["check_supernet", "CHECKS", "Check", "ContractError", "Examined"]
