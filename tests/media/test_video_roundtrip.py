"""What a video must keep on its way through reader and writer."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idm_rt.errors import MediaError
from idm_rt.media import video_target
from idm_rt.media.compare import side_by_side, side_by_side_size
from idm_rt.media.video_info import VideoInfo
from idm_rt.media.video_reader import DecodedFrame, VideoReader
from idm_rt.media.video_target import VideoTarget
from idm_rt.media.video_writer import VideoWriter

# Encoding is never exact: differences in 8-bit levels that crf 17 stays within on these tiny clips. A wrong range or
# matrix moves colours by ten and more; what is finer is tested without the codec's loss.
MEAN_LEVELS, MAX_LEVELS, SHIFT_LEVELS = 2.5, 28, 1.8


def read(path: Path) -> tuple[VideoInfo, list[DecodedFrame]]:
    with VideoReader(path) as reader:
        frames = list(reader)
        assert reader.damage is None
        return reader.info, frames


def seconds(frames: list[DecodedFrame]) -> list[Fraction]:
    return [Fraction(f.pts) * Fraction(f.time_base.numerator, f.time_base.denominator) for f in frames]


def transcode(source: Path, target: Path, size: tuple[int, int] | None = None) -> None:
    """Through the encoder, with no pixel changed."""
    with VideoReader(source) as reader, VideoWriter(target, like=reader, copy_unchanged=False, size=size) as writer:
        for frame in reader:
            writer.write(frame.image if size is None else side_by_side(frame.image, frame.image), frame)


def packets(path: Path) -> list[tuple[bytes, Fraction]]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return [(bytes(p), p.pts * stream.time_base) for p in container.demux(stream) if p.size]


def assert_same_look(source: list[DecodedFrame], result: list[DecodedFrame]) -> None:
    for before, after in zip(source, result, strict=True):
        difference = after.image.astype(int) - before.image
        assert np.abs(difference).mean() < MEAN_LEVELS
        assert np.abs(difference).max() <= MAX_LEVELS
        assert np.abs(difference.mean(axis=(0, 1))).max() < SHIFT_LEVELS  # of any channel


@pytest.fixture
def lossless(monkeypatch):
    """Take the codec's loss away, so that whatever remains is a conversion error."""
    for suffix, muxer in ((".mp4", "mp4"), (".mkv", "matroska")):
        target = VideoTarget(muxer, "libx264", {"qp": "0", "preset": "ultrafast"})
        monkeypatch.setitem(video_target._TARGETS, suffix, target)


VFR = (0, 1001, 1002, 5000, 5333, 9999, 20001, 20002, 20010, 33333)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize(
    ("pts", "time_base"),
    [
        (tuple(range(10)), Fraction(1, 30)),
        (tuple(1001 * i for i in range(10)), Fraction(1, 30000)),
        (tuple(range(10)), Fraction(1001, 30000)),
        (VFR, Fraction(1, 12345)),
        (tuple(4500 + p for p in VFR), Fraction(1, 90000)),  # starts late
        (tuple(3 * p for p in VFR), Fraction(1, 1_000_000)),
    ],
)
def test_every_time_stamp_is_kept(make_clip, tmp_path, pts, time_base, suffix):
    source, target = make_clip("in" + suffix, pts=pts, time_base=time_base), tmp_path / ("out" + suffix)
    transcode(source, target)
    expected = [p * time_base for p in pts]
    assert seconds(read(source)[1]) == expected  # the clip is what it claims to be
    assert seconds(read(target)[1]) == expected


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.integers(1, 5000), min_size=1, max_size=12),
    start=st.integers(0, 20000),
    denominator=st.integers(1000, 90000),
)
def test_any_rising_times_are_kept(make_clip, tmp_path, steps, start, denominator):
    pts = tuple(start + int(p) for p in np.cumsum([0, *steps]))
    source, target = make_clip(pts=pts, time_base=Fraction(1, denominator), width=16, height=16), tmp_path / "out.mp4"
    target.unlink(missing_ok=True)
    transcode(source, target)
    assert seconds(read(target)[1]) == [Fraction(p, denominator) for p in pts]


