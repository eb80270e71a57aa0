"""Results of finished trainings, with intervals."""

from collections.abc import Mapping, Sequence

from scipy.stats import binomtest

from libranas.core.stats import mean_interval
from libranas.training.evaluation import Evaluation, real_accuracy
from libranas.training.images import Images


def percent(estimate: Mapping) -> str:
    """Write mean and 95 % interval (keys ``mean``, ``low``, ``high``, in [0, 1]) as text."""
    if estimate["low"] is None or estimate["low"] != estimate["low"]:
        return f"{100 * estimate['mean']:.2f} %"
    low, high = 100 * estimate["low"], 100 * estimate["high"]
    return f"{100 * estimate['mean']:.2f} % (95 % interval {low:.2f} to {high:.2f})"


def outcome(result: Evaluation, images: Images) -> dict:
    """Return the results on the test images, JSON-ready; accuracies in [0, 1].

    The interval of top-1 is Wilson's, 95 %: it covers the choice of images, not that of the training's seed. For
    ImageNet's validation images the accuracy by the reassessed labels is added (``real``).
    """
    correct = round(result.top1 * result.images)
    low, high = binomtest(correct, result.images).proportion_ci(0.95, "wilson") if result.images else (None, None)
    record = {
        "images": result.images,
        "unreadable": len(images) - result.images,
        "top1": result.top1,
        "top1_low": low,
        "top1_high": high,
        "top5": result.top5,
        "loss": result.loss,
        "confusion": result.confusion_KK.tolist(),
    }
    if real := real_accuracy(result, images):
        record["real"] = real
    return record


def over_seeds(records: Sequence[dict]) -> dict:
    """Return mean, 95 % t interval and values of top-1, top-5 and loss, from the :func:`outcome` of each training."""
    summary = {"images": records[0]["images"], "trainings": len(records)}
    for name in ("top1", "top5", "loss"):
        values = [record[name] for record in records]
        mean, low, high = mean_interval(values)
        summary[name] = {"mean": mean, "low": low, "high": high, "values": values}
    return summary
