"""State of a training: progress, finite losses, and the checkpoints that belong to it."""

import torch

from libranas.core.errors import LibranasError
from libranas.training.distributed import World
from libranas.training.settings import ACCEPTABLE, Settings


class Diverged(Exception):
    """The loss of an update (`step`, from 0) was not finite; `rate` is the learning rate."""

    def __init__(self, step: int, rate: float):
        self.step, self.rate = step, rate


class RunState:
    """Progress of a run.

    Attributes
    ----------
    step : updates that are done
    rate : factor on the planned learning rate; lower after a restart
    restarts : how often the run went back after it diverged
    history : a record an epoch
    window, epoch : sums of losses since the last line of the metrics and since the begin of the epoch, on the device
    window_steps : losses of the window
    bad : first update with a loss that is not finite, else -1
    """

    def __init__(self, device: torch.device):
        self.step, self.rate, self.restarts, self.history = 0, 1.0, 0, []
        self._set_sums(device)

    def _set_sums(self, device: torch.device, window: float = 0.0, epoch: float = 0.0, steps: int = 0) -> None:
        self.window, self.epoch = (torch.tensor(v, dtype=torch.float64, device=device) for v in (window, epoch))
        self.window_steps, self.bad = steps, torch.tensor(-1, device=device)

    def add(self, loss: torch.Tensor) -> None:
        """Count an update with this loss."""
        self.window += loss
        self.epoch += loss
        self.window_steps += 1
        self.bad = torch.where((self.bad < 0) & ~torch.isfinite(loss), self.step, self.bad)
        self.step += 1

    def state_dict(self, world: World) -> dict:
        """Return what a checkpoint keeps. All processes must call it."""
        return {
            "step": self.step,
            "rate": self.rate,
            "restarts": self.restarts,
            "history": self.history,
            "sums": world.gathered((self.window.item(), self.epoch.item())),
            "sum_steps": self.window_steps,
        }

    def load(self, state: dict, world: World) -> None:
        """Take over the state of a checkpoint, of any number of processes."""
        self.step, self.rate, self.restarts = state["step"], state["rate"], state["restarts"]
        self.history, sums = state["history"], state["sums"]
        if len(sums) != world.size:  # other processes than then: the first one takes the sums
            others = [(0.0, 0.0)] * (world.size - 1)
            mean = world.size / len(sums)
            sums = [tuple(sum(column) * mean for column in zip(*sums, strict=True)), *others]
        self._set_sums(world.device, *sums[world.rank], state["sum_steps"])


def is_same_run(found: dict, ours: dict, settings: Settings) -> bool:
    """Compare the identity in a checkpoint with that of this run.

    LibranasError if they differ in more than the settings accept, and the settings do not say to begin anew then.
    """
    names = [k for k in {**found, **ours} if found.get(k) != ours.get(k) and k not in settings.accept]
    if names and not settings.restart_on_change:
        differences = [f"{name} was {found.get(name)!r}, is {ours.get(name)!r}" for name in names]
        options = " ".join(f"--accept {name}" for name in names)
        accept = f"; or accept the change with {options}" if set(names) <= set(ACCEPTABLE) else ""
        if "epochs" in names:
            accept += ". With another number of epochs the learning rate goes another way from here on"
        raise LibranasError(
            f"The checkpoints in {settings.folder} are of another run: {'; '.join(differences)}.",
            f"Use another folder (--output), or the settings of then, or begin anew (--restart-on-change){accept}.",
        )
    return not names
