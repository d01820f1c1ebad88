"""torch: the reference in f32 on the CPU, and fp16 in channels_last order with CUDA graphs on a GPU.

Never chosen by ``auto`` on the CPU: it loses far more speed than the other engines when another process needs a core.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from idm_rt.backends.base import Backend, DeviceSampler, check_batch, not_finite, open_failure, run_failure
from idm_rt.backends.device_clock import DeviceClock
from idm_rt.backends.torch_sampler import Capture, TorchSampler, capture_cuda_graph, cuda_clock
from idm_rt.errors import EngineError
from idm_rt.model_manifest import ModelManifest
from idm_rt.network import DenoiserNet, load_denoiser

_DTYPES = {"f32": torch.float32, "fp16": torch.float16}


class TorchBackend(Backend):
    """A ``DenoiserNet`` in evaluation mode. ``denoise`` also takes tensors and then returns one, on its device."""

    name = "torch"

    def __init__(
        self,
        net: DenoiserNet,
        size: int,
        threads: int | None = None,
        precision: str | None = None,
        device: str | None = None,
        capture: Capture | None = None,
    ) -> None:
        """Move the network to the device.

        Args:
            net: the network, f32; it is converted in place.
            size: side of the crop in px.
            threads: CPU threads of the whole process's torch; None = leave as it is.
            precision: "f32" or "fp16"; None = fp16 on CUDA, f32 on the CPU.
            device: "cpu" or "cuda:0"; None = CUDA when there is one.
            capture: how all steps are recorded; None = as a CUDA graph on CUDA, not at all on the CPU.

        Raises:
            EngineError: another precision, or the device is not there or full.
        """
        self.size = size
        self.device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
        self.precision = precision or ("f32" if self.device == "cpu" else "fp16")
        self.precision_reason = "the reference" if self.precision == "f32" else "twice as fast as f32 on a GPU"
        if self.precision not in _DTYPES:
            raise EngineError(f"engine torch has no precision {precision!r}; choose one of {', '.join(_DTYPES)}")
        if threads is not None:
            torch.set_num_threads(threads)
        self._dtype = _DTYPES[self.precision]
        try:
            self._net: DenoiserNet | None = net.eval().to(self.device, self._dtype)
        except RuntimeError as error:
            raise open_failure(self.name, error) from error
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]  # missing in torch's annotations
        on_gpu = self.device != "cpu"
        capture = capture or (capture_cuda_graph if on_gpu else None)
        self._sampler: TorchSampler | None = None
        if capture is not None:
            self._sampler = TorchSampler(self._step, self._dtype, self.device, capture)
        net.time.float()  # the time embedding stays f32: it costs nothing and fp16 would lose a factor of five

    @torch.inference_mode()
    def denoise(self, x_t: Any, y: Any, t: float) -> Any:
        check_batch(x_t, y, self.size)
        if self._net is None:
            raise ValueError("the backend is closed")
        if len(y) == 0:  # torch's pixel_unshuffle does not fold an empty batch
            return y.clone() if isinstance(y, torch.Tensor) else np.empty_like(y)
        try:
            time = torch.full((len(y),), t, dtype=torch.float32, device=self.device)
            x0 = self._net(self._tensor(x_t), self._tensor(y), time)
            if isinstance(y, torch.Tensor):
                return x0
            return np.ascontiguousarray(x0.float().cpu().numpy())
        except RuntimeError as error:  # CUDA out of memory is one
            raise run_failure(self, error) from error

    def _step(self, x_t: torch.Tensor, y: torch.Tensor, t: float) -> torch.Tensor:
        """One evaluation on tensors that lie on the device; without a copy or a wait, so it can be captured."""
        assert self._net is not None
        time = torch.full((len(y),), t, dtype=torch.float32, device=self.device)
        return self._net(x_t, y, time)

    def on_device(self, steps: int) -> DeviceSampler | None:
        return self if self._sampler is not None else None

    def device_clock(self) -> DeviceClock | None:
        if self._sampler is None or self.device == "cpu":
            return None
        self._sampler.clock = self._sampler.clock or cuda_clock("copy to the GPU and all steps")
        return self._sampler.clock

    def correction(self, crops: Any, eps: NDArray[np.float32], steps: int) -> Any:
        """See ``DeviceSampler.correction``."""
        if self._net is None or self._sampler is None:
            raise ValueError("the backend is closed")
        try:
            result, finite = self._sampler.correction(crops, eps, steps)
        except RuntimeError as error:
            raise run_failure(self, error) from error
        if not finite:
            raise not_finite(self)
        return result

    def _tensor(self, values: Any) -> torch.Tensor:
        tensor = values if isinstance(values, torch.Tensor) else torch.from_numpy(np.asarray(values, np.float32))
        return tensor.to(self.device, self._dtype, memory_format=torch.channels_last)

    def close(self) -> None:
        if self._sampler is not None:
            self._sampler.close()
        self._net = None


def open_model(manifest: ModelManifest, threads: int | None = None, precision: str | None = None) -> Backend:
    """Open a shipped model; see ``TorchBackend``."""
    net = load_denoiser(manifest.verified_file("weights"), manifest.network)
    return TorchBackend(net, manifest.crop_size, threads, precision)
