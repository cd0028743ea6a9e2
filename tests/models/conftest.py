"""One thread: a second one makes small models slower, and on a busy machine hundreds of times slower."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")  # before what a module makes once
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