def test_frames_hidden_by_an_edit_list_stay_hidden(make_clip, tmp_path):
    """A phone's trimmed clip: the file holds more than it shows, and its sound starts before it."""
    whole, source, target = (
        make_clip("whole.mp4", audio="aac", pts=tuple(range(30))),
        tmp_path / "cut.mp4",
        tmp_path / "o.mp4",
    )
    with av.open(str(whole)) as container, av.open(str(source), "w") as output:
        streams = {s.index: output.add_stream_from_template(s, opaque=True) for s in container.streams}
        for packet in container.demux():
            if packet.dts is not None:
                shift = round(Fraction(1, 3) / packet.time_base)
                packet.pts, packet.dts, packet.stream = (
                    packet.pts - shift,
                    packet.dts - shift,
                    streams[packet.stream_index],
                )
                output.mux(packet)
    _, before = read(source)
    assert 15 < len(before) < 30
    transcode(source, target)
    _, after = read(target)
    assert seconds(after) == seconds(before)
    with av.open(str(source)) as a, av.open(str(target)) as b:
        start_before, start_after = (next(c.decode(audio=0)) for c in (a, b))
    assert abs(start_before.time - start_after.time) < 0.001
    assert_same_look(before, after)


def test_last_frame_keeps_its_duration(make_clip, tmp_path):
    source = make_clip(pts=VFR, time_base=Fraction(1, 12345))
    transcode(source, tmp_path / "out.mp4")
    (_, before), (_, after) = read(source), read(tmp_path / "out.mp4")
    assert before[-1].duration > 0
    assert after[-1].duration * after[-1].time_base == before[-1].duration * before[-1].time_base


def test_b_frames_in_the_source(make_clip, tmp_path):
    source = make_clip(pts=tuple(range(30)), options={"bf": "3", "preset": "medium", "x264-params": "b-adapt=0"})
    with av.open(str(source)) as container:  # the source must really reorder
        stored = [p.pts for p in container.demux(video=0) if p.pts is not None]
    assert stored != sorted(stored)
    transcode(source, tmp_path / "out.mp4")
    assert seconds(read(tmp_path / "out.mp4")[1]) == [Fraction(i, 30) for i in range(30)]


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_matroska_keeps_times_to_the_millisecond(make_clip, tmp_path, suffix):
    source, target = make_clip(pts=VFR, time_base=Fraction(1, 12345)), tmp_path / ("out" + suffix)
    transcode(source, target)
    error = [abs(a - b) for a, b in zip(seconds(read(target)[1]), seconds(read(source)[1]), strict=True)]
    assert max(error) <= Fraction(1, 2000)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize("rotation", [(90, 0, 0), (180, 0, 0), (-90, 0, 0), (0, 1, 0), (90, 1, 0)])
