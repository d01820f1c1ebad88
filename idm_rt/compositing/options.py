"""What of a correction is shown, and where."""

from __future__ import annotations

from dataclasses import dataclass

_SHARP = ("sharp_oversampling", "sharp_detail")


@dataclass(frozen=True, slots=True)
class CompositeOptions:
    """Options of ``composite`` and ``face_confidence``. A pair is (from, to) of a smooth step."""

    min_face_px: float = 40.0  # faces whose larger box side is smaller stay as they are; full effect from 1.5 times
    yaw_fade_deg: tuple[float, float] = (45.0, 65.0)  # full effect below the first, none above the second
    pitch_fade_deg: tuple[float, float] = (35.0, 55.0)
    score_fade: tuple[float, float] = (0.4, 0.7)  # none below the first, full effect above the second
    inside_fade: tuple[float, float] = (0.4, 0.7)  # the same for the share of landmarks inside the frame
    fade_in_frames: int = 4  # frames until a new track has its full effect; 0 for unrelated pictures
    forehead: float = 0.10  # the face oval is raised by this share of its height, towards the hair line
    feather: float = 0.05  # width of the soft edge, as a share of the crop's side (standard deviation)
    tone_sigma: float = 0.18  # share of the crop's side: what is broader than this in a correction is tone
    tone_share: float = 1.0  # how much of the tone is taken out, 0..1
    evidence_gain: float = 1.5  # a correction may reach this many times the crop's local contrast ...
    evidence_floor: float = 1.0  # ... plus these 8-bit steps
    sharp_oversampling: tuple[float, float] = (1.0, 1.5)  # frame px per crop px from which sharp faces are left alone
    sharp_detail: tuple[float, float] = (0.08, 0.16)  # full effect below the first, none above the second

    def __post_init__(self) -> None:
        for name in ("yaw_fade_deg", "pitch_fade_deg", "score_fade", "inside_fade", *_SHARP):
            low, high = getattr(self, name)
            if not low < high:
                raise ValueError(f"{name} is {(low, high)!r}, expected the first number below the second")
        if self.min_face_px < 0 or self.fade_in_frames < 0:
            raise ValueError(f"expected 0 or more, found {self.min_face_px!r} px and {self.fade_in_frames!r} frames")
        if not 0.0 <= self.forehead <= 0.5 or not 0.0 < self.feather <= 0.2:
            raise ValueError(f"expected forehead 0..0.5, feather 0..0.2, found {self.forehead!r}, {self.feather!r}")
        if not 0.0 < self.tone_sigma <= 1.0 or not 0.0 <= self.tone_share <= 1.0:
            raise ValueError(f"expected tone_sigma, tone_share 0..1, found {self.tone_sigma!r}, {self.tone_share!r}")
        if self.evidence_gain < 0 or self.evidence_floor < 0:
            raise ValueError(
                f"expected an evidence of 0 or more, found {self.evidence_gain!r}, {self.evidence_floor!r}"
            )
