"""Run directories: everything a training leaves behind, and the small record that reports are made from.

    runs/<UTC>-<experiment>-<spec12>-s<seed>/
        run.json         when, by which process, on which cache; how it ended
        config.yaml      the resolved experiment and where each value came from
        env.json         versions and machine
        split.json       the ids trained on, validated on, tested on
        metrics.jsonl    one line an epoch
        progress.json    the step it is at; while it runs only
        events.out.…     the metrics for TensorBoard
        checkpoints/     last.pt, best.pt
        spikes.npz       of chosen samples; where eval was asked to record them
        manifest.json    sha256 of every file; of finished runs only
        result.json      the record; written last, by finished runs only

An imported run of other code has two files: ``imported.json``, and ``result.json`` where its experiment is known.

A run is live while its process holds ``.lock``: a killed run never looks finished or running.
"""

from plifctl.runs.checkpoints import load_checkpoint
from plifctl.runs.curves import Curve, find_curve, load_curves
from plifctl.runs.directory import (
    Run,
    RunConfig,
    Status,
    all_runs,
    best_row,
    create_run,
    describe_machine,
    find_run,
    remove_run,
)
from plifctl.runs.event_logs import find_logs
from plifctl.runs.imported import (
    TAGS,
    ImportedRun,
    describe,
    imported_folders,
    load_imported,
    remove_imported,
    save_imported,
)
from plifctl.runs.manifest import verify_run
from plifctl.runs.progress_file import StepProgress
from plifctl.runs.recorder import RunRecorder
from plifctl.runs.records import ResultRecord, RunData, check_records, load_records
from plifctl.runs.spikes import SpikeRecording, load_spikes, save_spikes

__all__ = [
    "TAGS",
    "Curve",
    "ImportedRun",
    "ResultRecord",
    "Run",
    "RunConfig",
    "RunData",
    "RunRecorder",
    "SpikeRecording",
    "Status",
    "StepProgress",
    "all_runs",
    "best_row",
    "check_records",
    "create_run",
    "describe",
    "describe_machine",
    "find_curve",
    "find_logs",
    "find_run",
    "imported_folders",
    "load_checkpoint",
    "load_curves",
    "load_imported",
    "load_records",
    "load_spikes",
    "remove_imported",
    "remove_run",
    "save_imported",
    "save_spikes",
    "verify_run",
]