def test_rotation_is_kept_and_faces_are_upright(make_clip, picture, tmp_path, rotation, suffix):
    degrees, hflip, vflip = rotation
    source = make_clip(rotation=(degrees, bool(hflip), bool(vflip)))
    target = tmp_path / ("out" + suffix)
    transcode(source, target)
    (info, before), (out_info, after) = read(source), read(target)
    # Independent of our own reading of the matrix: what FFmpeg calls the rotation, counter-clockwise.
    stored = np.rot90(picture(64, 48, 0), degrees // 90)
    upright = stored[:, ::-1] if hflip else stored
    assert np.abs(before[0].image.astype(int) - upright).mean() < 3
    assert (out_info.width, out_info.height) == (info.width, info.height) == (64, 48)
    assert out_info.orientation == info.orientation
    assert_same_look(before, after)


# range (1 limited, 2 full), matrix (1 BT.709, 5 BT.601 625, 6 BT.601 525, 9 BT.2020), primaries, transfer
COLOURS = [(1, 1, 1, 1), (2, 1, 1, 1), (1, 6, 6, 6), (2, 5, 5, 6), (2, 6, 1, 13), (1, 9, 9, 14), (0, 2, 2, 2)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("colour", COLOURS)
def test_colours_come_back_with_the_same_look(make_clip, tmp_path, colour, suffix):
    source, target = make_clip(colour=colour), tmp_path / ("out" + suffix)
    transcode(source, target)
    (info, before), (out_info, after) = read(source), read(target)
    assert (info.full_range, info.color_space) == (colour[0] == 2, colour[1])
    assert out_info.full_range == info.full_range
    described = (out_info.color_space, out_info.color_primaries, out_info.color_trc)
    if suffix != ".webm":
        assert described == (info.color_space, info.color_primaries, info.color_trc)
    assert_same_look(before, after)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("colour", COLOURS)
def test_nothing_but_the_codec_touches_an_unprocessed_frame(make_clip, tmp_path, lossless, colour, suffix):
    source, target = make_clip(colour=colour), tmp_path / ("out" + suffix)
    transcode(source, target)
    for before, after in zip(read(source)[1], read(target)[1], strict=True):
        np.testing.assert_array_equal(after.image, before.image)


@pytest.mark.parametrize("colour", COLOURS)
def test_side_by_side_has_the_colours_of_the_source(make_clip, tmp_path, lossless, colour):
    """A canvas is converted as a whole: the way back into YUV must show no shift either."""
    source, target = make_clip(colour=colour), tmp_path / "out.mp4"
    transcode(source, target, size=side_by_side_size(64, 48))
    (_, before), (out_info, after) = read(source), read(target)
    assert (out_info.width, out_info.height) == (132, 48)
    for half in (slice(0, 60), slice(72, 132)):  # not the pixels beside the line, whose chroma is shared
        original = before[0].image[:, half.start % 68 : half.start % 68 + 60]
        difference = after[0].image[:, half].astype(int) - original
        assert np.abs(difference).mean() < 1.0
        assert np.abs(difference.mean(axis=(0, 1))).max() < 0.1


@pytest.mark.parametrize(
    ("codec", "pixel_format", "suffix"),
    [
        ("libx264", "yuv422p", ".mp4"),
        ("libx264", "yuv444p", ".mp4"),
        ("libx264", "yuv420p10le", ".mp4"),
        ("libx265", "yuv420p10le", ".mp4"),
        ("libx264rgb", "rgb24", ".mkv"),
        ("mjpeg", "yuvj420p", ".mov"),
        ("ffv1", "gray", ".mkv"),
        ("png", "rgba", ".mov"),
    ],
)
def test_other_pixel_formats_become_ordinary_h264(make_clip, tmp_path, codec, pixel_format, suffix):
    spec = {"codec": codec, "pixel_format": pixel_format, "options": {}}
    if codec.startswith("libx26"):
        spec["options"] = {"crf": "10"}
    if pixel_format.startswith("yuvj"):
        spec["colour"] = (2, 5, 2, 2)
    source, target = make_clip("in" + suffix, **spec), tmp_path / "out.mp4"
    transcode(source, target)
    (_, before), (info, after) = read(source), read(target)
    assert (info.codec, info.pixel_format.replace("yuvj", "yuv"), info.bit_depth) == ("h264", "yuv420p", 8)
    assert_same_look(before, after)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_anamorphic_pixels(make_clip, tmp_path, suffix):
    source = make_clip(aspect=Fraction(64, 45))
    transcode(source, tmp_path / ("out" + suffix))
    info, _ = read(tmp_path / ("out" + suffix))
    assert (info.width, info.height, info.sample_aspect_ratio) == (64, 48, Fraction(64, 45))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("size", [(641, 359), (641, 360), (64, 35), (1, 1), (2, 2), (17, 3)])
def test_odd_and_tiny_sizes_are_kept_to_the_pixel(make_clip, tmp_path, size, suffix):
    spec = {"codec": "png", "options": {}, "pixel_format": "rgb24", "time_base": Fraction(1, 1000)}
    source = make_clip("in.mov", width=size[0], height=size[1], pts=(0, 33, 67), **spec)
    target = tmp_path / ("out" + suffix)
    transcode(source, target)
    (_, before), (info, after) = read(source), read(target)
    assert (info.width, info.height) == size
    for a, b in zip(before, after, strict=True):
        luma = (a.image.astype(float) - b.image) @ (0.2126, 0.7152, 0.0722)  # few pixels share one colour sample
        assert np.abs(luma).mean() < 6


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_odd_size_from_subsampled_planes(make_clip, tmp_path, suffix):
    source = make_clip("in.mkv", width=641, height=359, codec="libvpx-vp9", options={"crf": "10", "b": "0"}, pts=(0, 1))
    target = tmp_path / ("out" + suffix)
    transcode(source, target)
    (_, before), (info, after) = read(source), read(target)
    assert (info.width, info.height) == (641, 359)
    assert_same_look(before, after)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("start", [0, 4800, 30000])
def test_sound_is_copied_and_in_sync(make_clip, tmp_path, start, suffix):
    source, target = make_clip(audio="aac", audio_start=start), tmp_path / ("out" + suffix)
    transcode(source, target)
    before, after = packets(source), packets(target)
    if suffix == ".mkv":  # Matroska has no negative times: the priming packet, which is never heard, is left out
        before = [packet for packet in before if packet[1] + Fraction(1024, 48000) > 0]
    assert [data for data, _ in after] == [data for data, _ in before]
    assert max(abs(a[1] - b[1]) for a, b in zip(after, before, strict=True)) <= Fraction(1, 1000)
    difference = [abs(a - b) for a, b in zip(seconds(read(target)[1]), seconds(read(source)[1]), strict=True)]
    assert max(difference) <= Fraction(1, 2000)


def test_sound_longer_than_the_picture_is_kept_whole(make_clip, tmp_path):
    source = make_clip(audio="aac", audio_seconds=2.0)
    transcode(source, tmp_path / "out.mp4")
    assert len(packets(tmp_path / "out.mp4")) == len(packets(source)) > 90


def test_opus_goes_into_webm_and_aac_does_not(make_clip, tmp_path):
    opus, aac = make_clip("opus.mkv", audio="libopus"), make_clip("aac.mp4", audio="aac")
    transcode(opus, tmp_path / "out.webm")
    assert [d for d, _ in packets(tmp_path / "out.webm")] == [d for d, _ in packets(opus)]
    with VideoReader(aac) as reader, pytest.raises(MediaError, match=r"aac sound .* suffix \.mkv"):
        VideoWriter(tmp_path / "no.webm", like=reader).__enter__()
    assert not list(tmp_path.glob("*no.webm*"))


def test_metadata_is_kept(make_clip, tmp_path):
    source = make_clip(metadata={"title": "Grüße", "comment": "a call"})
    transcode(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.metadata["title"] == "Grüße"
        assert container.metadata["comment"] == "a call"


@pytest.mark.parametrize("rotation", [None, (90, False, False), (-90, True, False)])
@pytest.mark.parametrize("colour", [(1, 1, 1, 1), (2, 6, 6, 6)])
def test_a_changed_region_is_written_and_the_rest_stays(make_clip, tmp_path, lossless, rotation, colour):
    source, target = make_clip(rotation=rotation, colour=colour), tmp_path / "out.mp4"
    with VideoReader(source) as reader, VideoWriter(target, like=reader) as writer:
        for frame in reader:
            image = frame.image.copy()
            image[10:30, 12:33] = np.clip(image[10:30, 12:33] + np.array((30, -20, 10)), 0, 255)
            writer.write(image, frame)
    assert writer.frames_changed == writer.frames_written == 12
    assert not writer.copied
    for before, after in zip(read(source)[1], read(target)[1], strict=True):
        change = after.image.astype(int) - before.image
        inside = change[14:26, 16:29].mean(axis=(0, 1))
        assert np.abs(inside - (30, -20, 10)).max() < 1.0
        outside = np.delete(change, np.s_[4:36], axis=0)
        assert np.abs(outside).max() == 0


def test_nothing_changed_gives_the_same_file(make_clip, tmp_path):
    source, target = make_clip(audio="aac", pts=VFR, time_base=Fraction(1, 12345)), tmp_path / "out.mp4"
    with VideoReader(source) as reader, VideoWriter(target, like=reader) as writer:
        for frame in reader:
            writer.write(frame.image.copy(), frame)
    assert writer.copied
    assert target.read_bytes() == source.read_bytes()


def test_image_of_a_wrong_size_is_a_bug(make_clip, tmp_path):
    reader, target = VideoReader(make_clip()), tmp_path / "out.mp4"
    with pytest.raises(ValueError, match="64x48"), reader, VideoWriter(target, like=reader) as writer:
        frame = next(iter(reader))
        writer.write(frame.image[:-2], frame)
    assert [p.name for p in tmp_path.iterdir()] == ["source.mp4"]
