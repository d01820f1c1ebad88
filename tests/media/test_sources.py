"""What an input is, and which output fits it."""

from __future__ import annotations

import os

import pytest
from PIL import Image

from idm_rt.errors import MediaError
from idm_rt.media.sources import FolderInput, PhotoInput, VideoInput, check_job, open_input


@pytest.fixture
def photo_file(tmp_path, picture):
    path = tmp_path / "face.png"
    Image.fromarray(picture(64, 48)).save(path)
    return path


def error_of(call, *args, **options) -> str:
    with pytest.raises(MediaError) as error:
        call(*args, **options)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_content_decides(make_clip, photo_file, tmp_path):
    misnamed_photo, misnamed_video = tmp_path / "photo.mp4", tmp_path / "video.dat"
    misnamed_photo.write_bytes(photo_file.read_bytes())
    make_clip("clip.mp4").rename(misnamed_video)
    assert open_input(photo_file) == PhotoInput(photo_file)
    assert open_input(str(misnamed_photo)) == PhotoInput(misnamed_photo)
    assert open_input(misnamed_video) == VideoInput(misnamed_video)


def test_folder_of_photos_is_sorted_and_skips_the_rest(photo_file, tmp_path):
    (tmp_path / "b.JPG").write_bytes(b"damaged, but meant as a photo")
    (tmp_path / ".hidden.png").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "deeper.png").mkdir()
    found = open_input(tmp_path)
    assert isinstance(found, FolderInput)
    assert [path.name for path in found.photos] == ["b.JPG", "face.png"]


def test_unusable_inputs(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("x")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "in.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    assert "does not exist" in error_of(open_input, tmp_path / "none.mp4")
    assert "is empty" in error_of(open_input, tmp_path / "empty.mp4")
    assert "no photo (1 other files)" in error_of(open_input, tmp_path / "folder")
    assert "no photo (nothing)" in error_of(open_input, tmp_path / "nothing")
    assert "HEIC" in error_of(open_input, tmp_path / "in.heic")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "not an ordinary file" in error_of(open_input, tmp_path / "pipe.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_input(photo_file):
    photo_file.chmod(0)
    assert "cannot be read" in error_of(open_input, photo_file)


def test_outputs_of_a_file(make_clip, photo_file, tmp_path):
    photo, video = open_input(photo_file), open_input(make_clip())
    assert check_job(photo, tmp_path / "out.jpg", overwrite=False) == tmp_path / "out.jpg"
    assert check_job(video, str(tmp_path / "out.MP4"), overwrite=False) == tmp_path / "out.MP4"
    assert "is a photo but" in error_of(check_job, photo, tmp_path / "out.mp4", overwrite=False)
    assert "is a video but" in error_of(check_job, video, tmp_path / "out.png", overwrite=False)
    assert "suffix .gif" in error_of(check_job, video, tmp_path / "out.gif", overwrite=False)
    assert "no suffix" in error_of(check_job, photo, tmp_path / "out", overwrite=False)
    assert "is a folder" in error_of(check_job, photo, tmp_path, overwrite=True)
    assert "input itself" in error_of(check_job, photo, photo_file, overwrite=True)
    assert "does not exist" in error_of(check_job, photo, tmp_path / "no" / "out.png", overwrite=False)
    (tmp_path / "there.png").touch()
    assert "--overwrite" in error_of(check_job, photo, tmp_path / "there.png", overwrite=False)
    check_job(photo, tmp_path / "there.png", overwrite=True)


def test_outputs_of_a_folder(photo_file, tmp_path):
    source = open_input(tmp_path)
    output = tmp_path / "results"
    assert check_job(source, output, overwrite=False) == output
    assert output.is_dir()
    assert "is the input folder" in error_of(check_job, source, tmp_path, overwrite=True)
    assert "is a file" in error_of(check_job, source, photo_file, overwrite=True)
    assert "does not exist" in error_of(check_job, source, tmp_path / "a" / "b", overwrite=False)
    (output / "face.png").touch()
    assert "--overwrite" in error_of(check_job, source, output, overwrite=False)
    check_job(source, output, overwrite=True)
