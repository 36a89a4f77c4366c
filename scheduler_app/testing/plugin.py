"""Everything as a fixture for pytest. In conftest.py:

    pytest_plugins = ["scheduler_app.testing.plugin"]

    @pytest.fixture(scope="session")
    def backbeat_operations():
        return ("examples.shop_operations",)

In a test:

    def test_invoices(backbeat):
        task = backbeat.run("shop.invoices", {"totals": {"17": "0.30"}})
        assert task["result"] == {"written": 1}
"""

from collections.abc import Iterator

import pytest

from scheduler_app.testing.everything import Backbeat, everything


@pytest.fixture(scope="session")
def backbeat_operations() -> tuple[str, ...]:
    """The modules with one's own operations. Define a fixture of this name to name them."""
    return ()


@pytest.fixture(scope="session")
def backbeat(backbeat_operations: tuple[str, ...]) -> Iterator[Backbeat]:
    """Everything, once for all tests: web, worker and scheduler, on SQLite and a Valkey of their own."""
    with everything(*backbeat_operations) as backbeat:
        yield backbeat
