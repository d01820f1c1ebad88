"""Every command and option. Imports nothing but the standard library and the table of choices."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

import idm_rt
from idm_rt.cli.camera_options import add_arguments as add_camera_arguments
from idm_rt.cli.output import PROGRAM, one_line
from idm_rt.cli.relay_options import add_relay_arguments, add_token_arguments
from idm_rt.config import DEFAULT_MODEL, ENGINES, PRECISIONS, STEPS, EnhancerConfig

_DEFAULTS = EnhancerConfig()


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and exit with code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{PROGRAM}: error: {one_line(message)}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser; the chosen command's module name is in ``options.module``."""
    parser = OneLineParser(
        prog=PROGRAM,
        description="Restore the faces of video calls, recordings and photos.",
        epilog=f"`{PROGRAM} COMMAND --help` explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {idm_rt.__version__}")
    _add_debug(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=OneLineParser)
    _add_enhance(commands)
    _add_sample(commands)
    _add_models(commands)
    _add_engines(commands)
    _add_doctor(commands)
    _add_bench(commands)
    _add_camera(commands)
    _add_relay(commands)
    return parser


def _add_command(commands: Any, name: str, module: str, summary: str, **more: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary, **more)
    parser.set_defaults(module=module)
    _add_debug(parser)
    return parser


def _add_debug(parser: argparse.ArgumentParser) -> None:
    # SUPPRESS: a command's default must not undo the option given before it
    text = "show log lines, and where an error came from"
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=text)


def _add_enhance(commands: Any) -> None:
    summary = "restore the faces of a photo, of a folder of photos or of a video"
    parser = _add_command(commands, "enhance", "enhance", summary)
    parser.add_argument("input", metavar="INPUT", type=Path, help="a photo, a folder of photos or a video")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="the file (for a folder: the folder) to write")
    _add_pipeline_options(parser)
    _add_strength(parser)
    parser.add_argument(
        "--max-faces",
        type=_whole_number(1, 32),
        default=_DEFAULTS.max_faces,
        metavar="N",
        help="faces restored per picture; the largest win (default: %(default)s)",
    )
    parser.add_argument("--compare", action="store_true", help="write input and result side by side")
    parser.add_argument("--before-after", type=Path, metavar="PICTURE", help="also write a still before/after picture")
    parser.add_argument("--report", type=Path, metavar="FILE.json", help="also write what was done, and how fast")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def _add_strength(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--strength",
        type=_fraction,
        default=_DEFAULTS.strength,
        metavar="F",
        help="0 changes nothing, 1 shows the whole correction (default: %(default)s)",
    )


def _add_pipeline_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--steps",
        type=int,
        choices=STEPS,
        default=_DEFAULTS.steps,
        help="diffusion steps per face: more refine more and cost more (default: %(default)s)",
    )
    _add_engine(parser)
    _add_precision(parser)
    _add_require_gpu(parser)
    parser.add_argument("--model", metavar="NAME", help=f"a model's name or folder (default: {DEFAULT_MODEL})")
    parser.add_argument(
        "--threads", type=_whole_number(1), metavar="N", help="inference threads (default: every core there is)"
    )
    parser.add_argument(
        "--landmarker", type=Path, metavar="FILE", help="a face_landmarker.task (default: fetched once, then cached)"
    )


def _add_camera(commands: Any) -> None:
    summary = "be a virtual webcam: enhance a camera, a screen or a file live, for any video call program"
    parser = _add_command(commands, "camera", "camera", summary)
    add_camera_arguments(parser)
    _add_pipeline_options(parser)
    _add_strength(parser)


def _add_relay(commands: Any) -> None:
    summary = "serve a page, WHIP and WHEP: WebRTC streams come in and go out with their faces restored"
    parser = _add_command(commands, "relay", "relay", summary)
    add_relay_arguments(parser)
    _add_pipeline_options(parser)
    _add_strength(parser)
    add_token_arguments(_add_command(commands, "relay-token", "relay_token", "make a token for a relay with a secret"))


def _add_sample(commands: Any) -> None:
    parser = _add_command(commands, "sample", "sample", "write a short sample call (a NASA portrait) to try things on")
    parser.add_argument("output", metavar="OUT.mp4", type=Path, help="the file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")


