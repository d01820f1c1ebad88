"""Copy the sound of one file into another, packet by packet and undecoded."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import av
from av.audio.stream import AudioStream

from idm_rt.errors import MediaError
from idm_rt.media.video_reader import open_container

_LOG = logging.getLogger(__name__)


class AudioCopy:
    """Feeds the audio packets of ``source`` into an output that is being written, in step with its video.

    It reads ``source`` through its own handle, so that the reader of the video need not know about sound.

    Args:
        from_zero: for containers without negative times (Matroska), where FFmpeg would delay sound and picture alike
            to make room for a decoder's priming samples. Packets that end before time 0 are never heard and are left
            out instead; one that reaches over 0 is moved to it, by less than its own length.

    Raises:
        MediaError: the output container cannot hold this audio codec.
    """

    def __init__(self, source: Path, output: av.container.OutputContainer, suffix: str, from_zero: bool) -> None:
        self._source = source
        self._output = output
        self._input = open_container(source)
        try:
            self._streams = {s.index: self._add(s, suffix) for s in self._input.streams.audio if s.codec_context}
        except BaseException:
            self._input.close()
            raise
        self._packets = (p for p in self._read() if not from_zero or _moved_to_zero(p))
        self._waiting = next(self._packets, None)

    def _add(self, stream: AudioStream, suffix: str) -> AudioStream:
        codec = stream.codec_context.name
        if codec not in self._output.supported_codecs:
            raise MediaError(
                f"the {codec} sound of {self._source} cannot be copied into a {suffix} file; "
                "give the output the suffix .mkv, which holds any sound"
            )
        copy = self._output.add_stream_from_template(stream)
        copy.metadata.update(stream.metadata)
        copy.disposition = stream.disposition
        return copy

    def _read(self) -> Iterator[av.Packet]:
        """Packets with a time; a file that breaks off gives those before the break."""
        try:
            for packet in self._input.demux(*self._input.streams.audio) if self._streams else ():
                if packet.size and packet.dts is not None and packet.stream_index in self._streams:
                    yield packet
        except av.FFmpegError as error:
            _LOG.warning("%s: the sound breaks off: %s", self._source, error.strerror)

    def copy_until(self, time_s: float) -> None:
        """Write every packet that starts before ``time_s`` seconds."""
        while self._waiting is not None and start_s(self._waiting) < time_s:
            packet, self._waiting = self._waiting, next(self._packets, None)
            packet.stream = self._streams[packet.stream_index]
            self._output.mux_one(packet)

    def finish(self) -> None:
        """Write what is left."""
        self.copy_until(float("inf"))

    def close(self) -> None:
        """Release the source file."""
        self._input.close()


def start_s(packet: av.Packet) -> float:
    """Decoding time of a packet in seconds."""
    return float(packet.dts or 0) * float(packet.time_base)


def _moved_to_zero(packet: av.Packet) -> bool:
    """Whether any of the packet lies after time 0; if so, it is made to start there at the earliest."""
    start = packet.pts if packet.pts is not None else packet.dts or 0
    if start < 0 and start + (packet.duration or 0) <= 0:
        return False
    packet.pts, packet.dts = max(0, start), max(0, packet.dts or 0)
    return True
