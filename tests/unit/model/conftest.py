"""Every method."""

import pytest

from tests.conftest import METHODS


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]
