"""Damaged inputs, and outputs that must not be left half-written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from idm_rt.errors import MediaError
from idm_rt.media import files
from idm_rt.media.files import check_output, replacing
from idm_rt.media.video_reader import VideoReader
from idm_rt.media.video_writer import VideoWriter


def copy_all(source: Path, target: Path, **options) -> VideoReader:
    with VideoReader(source) as reader, VideoWriter(target, like=reader, copy_unchanged=False, **options) as writer:
        for frame in reader:
            writer.write(frame.image, frame)
    return reader


def count_frames(path: Path) -> int:
    with VideoReader(path) as reader:
        return sum(1 for _ in reader)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def message_of(error: pytest.ExceptionInfo[MediaError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("error", [RuntimeError("engine died"), KeyboardInterrupt(), SystemExit(1)])
def test_nothing_is_left_after_an_exception(make_clip, tmp_path, error):
    source = make_clip()
    reader, target = VideoReader(source), tmp_path / "out.mp4"
    with pytest.raises(type(error)), reader, VideoWriter(target, like=reader) as writer:
        for frame in reader:
            writer.write(frame.image, frame)
            assert any(name.endswith(".part") for name in names(tmp_path))
            if frame.index == 5:
                raise error
    assert names(tmp_path) == ["source.mp4"]


def test_an_overwritten_file_survives_an_exception(make_clip, tmp_path):
    source, target = make_clip(), tmp_path / "out.mp4"
    target.write_bytes(b"precious")
    reader = VideoReader(source)
    with pytest.raises(KeyboardInterrupt), reader, VideoWriter(target, like=reader, overwrite=True):
        raise KeyboardInterrupt
    assert target.read_bytes() == b"precious"
    copy_all(source, target, overwrite=True)
    assert count_frames(target) == 12


def test_output_has_the_rights_of_an_ordinary_file(make_clip, tmp_path):
    previous = os.umask(0o027)
    try:
        copy_all(make_clip(), tmp_path / "out.mp4")
    finally:
        os.umask(previous)
    assert (tmp_path / "out.mp4").stat().st_mode & 0o777 == 0o640


def test_existing_output_is_refused(make_clip, tmp_path):
    source, target = make_clip(), tmp_path / "out.mp4"
    target.write_bytes(b"precious")
    with pytest.raises(MediaError, match="--overwrite") as error:
        copy_all(source, target)
    message_of(error)
    assert target.read_bytes() == b"precious"


def test_output_equal_to_input_is_refused(make_clip, tmp_path):
    source = make_clip()
    link = tmp_path / "link.mp4"
    link.symlink_to(source)
    before = source.read_bytes()
    for same in (source, link, tmp_path / "." / "source.mp4"):
        with pytest.raises(MediaError, match="is the input itself"):
            copy_all(source, same, overwrite=True)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.avi", "suffix .avi"),
        ("out", "no suffix"),
        ("missing/out.mp4", "does not exist"),
        (".", "is a folder|no suf"),
    ],
)
def test_unusable_outputs(make_clip, tmp_path, name, message):
    source = make_clip()
    with pytest.raises(MediaError, match=message) as error:
        copy_all(source, tmp_path / name)
    message_of(error)
    assert names(tmp_path) == ["source.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder(make_clip, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(MediaError, match="not writable"):
        copy_all(make_clip(), folder / "out.mp4")


def test_unwritable_folder_as_the_system_reports_it(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)
    with pytest.raises(MediaError, match="not writable"):
        check_output(tmp_path / "out.mp4", source=None, overwrite=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_full_disk(make_clip, tmp_path, monkeypatch, suffix):
    """FFmpeg itself writes to the device and meets the real error."""
    source = make_clip()

    def onto_full_disk(path: Path) -> Path:
        link = path.with_name(".full.part")
        link.symlink_to("/dev/full")
        return link

    monkeypatch.setattr(files, "temporary_name", onto_full_disk)
    with pytest.raises(MediaError, match="disk is full") as error:
        copy_all(source, tmp_path / ("out" + suffix))
    assert "out" + suffix in message_of(error)
    assert names(tmp_path) == ["source.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX resource limits")
def test_file_size_limit_in_a_real_process(make_clip, tmp_path):
    source, target = make_clip(width=160, height=120, pts=tuple(range(30))), tmp_path / "out.mp4"
    script = (
        "import resource, signal, sys\n"
        "from idm_rt.media.video_reader import VideoReader\n"
        "from idm_rt.media.video_writer import VideoWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "with VideoReader(sys.argv[1]) as r, VideoWriter(sys.argv[2], like=r, copy_unchanged=False) as w:\n"
        "    for frame in r:\n"
        "        w.write(frame.image, frame)\n"
    )
    path = str(Path(files.__file__).parents[2])
    command = [sys.executable, "-c", script, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False)
    assert done.returncode == 1
    assert "MediaError: cannot write" in done.stderr
    assert "disk is full" in done.stderr
    assert names(tmp_path) == ["source.mp4"]


def test_replacing_reports_and_cleans_up(tmp_path):
    with pytest.raises(OSError, match="other"), replacing(tmp_path / "a.png") as temporary:
        temporary.write_bytes(b"half")
        raise OSError(errno.EIO, "other")
    assert names(tmp_path) == []


# ---- damaged and unsuitable inputs


def open_error(path: Path) -> str:
    with pytest.raises(MediaError) as error, VideoReader(path):
        pass
    return message_of(error)


def test_inputs_that_are_no_video(make_clip, tmp_path):
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "zeros.mp4").write_bytes(bytes(100_000))
    assert "does not exist" in open_error(tmp_path / "missing.mp4")
    assert "is a folder" in open_error(tmp_path)
    assert "empty" in open_error(tmp_path / "empty.mp4")
    assert "is not a photo or video" in open_error(tmp_path / "text.mp4")
    assert "is not a photo or video" in open_error(tmp_path / "zeros.mp4")


def test_text_and_play_lists_are_not_followed(make_clip, tmp_path):
    """FFmpeg would render text as a picture and open whatever a list names."""
    clip = make_clip("clip.ts", pts=tuple(range(30)))
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n")
    (tmp_path / "concat.mp4").write_text(f"ffconcat version 1.0\nfile {clip.name}\n")
    (tmp_path / "plain.txt").write_text("hello\n" * 50)
    for name in ("list.mp4", "concat.mp4", "plain.txt"):
        assert "is not a photo or video" in open_error(tmp_path / name)


def test_sound_only(tmp_path):
    path = tmp_path / "voice.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 48000), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 48000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert "only sound" in open_error(path)


@pytest.mark.parametrize(("suffix", "message"), [(".mp4", "holds no video track"), (".mkv", "is not a photo or video")])
def test_video_without_a_single_frame(tmp_path, suffix, message):
    path = tmp_path / ("none" + suffix)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=30)
        stream.width, stream.height = 64, 48
        output.start_encoding()
    assert message in open_error(path)


def test_video_track_whose_data_are_lost(make_clip, tmp_path):
    data = bytearray(make_clip(muxer_options={"movflags": "+faststart"}).read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    (tmp_path / "zero.mp4").write_bytes(data)
    assert "no frame could be decoded" in open_error(tmp_path / "zero.mp4")


def test_name_with_a_colon_is_a_file(make_clip, tmp_path):
    clip = make_clip()
    odd = clip.rename(tmp_path / "http:call 100%.mp4")
    assert count_frames(odd) == 12


@pytest.mark.parametrize(("name", "options"), [("cut.mp4", {"movflags": "+faststart"}), ("cut.mkv", {})])
def test_truncated_file_gives_what_decodes(make_clip, tmp_path, name, options):
    whole = make_clip(name, pts=tuple(range(60)), muxer_options=options, width=160, height=120, audio="aac",
                      audio_seconds=2.0)  # fmt: skip
    data = whole.read_bytes()
    cut = tmp_path / ("short" + whole.suffix)
    cut.write_bytes(data[: int(len(data) * 0.7)])
    target = tmp_path / "out.mp4"
    reader = copy_all(cut, target)
    assert reader.damage is not None
    assert "damaged or cut" in reader.damage
    assert 5 < reader.frames_read < 60
    assert count_frames(target) == reader.frames_read


def test_cut_before_the_index(make_clip, tmp_path):
    data = make_clip(pts=tuple(range(60))).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    assert "index is missing" in open_error(tmp_path / "cut.mp4")


def test_damage_in_the_middle_is_reported_and_the_rest_decoded(make_clip, tmp_path):
    clip = make_clip(pts=tuple(range(60)), width=160, height=120, options={"g": "10", "crf": "12"})
    data = bytearray(clip.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(255 - b for b in data[middle : middle + 400])
    (tmp_path / "hurt.mp4").write_bytes(data)
    with VideoReader(tmp_path / "hurt.mp4") as reader:
        count = sum(1 for _ in reader)
    assert reader.damage is not None
    assert 50 <= count <= 60


def test_an_unchanged_damaged_file_is_not_copied(make_clip, tmp_path):
    whole = make_clip("cut.mkv", pts=tuple(range(60)), width=160, height=120)
    cut = tmp_path / "short.mkv"
    cut.write_bytes(whole.read_bytes()[:-2000])
    with VideoReader(cut) as reader, VideoWriter(tmp_path / "out.mkv", like=reader) as writer:
        for frame in reader:
            writer.write(frame.image, frame)
    assert not writer.copied
    assert count_frames(tmp_path / "out.mkv") == reader.frames_read


def test_an_intact_file_has_no_damage(make_clip):
    with VideoReader(make_clip(audio="aac", audio_seconds=3.0)) as reader:
        list(reader)
    assert reader.damage is None
    assert reader.finished


def test_a_changing_size_becomes_the_first_one(make_clip, tmp_path):
    """Calls recorded from a network change their resolution on the way; concatenated streams show it."""
    parts = [make_clip(f"{w}.h264", width=w, height=h).read_bytes() for w, h in ((64, 48), (128, 96))]
    both = tmp_path / "both.h264"
    both.write_bytes(b"".join(parts))
    target = tmp_path / "out.mp4"
    copy_all(both, target)
    with VideoReader(target) as reader:
        shapes = [frame.image.shape for frame in reader]
    assert shapes == [(48, 64, 3)] * 24
