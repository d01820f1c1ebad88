"""WebRTC tracks that restore faces, for any aiortc application.

    from idm_rt import enhance_track

    @pc.on("track")
    def on_track(track):
        if track.kind == "video":
            pc.addTrack(enhance_track(track))

Needs the extra ``webrtc`` (aiortc).
"""

from __future__ import annotations

from idm_rt.webrtc.audio_track import DelayedAudioTrack
from idm_rt.webrtc.codecs import CodecOptions, apply_codec_options, with_start_bitrate
from idm_rt.webrtc.jitter import JitterOptions, MarkerJitterBuffer, use_marker_bit
from idm_rt.webrtc.video_track import EnhancedVideoTrack, enhance_track

__all__ = [
    "CodecOptions",
    "DelayedAudioTrack",
    "EnhancedVideoTrack",
    "JitterOptions",
    "MarkerJitterBuffer",
    "apply_codec_options",
    "enhance_track",
    "use_marker_bit",
    "with_start_bitrate",
]