def _add_models(commands: Any) -> None:
    parser = _add_command(commands, "models", "models", "list, fetch or verify the model files")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True, parser_class=OneLineParser)
    for name, summary in (
        ("list", "list every model file, where it is and whether it is intact"),
        ("fetch", "download what does not ship with the package"),
        ("verify", "check size and SHA-256 of every model file; exit 1 if one is missing or damaged"),
    ):
        action = actions.add_parser(name, help=summary, description=summary)
        action.set_defaults(action=name)
        _add_debug(action)


def _add_engines(commands: Any) -> None:
    parser = _add_command(commands, "engines", "engines", "build, list, verify or remove what runs the networks")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True, parser_class=OneLineParser)
    for name, summary in (
        ("build", "compile the TensorRT plan of a model for this machine (once; seconds to some minutes)"),
        ("list", "list every engine, whether it can be used here and why, and every plan that is built"),
        ("verify", "compare an engine with the reference on shipped faces; exit 1 if it is not within its tolerance"),
        ("clean", "remove built plans"),
    ):
        action = actions.add_parser(name, help=summary, description=summary)
        action.set_defaults(action=name)
        _add_debug(action)
        _add_engine(action)
        if name != "list":
            action.add_argument("--model", metavar="NAME", help="a model's name or folder (default: the usual one)")
        if name in ("build", "verify"):
            action.add_argument(
                "--batch", type=_whole_number(1, 64), default=1, metavar="N", help="faces per call (default: 1)"
            )
            action.add_argument("--steps", type=int, choices=STEPS, help="diffusion steps (default: all of the model)")
            _add_require_gpu(action)
        if name == "verify":
            _add_precision(action)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default=_DEFAULTS.engine,
        metavar="NAME",
        help=f"what runs the network: {', '.join(ENGINES)} (default: %(default)s, the fastest that works here)",
    )


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=_DEFAULTS.precision,
        metavar="NAME",
        help=f"arithmetic of the network: {', '.join(PRECISIONS)}; openvino has f32, int8 and, on CPUs that do it, "
        "bf16; torch f32 and fp16; onnxruntime f32; tensorrt fp16 (default: %(default)s, the engine's best here)",
    )


def _add_require_gpu(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--require-gpu", action="store_true", help="fail where the engine would run on the CPU")


def _add_doctor(commands: Any) -> None:
    summary = "say whether everything works here, and how to cure what does not"
    parser = _add_command(commands, "doctor", "doctor", summary)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_bench(commands: Any) -> None:
    parser = _add_command(commands, "bench", "bench", "measure time per stage, frames per second and memory")
    parser.add_argument("--clip", type=Path, metavar="FILE", help="a video with a face (default: the sample call)")
    parser.add_argument(
        "--size",
        type=_size,
        metavar="WxH",
        help="px of the measured frame; a smaller clip is placed on a canvas, its face keeps its size "
        "(default: the clip's)",
    )
    parser.add_argument(
        "--frames", type=_whole_number(10), default=300, metavar="N", help="measured frames (default: %(default)s)"
    )
    parser.add_argument(
        "--warm-up", type=_whole_number(0), default=30, metavar="N", help="frames before them (default: %(default)s)"
    )
    parser.add_argument(
        "--faces", type=_whole_number(1, 32), default=1, metavar="N", help="repeat the clip N times in the frame"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--network", action="store_true", help="the engine alone: faces per second for 1 to 32 faces a call, streams"
    )
    what.add_argument(
        "--peers",
        action="store_true",
        help="one face through the networks that people use instead (GFPGAN, CodeFormer, RestoreFormer, Real-ESRGAN) "
        "and through ours, on the same device; needs pip install 'idm-rt[peers]'; some minutes on a CPU",
    )
    parser.add_argument(
        "--peer-runs", type=_whole_number(1), default=3, metavar="N", help="timed runs of each (default: %(default)s)"
    )
    _add_pipeline_options(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result; - prints it")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _whole_number(low: int, high: int = sys.maxsize) -> Any:
    def parse(text: str) -> int:
        value = int(text) if text.lstrip("-").isdigit() else low - 1
        if not low <= value <= high:
            until = f"to {high}" if high < sys.maxsize else "up"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} {until}")
        return value

    return parse


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write it like 1280x720")
    return int(width), int(height)
