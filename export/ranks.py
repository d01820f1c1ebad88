"""Training on several GPUs with ``torchrun``: which process this is, and the mean of what each of them computed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, distributed


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this one writes the files and shows the progress."""
        return self.rank == 0

    def mean(self, tensors: Iterable[Tensor | None]) -> None:
        """Replace each tensor by its mean over the processes, in place; one message for all of them."""
        present = [tensor for tensor in tensors if tensor is not None]
        if self.count == 1 or not present:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in present])
        distributed.all_reduce(flat)
        flat /= self.count
        for tensor, piece in zip(present, flat.split([tensor.numel() for tensor in present]), strict=True):
            tensor.copy_(piece.view_as(tensor))

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            distributed.barrier()

    def close(self) -> None:
        """Leave the group."""
        if self.count > 1:
            distributed.destroy_process_group()


def join_ranks(device: str = "auto") -> Ranks:
    """Read what ``torchrun`` set; without it this process is alone.

    Args:
        device: "cpu", "cuda" or "auto" (a CUDA GPU if there is one).
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    wants_cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if wants_cuda else torch.device("cpu")
    if wants_cuda:
        torch.cuda.set_device(place)
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if count > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if wants_cuda else "gloo")
    return Ranks(int(os.environ.get("RANK", "0")), count, place)
