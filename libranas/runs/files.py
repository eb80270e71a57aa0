"""The files of a run by name. Rules, stages, benchmarks and tests take all paths from here."""

from collections.abc import Mapping

#: Name of a file to its path in the folder; braces hold what one of several jobs is about.
FILES = {
    "images": "data/images.h5",
    "manifest": "data/manifest.json",
    "calibration": "data/calibration.npz",
    "latency": "latency/table.json",
    "archs": "sample/archs.csv",
    "shard": "scores/shards/{shard}.h5",
    "scores": "scores/scores.h5",
    "failures": "scores/failures.csv",
    "costs": "scores/costs.csv",
    "curve": "layers/curve.csv",
    "window": "layers/window.json",
    "table": "layers/table.csv",
    "accuracy": "benchmark/{method}.csv",
    "accuracy_shard": "benchmark/train/{shard}.csv",
    "supernet_history": "benchmark/supernet_history.csv",
    "agreement": "benchmark/agreement.json",
    "choice": "libra/choice.json",
    "combiner": "libra/combiner.bin",
    "methods": "libra/methods.csv",
    "proxies": "libra/proxies.csv",
    "parts": "libra/parts.csv",
    "candidates": "search/guided/candidates-{round}.csv",
    "proposals": "search/guided/proposals-{round}.csv",
    "round_labels": "search/guided/labels-{round}-{shard}.csv",
    "finalists": "search/guided/finalists.csv",
    "labels_agreement": "search/guided/agreement.json",
    "long": "search/guided/long-{shard}.csv",
    "history": "search/{strategy}.csv",
    "selected": "search/selected.json",
    "metrics": "train/{role}/{seed}/metrics.json",
    "weights": "train/{role}/{seed}/model.safetensors",
    "summary": "train/summary.json",
    "curves": "train/curves.csv",
    "exported": "export/winner",
    "full_result": "full_training/result.json",
    "full_weights": "full_training/model.safetensors",
    "full_export": "full_training/export",
    "judged_table": "published/tables/{table}/judged.csv",
    "table3_table": "published/tables/{table}/table3.csv",
    "table4_table": "published/tables/{table}/table4.csv",
    "judged": "published/judged.csv",
    "means": "published/means.csv",
    "table1": "published/table1.csv",
    "table3": "published/table3.csv",
    "table4": "published/table4.csv",
    "labels": "published/labels.csv",
    "report": "report.html",
}


def run_path(config: Mapping) -> str:
    """Return the folder of the run that `config` describes."""
    return f"{config['results']}/{config['run']}"
