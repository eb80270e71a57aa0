"""The loop of a final training: one process or many, killed at any moment, the same to the bit when it goes on.

What is random in an update is a function of (seed, update, micro-batch): the streams of :mod:`examples` and, for
erasing, mixing, dropout and stochastic depth, the stream that begins before each micro-batch. A checkpoint thus needs
the seed and the update instead of random states, and a run may even go on with another number of processes.
"""

import copy
import logging
import math
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import numpy as np
import timm
import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from timm.loss import create_classification_loss
from timm.optim import create_optimizer_v2, get_optimizer_info
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask, FeatureDistillationTask, LogitDistillationTask, TokenDistillationTask
from timm.utils import dispatch_clip_grad, unwrap_model
from torch import nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from libranas.core.errors import LibranasError
from libranas.core.files import AppendLog
from libranas.core.meter import peak_memory
from libranas.core.progress import INTERVAL, asked, stop_when_asked, stopped
from libranas.core.random import stream_seed
from libranas.training.bad_images import BadImages
from libranas.training.checkpoints import Checkpoints
from libranas.training.distributed import World
from libranas.training.evaluation import Evaluation, evaluate
from libranas.training.images import Images, fingerprint
from libranas.training.loaders import evaluation_loader, seed_everything, training_loader
from libranas.training.order import Batches, Plan
from libranas.training.recipe import TrainingRecipe
from libranas.training.settings import ACCEPTABLE, Settings, computes_in, fitted
from libranas.training.transforms import Look

log = logging.getLogger("libranas")
_DISTILLATION = {"logit": LogitDistillationTask, "feature": FeatureDistillationTask, "token": TokenDistillationTask}


class _Diverged(Exception):
    def __init__(self, step: int, rate: float):
        self.step, self.rate = step, rate


@dataclass
class _Sums:
    """Losses since the last line and since the begin of the epoch, on the device, and the first bad update."""

    window: torch.Tensor
    epoch: torch.Tensor
    bad: torch.Tensor
    steps: int = 0

    @classmethod
    def on(cls, device: torch.device) -> "_Sums":
        zeros = torch.zeros((), dtype=torch.float64, device=device)
        return cls(zeros, zeros.clone(), torch.full((), -1, dtype=torch.int64, device=device))

    def add(self, loss: torch.Tensor, step: int) -> None:
        self.window += loss
        self.epoch += loss
        self.steps += 1
        self.bad = torch.where((self.bad < 0) & ~torch.isfinite(loss), step, self.bad)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Leave the random generators of the caller as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


