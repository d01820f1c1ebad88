"""How the correction is smoothed over time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlendOptions:
    """Options of ``TemporalBlender``; the defaults were chosen on real clips (docs/adr/0003)."""

    max_count: float = 5.0  # frames the history of a moving face may stand for; its weight is count / (count + 1)
    still_count: float = 12.0  # the same where nothing moves
    still_px: float = 0.25  # crop px per frame up to which a face stands still ...
    moving_px: float = 0.8  # ... and from which on it moves
    output_share: float = 0.75  # 0 smooths the correction alone, 1 the restored picture; 1 for a still face in any case
    noise_floor: float = 1.5  # 8-bit steps: a smaller disagreement of two frames is always taken for noise
    noise_cap: float = 4.0  # 8-bit steps: a larger typical disagreement is motion, never noise
    gate_open: float = 1.0  # multiples of the noise up to which the history keeps its whole weight
    gate_closed: float = 2.5  # multiples of the noise from which on it has none
    lag_open: float = 1.0  # 8-bit steps: a local mean of the history this far behind keeps its whole weight
    lag_closed: float = 2.5  # 8-bit steps: and this far behind has none
    max_missed: int = 3  # frames a track may be absent before its history is dropped
    max_gap_ms: float = 250.0  # a longer time since the track's last frame drops it too

    def __post_init__(self) -> None:
        if not 0 <= self.max_count <= self.still_count:
            raise ValueError(
                f"expected 0 <= max_count <= still_count, found {self.max_count!r} and {self.still_count!r}"
            )
        if not 0.0 <= self.output_share <= 1.0:
            raise ValueError(f"output_share is {self.output_share!r}, expected 0..1")
        if not 0.0 < self.noise_floor <= self.noise_cap:
            raise ValueError(f"expected 0 < noise_floor <= noise_cap, found {self.noise_floor!r}, {self.noise_cap!r}")
        for low, high in (("gate_open", "gate_closed"), ("lag_open", "lag_closed"), ("still_px", "moving_px")):
            if not 0.0 <= getattr(self, low) < getattr(self, high):
                found = f"{getattr(self, low)!r}, {getattr(self, high)!r}"
                raise ValueError(f"expected 0 <= {low} < {high}, found {found}")
        if self.max_missed < 0 or not self.max_gap_ms > 0:
            raise ValueError(f"expected max_missed >= 0 and max_gap_ms > 0, found {self.max_missed}, {self.max_gap_ms}")
