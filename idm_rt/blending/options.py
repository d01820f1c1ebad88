"""How the correction is smoothed over time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlendOptions:
    """Options of ``TemporalBlender``; the defaults were chosen on real clips (docs/adr/0003)."""

    max_count: float = 3.0  # frames the history may stand for; its weight is count / (count + 1), here <= 0.75
    output_share: float = 0.5  # 0 smooths the correction alone, 1 the restored picture (codec noise included)
    noise_floor: float = 1.5  # 8-bit steps: a smaller disagreement of two frames is always taken for noise
    noise_cap: float = 4.0  # 8-bit steps: a larger typical disagreement is motion, never noise
    gate_open: float = 1.0  # multiples of the noise up to which the history keeps its whole weight
    gate_closed: float = 3.0  # multiples of the noise from which on it has none
    max_missed: int = 3  # frames a track may be absent before its history is dropped
    max_gap_ms: float = 250.0  # a longer time since the track's last frame drops it too

    def __post_init__(self) -> None:
        if not self.max_count >= 0:
            raise ValueError(f"max_count is {self.max_count!r}, expected 0 or more")
        if not 0.0 <= self.output_share <= 1.0:
            raise ValueError(f"output_share is {self.output_share!r}, expected 0..1")
        if not 0.0 < self.noise_floor <= self.noise_cap:
            raise ValueError(f"expected 0 < noise_floor <= noise_cap, found {self.noise_floor!r}, {self.noise_cap!r}")
        if not 0.0 <= self.gate_open < self.gate_closed:
            raise ValueError(f"expected 0 <= gate_open < gate_closed, found {self.gate_open!r}, {self.gate_closed!r}")
        if self.max_missed < 0 or not self.max_gap_ms > 0:
            raise ValueError(f"expected max_missed >= 0 and max_gap_ms > 0, found {self.max_missed}, {self.max_gap_ms}")