class Training:
    """One run: network, images, recipe and how it is run. :meth:`fit` trains to the end.

    Parameters
    ----------
    model : nn.Module
        Trained in place. Gives logits (B, K) for images (B, C, S, S).
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
        self.plan, self.parts = self._plan(len(train))
        self.total = self.recipe.epochs * self.plan.updates
        self.identity = {
            **self.recipe.to_dict(),
            "seed": settings.seed,
            "micro_batches": self.plan.micro_batches,
            "images": fingerprint(train),
            "network and data": settings.key,
        }
        self.checkpoints = Checkpoints(settings.folder / "checkpoints", settings.keep)
        self.bad = BadImages(settings.folder, settings.bad_images, self.world.rank)
        self.batches = Batches(self.plan, self.parts)
        self.loader = training_loader(train, self.recipe, look, self.batches, self.device, settings.workers, self.bad)
        self._build(model)

    def _plan(self, count: int) -> tuple[Plan, range]:
        batch, size = self.recipe.batch_size, self.world.size
        micro = self.settings.micro_batch or batch // size
        micro = min(micro, batch)
        parts = batch // max(1, micro)
        if not micro or batch % micro or parts % size or (self.recipe.mixes and micro % 2):
            raise LibranasError(
                f"A batch of {batch} images cannot be cut into equal {'even ' * self.recipe.mixes}parts of {micro} "
                f"for {size} process(es).",
                "Choose a micro-batch that, times the number of processes, divides the batch.",
            )
        share = range(self.world.rank, parts, size)
        return Plan(count, batch, parts, self.recipe.repeats, self.settings.seed), share

    # Building -----------------------------------------------------------------------------------------

    def _build(self, model: nn.Module) -> None:
        recipe, settings, device = self.recipe, self.settings, self.device
        if settings.gradient_checkpointing:
            if not hasattr(model, "set_grad_checkpointing"):
                raise LibranasError(
                    f"{type(model).__name__} has no set_grad_checkpointing().",
                    "Train it without gradient checkpointing.",
                )
            model.set_grad_checkpointing()
        self.layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.model = model.to(device=device, memory_format=self.layout)
        with _random_state_kept():
            seed_everything(stream_seed(settings.seed, "task"), device)  # a projection has initial weights
            self.task = self._task()
        self.optimizer = self._optimizer()
        self.scheduler, _ = create_scheduler_v2(
            self.optimizer,
            sched=recipe.schedule,
            num_epochs=max(1, recipe.epochs - recipe.warmup_epochs * recipe.warmup_prefix),
            min_lr=recipe.min_lr,
            warmup_lr=recipe.warmup_lr,
            warmup_epochs=recipe.warmup_epochs,
            warmup_prefix=recipe.warmup_prefix,
            step_on_epochs=False,
            updates_per_epoch=self.plan.updates,
        )
        self.erasing = RandomErasing(recipe.erasing, mode="pixel", device=device) if recipe.erasing else None
        self.mixup = None
        if recipe.mixes:
            self.mixup = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                prob=recipe.mix_prob,
                switch_prob=recipe.mix_switch,
                label_smoothing=recipe.label_smoothing,
                num_classes=self.classes,
            )
        unused = self.world.size > 1 and self._has_unused_parameters()
        if recipe.ema is not None:
            self.task.setup_ema(recipe.ema, recipe.ema_warmup)
        if settings.compile:
            self.task.compile()
        if self.world.size > 1:
            ids = [device.index] if device.type == "cuda" else None
            self.task.prepare_distributed(device_ids=ids, find_unused_parameters=unused)
        precision = recipe.precision
        if not computes_in(precision, device):
            log.info("This processor only emulates %s: float32 is used.", precision)
            precision = "float32"
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
        dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
        self.cast = partial(torch.autocast, device.type, dtype=dtype) if dtype else nullcontext

    def _optimizer(self) -> torch.optim.Optimizer:
        recipe, arguments = self.recipe, {}
        try:
            info = get_optimizer_info(recipe.optimizer)
        except ValueError:
            raise LibranasError(
                f"recipe: timm has no optimizer {recipe.optimizer!r}.", "timm.optim.list_optimizers() lists them."
            ) from None
        if info.has_betas:
            arguments["betas"] = recipe.betas
        if info.has_eps:
            arguments["eps"] = recipe.eps
        return create_optimizer_v2(
            self.task.get_trainable_module(),  # with what distillation adds to the network
            opt=recipe.optimizer,
            lr=recipe.effective_lr(),
            weight_decay=recipe.weight_decay,
            momentum=recipe.betas[0],
            layer_decay=recipe.layer_decay,
            **arguments,
        )

    def _task(self):
        recipe = self.recipe
        loss = create_classification_loss(
            recipe.loss,
            smoothing=recipe.label_smoothing,
            soft_targets=recipe.mixes,
            bce_target_thresh=recipe.bce_threshold,
        )
        if recipe.teacher is None:
            return ClassificationTask(self.model, loss, device=self.device, verbose=False)
        name, kind = type(self.model).__name__, recipe.distillation
        needed = {"token": ("set_distilled_training",), "feature": ("forward_features", "forward_head")}.get(kind, ())
        if lacking := [need for need in ("pretrained_cfg", *needed) if not hasattr(self.model, need)]:
            raise LibranasError(
                f"recipe: {kind} distillation is not possible for {name}, which has no {lacking[0]}.",
                "Train a network of timm or of a search space, with `distillation` logit; or without a teacher.",
            )
        task = _DISTILLATION[kind](
            self.model,
            teacher_model=self._teacher(),
            criterion=loss,
            distill_loss_weight=recipe.distillation_weight,
            task_loss_weight=1 - recipe.distillation_weight,
            **({} if kind == "feature" else {"temperature": recipe.temperature}),
            device=self.device,
            verbose=False,
        )
        # What images are normalised with here; timm takes what is usual for the network.
        for name, values in (("student_mean", self.look.mean), ("student_std", self.look.std)):
            setattr(task, name, torch.tensor(values, device=self.device).view(1, -1, 1, 1))
        return task

    def _teacher(self) -> nn.Module:
        """The teacher with its own head, for images of this size."""
        name, look = self.recipe.teacher, self.look
        try:
            teacher = timm.create_model(name, pretrained=True, in_chans=look.channels)
            if look.size != teacher.pretrained_cfg["input_size"][-1] and hasattr(teacher, "set_input_size"):
                teacher.set_input_size(img_size=(look.size, look.size))
            if len(teacher.pretrained_cfg["mean"]) != look.channels:
                raise ValueError(f"it was trained on images of {len(teacher.pretrained_cfg['mean'])} channels")
            with torch.inference_mode():
                teacher.eval()(torch.zeros(1, look.channels, look.size, look.size))
        except Exception as error:  # timm, the network and the hub have many of their own
            raise LibranasError(
                f"recipe: the teacher {name} cannot be made for images of {look.size} px: "
                f"{type(error).__name__}: {error}.",
                "Name a timm model with weights, such as regnety_160.deit_in1k, or local-dir:FOLDER of an exported "
                "network. The weights are downloaded, unless they are there already.",
            ) from error
        if self.recipe.distillation != "feature" and teacher.num_classes != self.classes:
            raise LibranasError(
                f"recipe: the teacher {name} knows {teacher.num_classes} classes, the images have {self.classes}.",
                "Take a teacher that was trained on these classes (local-dir:FOLDER of an exported network), or "
                "`distillation` feature, which needs no classes.",
            )
        return teacher.to(self.device)

    def _has_unused_parameters(self) -> bool:
        """Whether a parameter gets no gradient, which distributed training has to be told."""
        probe = copy.deepcopy(self.model).train()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            size = (2, self.look.channels, self.look.size, self.look.size)
            logits = probe(torch.randn(size, device=self.device))
            sum(part.sum() for part in (logits if isinstance(logits, tuple) else (logits,))).backward()
        return any(p.grad is None for p in probe.parameters() if p.requires_grad)

    # Training -----------------------------------------------------------------------------------------

    def fit(self, on_epoch: Callable[[dict], None] = lambda record: None) -> list[dict]:
        """Train to the end, from the newest checkpoint if there is one; returns a record an epoch.

        Raises
        ------
        libranas.core.progress.Stopped
            After SIGTERM or SIGUSR1, once a checkpoint is written.
        LibranasError
            If the loss is not finite, the checkpoint is of another run, or too many images cannot be read.
        """
        self.step, self.rate, self.restarts, self.history = 0, 1.0, 0, []
        self.sums, self.metrics, self.board = _Sums.on(self.device), None, None
        plan, rate = self.plan, self.recipe.effective_lr()
        log.info(
            "%d images, %d updates an epoch; batches of %d images (%d micro-batches of %d); peak learning rate %g",
            *(plan.count, plan.updates, plan.batch, plan.micro_batches, plan.batch // plan.micro_batches, rate),
        )
        with _random_state_kept(), stop_when_asked(), self._bar():
            try:
                self._resume()
                while diverged := self._run(on_epoch):
                    self._after_divergence(diverged)
                return self.history
            finally:
                self._close_metrics()

    @contextmanager
    def _bar(self) -> Iterator[None]:
        """A bar on a terminal, with images a second and the time left."""
        shown = self.world.first and sys.stderr.isatty()
        images = self.total * self.plan.batch
        with (
            tqdm(total=images, unit=" images", unit_scale=True, disable=not shown, leave=False) as self.bar,
            logging_redirect_tqdm() if shown else nullcontext(),
        ):
            yield

    def _run(self, on_epoch: Callable[[dict], None]) -> _Diverged | None:
        """Train to the end, or until the loss is not finite. That is returned, without the traceback, which would keep
        the reading processes alive."""
        try:
            self._train(on_epoch)
        except _Diverged as diverged:
            return diverged.with_traceback(None)
        return None

    def _train(self, on_epoch: Callable[[dict], None]) -> None:
        updates, self.saved, self.told = self.plan.updates, time.monotonic(), time.monotonic()
        while len(self.history) < self.recipe.epochs:
            epoch = len(self.history)
            if self.step < (epoch + 1) * updates:
                self.batches.epoch, self.batches.first = epoch, self.step % updates
                self.task.train()
                batches, self.since, self.seen = iter(self.loader), time.monotonic(), 0
                while self.step < (epoch + 1) * updates:
                    self._update(batches)
                    last = self.step == (epoch + 1) * updates
                    if self.step % self.settings.log_steps == 0 or last:
                        self._line(epoch)
                    if not last:
                        self._pause()
                del batches  # ends its workers
                self._save()  # before the evaluation, which can be long
            self._end_of_epoch(epoch, on_epoch)
            self._pause()

    def _update(self, batches: Iterator) -> None:
        self.scheduler.step_update(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] *= self.rate
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for i, part in enumerate(self.parts):
            images, targets = next(batches)
            seed_everything(stream_seed(self.settings.seed, "update", self.step, part), self.device)
            if self.erasing:
                images = self.erasing(images)
            if self.mixup:
                images, targets = self.mixup(images, targets)
            images = images.contiguous(memory_format=self.layout)
            with nullcontext() if i == len(self.parts) - 1 else self.task.no_sync():
                with self.cast():
                    loss = self.task(images, targets)["loss"]
                self.scaler.scale(loss / len(self.parts)).backward()
            total += loss.detach() / len(self.parts)
        if self.recipe.clip_grad:
            self.scaler.unscale_(self.optimizer)
            dispatch_clip_grad(self.task.get_clip_parameters(), self.recipe.clip_grad, mode="norm")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.sums.add(total, self.step)
        self.step += 1
        self.seen += self.plan.batch
        self.bar.update(self.plan.batch)
        self.task.update_ema(self.step)

    def _pause(self) -> None:
        """What may happen between two updates, on all processes together: a checkpoint, the end."""
        due = self.world.first and time.monotonic() - self.saved > self.settings.checkpoint_seconds
        if self.settings.checkpoint_steps:
            due = due or self.step % self.settings.checkpoint_steps == 0
        number, due = self.world.largest(asked() or 0, due)
        if number or due:
            self._save()
        if number:
            raise stopped(signal.Signals(int(number)), f"after update {self.step} of {self.total}")

    def _line(self, epoch: int) -> None:
        """Write the mean loss since the last line; raise if one was not finite."""
        self._check_finite()
        loss = self.world.total(self.sums.window).item() / self.world.size / self.sums.steps
        speed, memory = self.seen / (time.monotonic() - self.since), peak_memory(self.device)
        self._say("updates", epoch=epoch, loss=loss, lr=self._rate(), images_per_second=speed, peak_bytes=memory)
        self.bar.set_postfix(loss=f"{loss:.3f}", memory=f"{memory / 2**30:.1f} GiB")
        if self.bar.disable and time.monotonic() - self.told > INTERVAL:
            left = timedelta(seconds=round((self.total - self.step) * self.plan.batch / speed))
            log.info(
                "update %d of %d: loss %.4f, %.0f images/s, %.1f GiB, about %s left without evaluations",
                *(self.step, self.total, loss, speed, memory / 2**30, left),
            )
            self.told = time.monotonic()
        self.sums.window.zero_()
        self.sums.steps = 0
        self.since, self.seen = time.monotonic(), 0
        self.world.first_does(self.bad.check)

    def _rate(self) -> float:
        return max(group["lr"] for group in self.optimizer.param_groups)

    def _end_of_epoch(self, epoch: int, on_epoch: Callable[[dict], None]) -> None:
        loss = self.world.total(self.sums.epoch.clone()).item() / self.world.size / self.plan.updates
        record = {"epoch": epoch, "loss": loss, "lr": self._rate()}
        wanted = (epoch + 1) % self.recipe.evaluate_every == 0 or epoch + 1 == self.recipe.epochs
        if self.val is not None and wanted:
            result = self.evaluate(self.val)
            record |= {"val_accuracy": result.top1, "val_top5": result.top5, "val_loss": result.loss}
        self.history.append(record)
        self.sums.epoch.zero_()
        self._say("epoch", **record)  # before the checkpoint, so that a kill between the two loses no line
        self._save()
        on_epoch(record)

    def evaluate(self, images: Images, averaged: bool | None = None) -> Evaluation:
        """Accuracy on a set; `averaged`: of the averaged weights (default: if there are any)."""
        model = self.network(averaged)
        self.world.same_buffers(model)
        training = [module for module in model.modules() if module.training]
        batch = self.plan.batch // self.plan.micro_batches
        share = range(self.world.rank, len(images), self.world.size)
        workers = self.settings.workers
        loader = evaluation_loader(images, self.recipe, self.look, share, batch, self.device, workers, self.bad)
        try:
            return evaluate(model.eval(), loader, images.label_N, self.classes, self.world, self.cast)
        finally:
            for module in training:
                module.training = True

    def network(self, averaged: bool | None = None) -> nn.Module:
        """The trained network itself, without wrappers; the averaged one if the recipe averages."""
        averaged = self.recipe.ema is not None if averaged is None else averaged
        return unwrap_model(self.task.get_eval_model(ema=averaged))

    # Checkpoints --------------------------------------------------------------------------------------

    def _check_finite(self) -> None:
        bad = self.sums.bad.item()
        (last,) = self.world.largest(-bad if bad >= 0 else -math.inf)  # the earliest of all processes
        if last > -math.inf:
            raise _Diverged(int(-last), self._rate())

    def _save(self) -> None:
        self._check_finite()
        sums = self.world.gathered((self.sums.window.item(), self.sums.epoch.item()))
        if self.world.first:
            state = {
                "identity": self.identity,
                "step": self.step,
                "position": {"epoch": self.step // self.plan.updates, "update": self.step % self.plan.updates},
                "model": self.network(False).state_dict(),
                "task": self.task.get_task_state(),
                "ema": self.network(True).state_dict() if self.recipe.ema is not None else None,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "rate": self.rate,
                "restarts": self.restarts,
                "sums": sums,
                "sum_steps": self.sums.steps,
                "history": self.history,
            }
            if all(torch.isfinite(t).all() for t in state["model"].values() if t.is_floating_point()):
                self.checkpoints.save(self.step, state)
            else:
                self.sums.bad.fill_(self.step - 1)
        self._check_finite()
        self.saved = time.monotonic()

    def _resume(self) -> None:
        name = self.world.first_does(self._newest)
        if name is None:
            self._open_metrics()
            if self.recipe.nan_restarts:
                self._save()  # something to go back to
        else:
            self._go_back_to(name)
            log.info("Going on after update %d of %d.", self.step, self.total)

    def _newest(self) -> str | None:
        """Name of the checkpoint to go on from."""
        found = self.checkpoints.newest()
        if found and not self._same(found[1]["identity"]):
            self.checkpoints.clear()
            found = None
        return found and found[0].name

    def _go_back_to(self, name: str) -> None:
        path = self.checkpoints.folder / name
        try:
            state = self.checkpoints.load(path)
        except ValueError as error:
            raise LibranasError(
                f"Process {self.world.rank} cannot read {path}: {error}.",
                "All machines must see the same folder.",
            ) from None
        self.network(False).load_state_dict(state["model"])
        self.task.load_task_state(state["task"] or None)
        if self.recipe.ema is not None:
            self.network(True).load_state_dict(state["ema"])
        own = [dict(group) for group in self.optimizer.param_groups]
        if len(own) != len(state["optimizer"]["param_groups"]):
            raise LibranasError(
                f"{path} has other groups of parameters: with the weight decay 0 there is one group, else two.",
                "Go on with the weight decay of then, or a small one instead of 0.",
            )
        self.optimizer.load_state_dict(state["optimizer"])
        for group, fresh in zip(self.optimizer.param_groups, own, strict=True):
            group |= {name: fresh[name] for name in ("betas", "momentum", "eps", "weight_decay") if name in fresh}
        if state["scaler"]:  # none of a run in another precision
            self.scaler.load_state_dict(state["scaler"])
        self.step, self.rate, self.restarts = state["step"], state["rate"], state["restarts"]
        self.history, self.sums = state["history"], _Sums.on(self.device)
        sums = state["sums"]
        if len(sums) != self.world.size:  # other processes than then: the first one takes the sums
            others = [(0.0, 0.0)] * (self.world.size - 1)
            mean = self.world.size / len(sums)
            sums = [tuple(sum(column) * mean for column in zip(*sums, strict=True)), *others]
        window, epoch = sums[self.world.rank]
        self.sums.window += window
        self.sums.epoch += epoch
        self.sums.steps = state["sum_steps"]
        self.bar.reset()
        self.bar.initial = self.bar.n = self.bar.last_print_n = self.step * self.plan.batch  # not of this run's speed
        self.bar.refresh()
        self._open_metrics()

    def _same(self, identity: dict) -> bool:
        """Whether a checkpoint is of this run; an error that names the differences, unless they are accepted."""
        names = [
            name
            for name in {**identity, **self.identity}
            if identity.get(name) != self.identity.get(name) and name not in self.settings.accept
        ]
        differences = [f"{name} was {identity.get(name)!r}, is {self.identity.get(name)!r}" for name in names]
        accept = "; or accept the change by its name" if set(names) <= set(ACCEPTABLE) else ""
        if "epochs" in names:
            accept += ". With another number of epochs the learning rate goes another way from here on"
        if differences and not self.settings.restart_on_change:
            raise LibranasError(
                f"The checkpoints in {self.checkpoints.folder} are of another run: {'; '.join(differences)}.",
                f"Use another folder, or the settings of then{accept}.",
            )
        return not differences

    def _after_divergence(self, diverged: _Diverged) -> None:
        good = self.world.first_does(lambda: next((path.name for path in self.checkpoints.paths()), None))
        what = (
            f"The training loss is not finite at update {diverged.step + 1} of {self.total} "
            f"(learning rate {diverged.rate:.3g})."
        )
        if self.restarts >= self.recipe.nan_restarts or good is None:
            folder = self.checkpoints.folder
            kept = "There is no checkpoint yet" if good is None else f"The last good one is {folder / good}"
            raise LibranasError(
                what,
                f"{kept}. Lower `lr` of the recipe (now {self.recipe.lr:g}), warm up longer, or let it restart at a "
                "lower rate (`nan_restarts`).",
            )
        restarts, rate = self.restarts + 1, self.rate * self.recipe.nan_lr_factor
        self._go_back_to(good)
        self.restarts, self.rate = restarts, rate
        log.warning("%s Going on after update %d, at %g times the planned rate.", what, self.step, rate)

    # Metrics ------------------------------------------------------------------------------------------

    def _open_metrics(self) -> None:
        """Open ``metrics.jsonl`` without the lines of updates that are about to be repeated."""
        if not self.world.first:
            return
        self._close_metrics()
        path = self.settings.folder / "metrics.jsonl"
        log_file = AppendLog(path)  # locks it, and cuts off a torn line
        log_file.keep(sum(self._is_past(record) for record in log_file.records))
        self.metrics = log_file
        if self.settings.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise LibranasError(
                    f"TensorBoard's files need the package {error.name}.", "pip install 'libranas[tensorboard]'"
                ) from None
            self.board = SummaryWriter(self.settings.folder / "tensorboard", purge_step=self.step + 1)

    def _is_past(self, record: dict) -> bool:
        """An epoch's line can be of a checkpoint that was written before its evaluation."""
        done = record["event"] != "epoch" or record["epoch"] < len(self.history)
        return done and record["step"] <= self.step

    def _close_metrics(self) -> None:
        for opened in (self.metrics, self.board):
            if opened:
                opened.close()
        self.metrics = self.board = None

    def _say(self, event: str, **record) -> None:
        if self.metrics:
            self.metrics.append({"event": event, "step": self.step, **record})
        if self.board:
            for name, value in record.items():
                self.board.add_scalar(f"{event}/{name}", value, self.step)
