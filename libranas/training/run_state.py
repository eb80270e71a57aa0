"""How far a training is, whether its loss is finite, and whether a checkpoint belongs to it."""

from dataclasses import dataclass, field

import torch

from libranas.core.errors import LibranasError
from libranas.training.distributed import World
from libranas.training.settings import ACCEPTABLE, Settings


class Diverged(Exception):
    """The loss of an update (`step`, from 0) was not finite; `rate` is the learning rate."""

    def __init__(self, step: int, rate: float):
        self.step, self.rate = step, rate


class LossSums:
    """Sums of losses since the last line (`window`) and the begin of the `epoch`, on the device.

    `steps` counts the losses of the window. `bad` is the first update with a loss that is not finite, else -1.
    """

    def __init__(self, device: torch.device, window: float = 0.0, epoch: float = 0.0, steps: int = 0):
        self.window, self.epoch = (torch.tensor(v, dtype=torch.float64, device=device) for v in (window, epoch))
        self.bad = torch.tensor(-1, device=device)
        self.steps = steps

    def add(self, loss: torch.Tensor, step: int) -> None:
        self.window += loss
        self.epoch += loss
        self.steps += 1
        self.bad = torch.where((self.bad < 0) & ~torch.isfinite(loss), step, self.bad)


@dataclass
class RunState:
    """How far a run is.

    Attributes
    ----------
    step : updates that are done
    rate : factor on the planned learning rate; lower after a restart
    restarts : how often the run went back after it diverged
    history : a record an epoch
    """

    sums: LossSums
    step: int = 0
    rate: float = 1.0
    restarts: int = 0
    history: list[dict] = field(default_factory=list)

    def state_dict(self, world: World) -> dict:
        """What a checkpoint keeps of it. All processes must call it."""
        return {
            "step": self.step,
            "rate": self.rate,
            "restarts": self.restarts,
            "history": self.history,
            "sums": world.gathered((self.sums.window.item(), self.sums.epoch.item())),
            "sum_steps": self.sums.steps,
        }

    def load(self, state: dict, world: World) -> None:
        """Take over the state of a checkpoint, of any number of processes."""
        self.step, self.rate, self.restarts = state["step"], state["rate"], state["restarts"]
        self.history, sums = state["history"], state["sums"]
        if len(sums) != world.size:  # other processes than then: the first one takes the sums
            others = [(0.0, 0.0)] * (world.size - 1)
            mean = world.size / len(sums)
            sums = [tuple(sum(column) * mean for column in zip(*sums, strict=True)), *others]
        self.sums = LossSums(world.device, *sums[world.rank], state["sum_steps"])


def is_same_run(found: dict, ours: dict, settings: Settings) -> bool:
    """Compare the identity in a checkpoint with that of this run.

    Raises
    ------
    LibranasError
        If they differ in more than the settings accept, and the settings do not say to begin anew then.
    """
    names = [k for k in {**found, **ours} if found.get(k) != ours.get(k) and k not in settings.accept]
    if names and not settings.restart_on_change:
        differences = [f"{name} was {found.get(name)!r}, is {ours.get(name)!r}" for name in names]
        accept = "; or accept the change by its name" if set(names) <= set(ACCEPTABLE) else ""
        if "epochs" in names:
            accept += ". With another number of epochs the learning rate goes another way from here on"
        raise LibranasError(
            f"The checkpoints in {settings.folder} are of another run: {'; '.join(differences)}.",
            f"Use another folder, or the settings of then{accept}.",
        )
    return not names
