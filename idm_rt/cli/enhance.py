"""``idm-rt enhance``: faces of a photo, of a folder of photos or of a video."""

from __future__ import annotations

import argparse
from typing import Any

from idm_rt.cli.output import Console
from idm_rt.config import EnhancerConfig
from idm_rt.enhance_files import FileJob, plan
from idm_rt.enhance_files import run as run_job
from idm_rt.enhancer import Enhancer
from idm_rt.report import build_report, engine_line, summarize, tracker_line, write_json


def run(options: argparse.Namespace, console: Console) -> int:
    """Plan, open the models, do the work, say what came out; returns the exit code."""
    job = plan(
        options.input,
        options.output,
        compare=options.compare,
        overwrite=options.overwrite,
        before_after=options.before_after,
        report=options.report,
    )
    report = _enhance(job, configure(options, temporal=job.temporal), console)
    if job.report is not None:
        write_json(job.report, report)
    console.say(summarize(report))
    return _verdict(report, console)


def configure(options: argparse.Namespace, *, temporal: bool) -> EnhancerConfig:
    """The options of the pipeline; an option the command does not have keeps its default."""
    names = ("steps", "strength", "engine", "precision", "model", "max_faces", "threads", "landmarker", "require_gpu")
    given = {name: getattr(options, name) for name in names if hasattr(options, name)}
    return EnhancerConfig(**given, temporal=temporal)


def _enhance(job: FileJob, config: EnhancerConfig, console: Console) -> dict[str, Any]:
    with Enhancer(config) as enhancer:
        console.say(engine_line(enhancer.restorer))
        console.say(tracker_line(enhancer.tracker))
        enhancer.warm_up()
        result = run_job(job, enhancer, console.progress)
        return build_report(job, result, enhancer)


def _verdict(report: dict[str, Any], console: Console) -> int:
    """1 when what was asked for was not done for any picture, or not for some photo of a folder."""
    if report["frames"] and report["bypassed"] == report["frames"]:
        console.error(f"no picture could be enhanced: {'; '.join(report['bypassed_by_cause'])}")
        return 1
    if report["failed"]:
        name, reason = next(iter(report["failed"].items()))
        console.error(f"{len(report['failed'])} of the photos could not be enhanced, the first is {name}: {reason}")
        return 1
    return 0
