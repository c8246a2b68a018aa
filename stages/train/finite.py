"""Whether losses and gradients are numbers, asked without making the CPU wait for the GPU."""

from collections import deque
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Noted:
    """A number on its way to the CPU. arrived: the GPU's event after which it is there."""

    name: str
    step: int
    rows: list[int]
    value: torch.Tensor
    arrived: torch.cuda.Event | None


class FiniteChecks:
    """Notes numbers as they are computed and looks at them later, when a GPU has long gone on."""

    def __init__(self):
        self.noted: deque[Noted] = deque()

    def note(self, name: str, value: torch.Tensor, step: int, rows: list[int]) -> None:
        """value: a tensor of one number, of an optimizer step and the rows that it is made of."""
        here = value.detach().to("cpu", non_blocking=True)
        arrived = torch.cuda.current_stream().record_event() if value.device.type == "cuda" else None
        self.noted.append(Noted(name, step, rows, here, arrived))

    def first_bad(self, up_to_step: int) -> Noted | None:
        """The first that is no number, of those noted in steps up to that one, which it waits for and drops."""
        while self.noted and self.noted[0].step <= up_to_step:
            noted = self.noted.popleft()
            if noted.arrived is not None:
                noted.arrived.synchronize()
            if not torch.isfinite(noted.value).all():
                return noted
        return None
