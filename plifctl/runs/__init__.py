"""Run directories: all files of a training, and the small result record that reports are made from.

    runs/<UTC>-<experiment>-<spec12>-s<seed>/
        run.json         start, cache, the processes that trained it (sessions), and how it ended
        config.yaml      the resolved experiment and the origin of each value
        env.json         versions and machine
        split.json       sample ids of training, validation and test
        metrics.jsonl    a row of metrics for each epoch
        metrics.sha256   a checksum for each row
        progress.json    the current step; only while it runs
        events.out.…     the metrics for TensorBoard
        checkpoints/     last.pt, best.pt; start.pt of a training that began with the weights of another
        predictions.npz  predicted class of each test sample; of finished runs only
        spikes.npz       spikes of chosen samples; after eval --record-spikes
        controls.json    accuracy under controls; after eval --time, --tau or --controls
        manifest.json    SHA-256 of every file; of finished runs only
        result.json      the result record; of finished runs only, written last

A run imported from the logs of other code has ``imported.json``, and ``result.json`` where its experiment is known. A
run of somebody else has ``added.json`` beside the files of an exported folder.

A process holds ``.lock`` while it trains a run, so that a killed run never looks finished or running.
:mod:`plifctl.runs.folders` says which folders are runs.
"""

from plifctl.runs.changes import RegisteredExperiments, TrainedExperiment
from plifctl.runs.checkpoints import load_checkpoint
from plifctl.runs.controls import ControlResult, keep_controls, read_controls
from plifctl.runs.curves import (
    Curve,
    curve_of_imported,
    curve_of_run,
    external_accuracy,
    find_curves,
    load_curves,
    load_other_curves,
    logged_accuracies,
)
from plifctl.runs.directory import (
    Run,
    best_row,
    create_run,
    describe_machine,
    find_run,
    find_run_folder,
    list_runs,
    remove_run,
)
from plifctl.runs.event_logs import find_logs
from plifctl.runs.external import (
    AddedRun,
    add_run,
    find_any,
    load_added,
    load_external,
    remove_external,
)
from plifctl.runs.folders import (
    candidates,
    check_removable,
    external_folders,
    is_added,
    is_imported,
    is_run,
    is_trained,
    run_argument,
)
from plifctl.runs.imported import (
    ImportedRun,
    import_log,
    load_imported,
    save_imported,
)
from plifctl.runs.manifest import verify_run
from plifctl.runs.predictions import Predictions
from plifctl.runs.progress_file import StepProgress
from plifctl.runs.recorder import RunRecorder
from plifctl.runs.records import (
    ResultRecord,
    RunAccuracy,
    RunData,
    StartedFrom,
    authors_records,
    check_records,
    load_records,
    with_controls,
)
from plifctl.runs.spikes import SpikeRecording, load_spikes, save_spikes

__all__ = [
    "AddedRun",
    "ControlResult",
    "Curve",
    "ImportedRun",
    "Predictions",
    "RegisteredExperiments",
    "ResultRecord",
    "Run",
    "RunAccuracy",
    "RunData",
    "RunRecorder",
    "SpikeRecording",
    "StartedFrom",
    "StepProgress",
    "TrainedExperiment",
    "add_run",
    "authors_records",
    "best_row",
    "candidates",
    "check_records",
    "check_removable",
    "create_run",
    "curve_of_imported",
    "curve_of_run",
    "describe_machine",
    "external_accuracy",
    "external_folders",
    "find_any",
    "find_curves",
    "find_logs",
    "find_run",
    "find_run_folder",
    "import_log",
    "is_added",
    "is_imported",
    "is_run",
    "is_trained",
    "keep_controls",
    "list_runs",
    "load_added",
    "load_checkpoint",
    "load_curves",
    "load_external",
    "load_imported",
    "load_other_curves",
    "load_records",
    "load_spikes",
    "logged_accuracies",
    "read_controls",
    "remove_external",
    "remove_run",
    "run_argument",
    "save_imported",
    "save_spikes",
    "verify_run",
    "with_controls",
]
