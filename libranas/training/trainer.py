"""The loop of a final training: one process or many, killed at any moment, the same to the bit when it goes on.

All that is random in an update follows from (seed, update, micro-batch). So a checkpoint needs no random states, and a
run may even go on with another number of processes.
"""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

from libranas.core.errors import LibranasError
from libranas.core.progress import asked, stop_when_asked, stopped
from libranas.training.bad_images import BadImages
from libranas.training.checkpoints import Checkpoints
from libranas.training.distributed import World
from libranas.training.evaluation import Evaluation, evaluate
from libranas.training.images import Images, fingerprint
from libranas.training.loaders import evaluation_loader, training_loader
from libranas.training.metrics import Metrics
from libranas.training.order import Batches, make_plan
from libranas.training.randomness import random_state_kept
from libranas.training.recipe import TrainingRecipe
from libranas.training.run_state import Diverged, RunState, is_same_run
from libranas.training.settings import ACCEPTABLE, Settings, fitted
from libranas.training.transforms import Look
from libranas.training.updates import Updater

log = logging.getLogger("libranas")


class Training:
    """One run: network, images, recipe and how it is run. :meth:`fit` trains to the end.

    Parameters
    ----------
    model : trained in place; gives logits (B, K) for images (B, C, S, S)
    train, val : images; `val` may be None. It chooses nothing.
    look : what the network sees
    """

    def __init__(
        self,
        model: nn.Module,
        train: Images,
        val: Images | None,
        look: Look,
        recipe: TrainingRecipe,
        settings: Settings,
        world: World | None = None,
    ):
        self.world = world or World()
        self.recipe, self.settings, self.look, self.val = fitted(recipe, len(train)), settings, look, val
        self.device, self.classes = self.world.device, len(train.classes)
        if wrong := [name for name in settings.accept if name not in ACCEPTABLE]:
            raise LibranasError(
                f"A changed {wrong[0]} cannot be accepted: a checkpoint is of no use with another one.",
                f"Use another folder. What can be accepted: {', '.join(ACCEPTABLE)}.",
            )
        if self.recipe != recipe:
            log.info("The batch is %d images: there are %d to train on.", self.recipe.batch_size, len(train))
        self.plan = make_plan(self.recipe, len(train), settings, self.world.size)
        self.total = self.recipe.epochs * self.plan.updates
        self.identity = {
            **self.recipe.to_dict(),
            "seed": settings.seed,
            "micro_batches": self.plan.micro_batches,
            "images": fingerprint(train),
            "network and data": settings.key,
        }
        self.checkpoints = Checkpoints(settings.folder / "checkpoints")
        self.saved = time.monotonic()
        self.bad = BadImages(settings.folder, settings.bad_images, self.world.rank)
        self.batches = Batches(self.plan, range(self.world.rank, self.plan.micro_batches, self.world.size))
        self.loader = training_loader(train, self.recipe, look, self.batches, self.device, settings.workers, self.bad)
        self.updater = Updater(
            *(model, self.recipe, settings, look, self.classes),
            *(self.world, self.batches.parts, self.plan.updates),
        )
        self.state = RunState(self.device)
        self.metrics = Metrics(settings, self.world.first, self.device, self.total, self.plan.batch)

    def fit(self, on_epoch: Callable[[dict], None] = lambda record: None) -> list[dict]:
        """Train to the end, from the newest checkpoint if there is one; return a record an epoch.

        Raises :class:`libranas.core.progress.Stopped` after SIGTERM or SIGUSR1, once a checkpoint is written, and
        LibranasError if the loss is not finite, the checkpoint is of another run, or too many images cannot be read.
        """
        plan, rate = self.plan, self.recipe.effective_lr()
        log.info(
            "%d images, %d updates an epoch; batches of %d images (%d micro-batches of %d); peak learning rate %g",
            *(plan.count, plan.updates, plan.batch, plan.micro_batches, plan.batch // plan.micro_batches, rate),
        )
        with random_state_kept(), stop_when_asked(), self.metrics.open():
            self._resume()
            while diverged := self._run(on_epoch):
                self._after_divergence(diverged)
            return self.state.history

    def evaluate(self, images: Images, averaged: bool | None = None) -> Evaluation:
        """Measure accuracy on a set; `averaged`: of the averaged weights (default: if there are any)."""
        model = self.network(averaged)
        self.world.same_buffers(model)
        training = [module for module in model.modules() if module.training]
        batch = self.plan.batch // self.plan.micro_batches
        share = range(self.world.rank, len(images), self.world.size)
        workers = self.settings.workers
        loader = evaluation_loader(images, self.recipe, self.look, share, batch, self.device, workers, self.bad)
        try:
            return evaluate(model.eval(), loader, images.label_N, self.classes, self.world, self.updater.cast)
        finally:
            for module in training:
                module.training = True

    def network(self, averaged: bool | None = None) -> nn.Module:
        """Return the trained network itself, without wrappers; the averaged one if the recipe averages."""
        return self.updater.network(averaged)

    def _run(self, on_epoch: Callable[[dict], None]) -> Diverged | None:
        """Train to the end, or until the loss is not finite; return that without its traceback, which would keep the
        reading processes alive."""
        try:
            while len(self.state.history) < self.recipe.epochs:
                self._epoch(len(self.state.history))
                self._end_of_epoch(on_epoch)
                self._pause()
        except Diverged as diverged:
            return diverged.with_traceback(None)
        return None

    def _epoch(self, epoch: int) -> None:
        """Do the updates of an epoch that are not done yet."""
        updates, state = self.plan.updates, self.state
        end = (epoch + 1) * updates
        if state.step == end:
            return
        self.batches.epoch, self.batches.first = epoch, state.step % updates
        self.updater.task.train()
        batches = iter(self.loader)
        self.metrics.start_clock()
        while state.step < end:
            self._update(batches)
            if state.step % self.settings.log_steps == 0 or state.step == end:
                self._line(epoch)
            if state.step < end:
                self._pause()
        del batches  # ends its workers
        self._save()  # before the evaluation, which can be long

    def _update(self, batches: Iterator) -> None:
        self.state.add(self.updater.update(batches, self.state.step, self.state.rate))
        self.metrics.count_update()

    def _pause(self) -> None:
        """Checkpoint or stop between two updates, agreed by all processes."""
        due = self.world.first and time.monotonic() - self.saved > self.settings.checkpoint_seconds
        if self.settings.checkpoint_steps:
            due = due or self.state.step % self.settings.checkpoint_steps == 0
        number, due = self.world.largest(asked() or 0, due)
        if number or due:
            self._save()
        if number:
            raise stopped(signal.Signals(int(number)), f"after update {self.state.step} of {self.total}")

    def _line(self, epoch: int) -> None:
        """Write the mean loss since the last line; raise if one was not finite."""
        self._check_finite()
        state = self.state
        loss = self.world.mean(state.window) / state.window_steps
        self.metrics.tell_updates(epoch, state.step, loss, self.updater.learning_rate())
        state.window.zero_()
        state.window_steps = 0
        self.world.first_does(self.bad.check)

    def _end_of_epoch(self, on_epoch: Callable[[dict], None]) -> None:
        state, epoch = self.state, len(self.state.history)
        loss = self.world.mean(state.epoch) / self.plan.updates
        record = {"epoch": epoch, "loss": loss, "lr": self.updater.learning_rate()}
        wanted = (epoch + 1) % self.recipe.evaluate_every == 0 or epoch + 1 == self.recipe.epochs
        if self.val is not None and wanted:
            result = self.evaluate(self.val)
            record |= {"val_accuracy": result.top1, "val_top5": result.top5, "val_loss": result.loss}
        state.history.append(record)
        state.epoch.zero_()
        self.metrics.tell("epoch", state.step, **record)  # before the checkpoint: a kill between them loses no line
        self._save()
        on_epoch(record)

    def _check_finite(self) -> None:
        bad = self.state.bad.item()
        (last,) = self.world.largest(-bad if bad >= 0 else -math.inf)  # the earliest of all processes
        if last > -math.inf:
            raise Diverged(int(-last), self.updater.learning_rate())

    def _save(self) -> None:
        self._check_finite()
        state = self.state.state_dict(self.world)
        if self.world.first:
            state |= {"identity": self.identity, **self.updater.state_dict()}
            if all(torch.isfinite(t).all() for t in state["model"].values() if t.is_floating_point()):
                self.checkpoints.save(self.state.step, state)
            else:
                self.state.bad.fill_(self.state.step - 1)
        self._check_finite()
        self.saved = time.monotonic()

    def _resume(self) -> None:
        def newest() -> str | None:
            found = self.checkpoints.newest(lambda state: is_same_run(state["identity"], self.identity, self.settings))
            return found and found[0].name

        name = self.world.first_does(newest)
        if name is None:
            self.metrics.go_on_from(self.state)
            if self.recipe.nan_restarts:
                self._save()  # something to go back to
        else:
            self._go_back_to(name)
            log.info("Going on after update %d of %d.", self.state.step, self.total)

    def _go_back_to(self, name: str) -> None:
        path = self.checkpoints.folder / name
        try:
            state = self.checkpoints.load(path)
        except ValueError as error:
            raise LibranasError(
                f"Process {self.world.rank} cannot read {path}: {error}.",
                "All machines must see the same folder.",
            ) from None
        self.updater.load(state, path)
        self.state.load(state, self.world)
        self.metrics.go_on_from(self.state)

    def _after_divergence(self, diverged: Diverged) -> None:
        good = self.world.first_does(lambda: next((path.name for path in self.checkpoints.paths()), None))
        what = (
            f"The training loss is not finite at update {diverged.step + 1} of {self.total} "
            f"(learning rate {diverged.rate:.3g})."
        )
        if self.state.restarts >= self.recipe.nan_restarts or good is None:
            folder = self.checkpoints.folder
            kept = "There is no checkpoint yet" if good is None else f"The last good one is {folder / good}"
            raise LibranasError(
                what,
                f"{kept}. Lower `lr` of the recipe (now {self.recipe.lr:g}), warm up longer, or let it restart at a "
                "lower rate (`nan_restarts`).",
            )
        restarts, rate = self.state.restarts + 1, self.state.rate * self.recipe.nan_lr_factor
        self._go_back_to(good)
        self.state.restarts, self.state.rate = restarts, rate
        log.warning("%s Going on after update %d, at %g times the planned rate.", what, self.state.step, rate)
