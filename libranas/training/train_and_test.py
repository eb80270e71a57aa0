"""Final training of a network of a search space, on the images of the stage ``prepare``."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from libranas.core.arch import Arch
from libranas.core.provenance import facts
from libranas.core.random import stream_seed
from libranas.networks import build
from libranas.spaces import Space
from libranas.training.distributed import World
from libranas.training.images import ImageSet
from libranas.training.recipe import TrainingRecipe
from libranas.training.settings import Settings
from libranas.training.trainer import Training
from libranas.training.transforms import Look


def train_and_test(
    space: Space,
    arch: Arch,
    sets: tuple[ImageSet, ImageSet, ImageSet],
    recipe: TrainingRecipe,
    seeds: tuple[int, int],
    folder: Path,
    key: str,
    on_epoch: Callable[[dict], None] = lambda record: None,
    world: World | None = None,
    workers: int = 0,
) -> tuple[nn.Module, dict]:
    """Train a network of the space and measure its test accuracy once, after the last epoch.

    Parameters
    ----------
    sets : training, validation and test images
    seeds : master seed and index of this training; the order of images is the same for all networks of an index
    folder : of checkpoints; made for another `key`, they are not used
    workers : processes that read images; 0: the training reads them itself

    Returns
    -------
    the trained network, and its metrics (accuracies in [0, 1]; JSON-ready)
    """
    master, index = seeds
    train, val, test = (images.for_final_training() for images in sets)
    _, channels, _, size = sets[0].images_NCHW.shape
    look = Look(size, channels, sets[0].mean_C, sets[0].std_C)
    stream = stream_seed(master, "train", "init", arch.id, index)
    model = build(space, arch, stream, recipe.drop_path, fused=True, timm=True)
    settings = Settings(folder, stream_seed(master, "train", index), key, workers=workers, restart_on_change=True)
    training = Training(model, train, val, look, recipe, settings, world)
    history = training.fit(on_epoch)
    result = training.evaluate(test)
    metrics = {
        "id": arch.id,
        "params": space.params(arch),
        "macs": space.macs(arch),
        "test_accuracy": result.top1,
        "test_top5": result.top5,
        "test_loss": result.loss,
        "confusion": result.confusion_KK.tolist(),
        "val_accuracy": history[-1]["val_accuracy"],
        "test_images": result.images,
        "history": history,
        "facts": facts(),
    }
    return training.network(), metrics
