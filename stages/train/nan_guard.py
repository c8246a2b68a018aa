"""Whether losses and gradients are numbers, asked without making the CPU wait for the GPU."""

from collections import deque
from dataclasses import dataclass

import torch

from stages.model.device import Arriving


@dataclass(frozen=True)
class Noted:
    name: str
    step: int
    rows: list[int]
    value: Arriving


class FiniteChecks:
    """Notes numbers as they are computed and looks at them later, when a GPU has long gone on."""

    def __init__(self):
        self.noted: deque[Noted] = deque()

    def note(self, name: str, value: torch.Tensor, step: int, rows: list[int]) -> None:
        """value: a tensor of one number, of an optimizer step and the rows that it is made of."""
        self.noted.append(Noted(name, step, rows, Arriving.sent(value)))

    def first_bad(self, up_to_step: int) -> Noted | None:
        """The first that is no number, of those noted in steps up to that one, which it waits for and drops."""
        while self.noted and self.noted[0].step <= up_to_step:
            noted = self.noted.popleft()
            if not torch.isfinite(noted.value.read()).all():
                return noted
        return None
