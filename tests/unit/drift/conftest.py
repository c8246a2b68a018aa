import pytest

from tests.unit.drift.made import make_reference


@pytest.fixture(scope="package")
def reference():
    return make_reference()
