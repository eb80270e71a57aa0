"""State that the passes of one scoring call share: network, batch, random numbers, modes and hooks."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.core.scorecard import Axis
from libranas.networks.device import is_asynchronous
from libranas.zero_cost.anatomy import Anatomy, examine, is_known, is_plain_norm
from libranas.zero_cost.collected import Collected
from libranas.zero_cost.executor import follows
from libranas.zero_cost.hooks import Recorder, contiguous_gradient, hooked, no_norm, switched
from libranas.zero_cost.options import Options
from libranas.zero_cost.parameters import parameters_of, unseen_layers, weight_of
from libranas.zero_cost.proxy import DATA, EVALUATION, HESSIAN, JACOBIAN, Pass

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Context:
    """One scoring call.

    Parameters
    ----------
    model, inputs, targets, seed, options, macs, readout
        As for :func:`libranas.zero_cost.score.score`.
    collected : Collected
        Takes what the passes capture.

    Attributes
    ----------
    train : bool
        Whether batch normalisation is in training mode.
    mixes : bool
        Whether the logits of an image depend on the other images of its batch in evaluation mode too.
    coupled : bool
        Whether they do in the network's mode.
    by_rule : bool
        Whether the rules give the gradients of all layers. Otherwise autograd does, one unit at a time.
    by_hand : bool
        Whether :class:`~libranas.zero_cost.executor.Executor` computes what the network does.
    other_rows : axis -> a place whose rows are not as many for each image, in the order of the images
    rows : layer -> numbers of rows that an image has at its uses
    kernel_by_rule : bool
        Whether the rules give the gradients of all weights that the tangent kernel counts.
    unseen : places of weights that multiply images but are no layers
    units : int
        Number of gradient units in the batch.
    joins_jacobian : bool
        Whether the data pass shows the gradients at the images, too.
    apart : bool
        Whether the data pass runs single images in evaluation mode. It then shows the evaluation pass too.
    axes : axis name -> Axis
        Known after the first forward pass.
    parts : int
        Number of parts that the batch is run in, so that it fits in memory.
    copy_outputs : bool
        See :class:`~libranas.zero_cost.hooks.Recorder`.
    doubts : see :class:`~libranas.zero_cost.captures.Gradient`
    """

    def __init__(
        self,
        model: nn.Module,
        inputs,
        targets,
        seed: int,
        options: Options,
        collected: Collected,
        macs: int | None = None,
        readout: tuple[torch.Tensor, torch.Tensor] | None = None,
    ):
        self.model, self.inputs, self.seed, self.options = model, inputs, seed, options
        self.collected, self.macs, self.readout = collected, macs, readout or (inputs, targets)
        self.anatomy: Anatomy = examine(model, options.features)
        self.axes: dict[str, Axis] = {}
        self.parts, self.copy_outputs = 1, False
        self.doubts: list[torch.Tensor] | None = [] if is_asynchronous(inputs) else None
        self.known = is_known(self.anatomy) and len(self.anatomy.plain) == len(self.anatomy.layers)
        self.by_rule = True
        whole = options.window is None and not options.features
        self.by_hand = whole and self.known and follows(model)
        self.other_rows: dict[str, str] = {}
        self.kernel_by_rule = all(m.weight is None or is_plain_norm(m) for m in self.anatomy.norms.values())
        self.rows: dict[str, set[int]] = {}
        self.unseen: set[str] = set()
        self.convolutional = sum(isinstance(m, nn.Conv2d) for m in self.anatomy.layers.values()) > 1
        self.train = bool(self.anatomy.batch_norms) if options.mode == "auto" else options.mode == "train"
        self._set_mode(self.train)
        self.targets = targets
        # Without running statistics batch normalisation couples the images in evaluation mode too.
        self.choose_units(mixes=any(m.running_mean is None for m in self.anatomy.batch_norms.values()))
        # The kernel needs runs of its own, and with a window the data pass does not go back to the images.
        self.joins_jacobian = (
            collected.wants("input_gradient")
            and not collected.wants("kernel")
            and collected.wants("gradient")
            and options.window is None
        )
        if options.window is not None:
            self.dry_run()

    def choose_units(self, mixes: bool) -> None:
        """Choose what statistics of a gradient run over."""
        self.mixes, images = mixes, len(self.inputs)
        self.coupled = mixes or (self.train and bool(self.anatomy.batch_norms))
        sample = not self.coupled if self.options.unit == "auto" else self.options.unit == "sample"
        self.units = images if sample else self.options.pieces
        self.apart = not self.train and not self.coupled and sample
        if images % self.units:
            raise LibranasError(
                f"A batch of {images} cannot be cut into {self.units} equal micro-batches.",
                "Choose a batch size that the option pieces divides, or other pieces.",
            )

    def actual(self, pass_: Pass) -> Pass:
        """Return the pass that shows what `pass_` does: one run of the network serves several."""
        return DATA if pass_ in self._of_data else pass_

    def shown_by(self, pass_: Pass) -> tuple[Pass, ...]:
        """Return the passes whose needs a run of `pass_` meets."""
        return (DATA, *self._of_data) if pass_ == DATA else (pass_,)

    @property
    def _of_data(self) -> tuple[Pass, ...]:
        """Return the passes that the data pass shows, too."""
        return (EVALUATION,) * self.apart + (JACOBIAN,) * self.joins_jacobian

    # -- tensors and random numbers --

    def generator(self, *names: str) -> torch.Generator:
        """Return the random numbers of the stream called `names`."""
        return torch.Generator().manual_seed(stream_seed(self.seed, *names))

    def tensors(self, pass_: Pass) -> dict[str, torch.Tensor]:
        """Return detached parameters and copied buffers (batch norm writes into them) in the pass's precision."""
        dtype = self._dtype(pass_)

        def prepared(tensor):
            if not tensor.is_floating_point():
                return tensor.clone()
            tensor = tensor.clone() if tensor.is_inference() else tensor.detach()
            tensor = self._laid_out(tensor.to(dtype), pass_)
            return tensor.abs() if pass_.weights == "absolute" else tensor

        # A parameter that two modules share must stay one tensor.
        named = dict(self.model.named_parameters(remove_duplicate=False))
        own = {id(p): prepared(p) for p in named.values()}
        buffers = dict(self.model.named_buffers(remove_duplicate=False))
        own |= {id(b): prepared(b).clone() for b in buffers.values()}
        return {name: own[id(tensor)] for name, tensor in (named | buffers).items()}

    def batch(self, pass_: Pass) -> torch.Tensor:
        """Return the images of a pass, shape (B, C, H, W)."""
        if pass_.batch == "noise":
            return self._laid_out(self.noise_images("noise"), pass_)
        if pass_.batch == "ones":
            return torch.ones_like(self.inputs[:1], dtype=self._dtype(pass_))
        images = self.readout[0] if pass_.batch == "readout" else self.inputs
        return self._laid_out(images.to(self._dtype(pass_)), pass_)

    def noise_images(self, *stream: str) -> torch.Tensor:
        """Return images from N(0, 1)."""
        size = (self.options.noise_batch or len(self.inputs), *self.inputs.shape[1:])
        return _noise(size, stream_seed(self.seed, *stream), self.inputs.device, _DTYPES[self.options.precision])

    def _dtype(self, pass_: Pass) -> torch.dtype:
        return _DTYPES[pass_.precision or self.options.precision]

    def _laid_out(self, tensor: torch.Tensor, pass_: Pass) -> torch.Tensor:
        """Put channels last where that is faster: convolutional networks on a CPU, but not second derivatives."""
        if tensor.dim() != 4 or tensor.device.type != "cpu" or not self.convolutional or pass_ == HESSIAN:
            return tensor
        return tensor.contiguous(memory_format=torch.channels_last)

    def slices(self, count: int, parts: int | None = None) -> Iterator[slice]:
        """Cut `count` things into contiguous parts."""
        size = -(-count // (parts or self.parts))
        return (slice(start, min(start + size, count)) for start in range(0, count, size))

    # -- places --

    def is_watched(self, axis: str, place: str) -> bool:
        """Return whether a place lies in the window; features always do."""
        if self.options.window is None or axis == "feature":
            return True
        names, depths = self.axes[axis].names, self.axes[axis].depth
        low, high = self.options.window
        return low <= depths[names.index(place)] < high

    def watched(self) -> dict[str, tuple[str, ...]]:
        """Return the places along each axis that are looked at."""
        return {axis: tuple(n for n in a.names if self.is_watched(axis, n)) for axis, a in self.axes.items()}

    def leaves(self, tensors: dict[str, torch.Tensor], everywhere: bool = False) -> dict[str, torch.Tensor]:
        """Make the weights of the (watched) layers leaves of autograd; return them by layer name."""
        if not self.axes:
            self.dry_run()
        names = self.axes["layer"].names if everywhere else self.watched()["layer"]
        return {name: weight_of(tensors, name).requires_grad_() for name in names}

    # -- runs --

    def recorder(self, tensors: dict[str, torch.Tensor], **callbacks) -> Recorder:
        """Return taps on the watched places of a run."""
        callbacks |= {"rows": self.rows} if self.by_rule else {"by_use": True, **self.tensors_of(tensors)}
        return Recorder(self.anatomy, self.is_watched, copy_outputs=self.copy_outputs, **callbacks)

    def tensors_of(self, tensors: dict[str, torch.Tensor]) -> dict:
        """Return the arguments of a recorder that watches where weights are used."""
        buffers = [tensors[name] for name, _ in self.model.named_buffers()]
        return {"parameters": parameters_of(self.model, tensors, self.layers()), "buffers": buffers}

    def layers(self) -> tuple[str, ...]:
        """Return the layers in the order of execution, as far as it is known."""
        return self.axes["layer"].names if self.axes else ()

    def logits(self, tensors: dict[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        """Run the network; return its logits (B, K). The first run shows the order of its places."""
        if self.axes:
            return self._call(tensors, inputs)
        with Recorder(self.anatomy, **({} if self.known else self.tensors_of(tensors))) as recorder:
            logits = self._call(tensors, inputs)
        if recorder.weight_uses is not None:
            self.unseen |= recorder.weight_uses.products
        self.learn(recorder, logits)
        return logits

    def learn(self, recorder: Recorder, logits: torch.Tensor) -> None:
        """Learn the order of the places from a run; LibranasError if it has fewer logits than classes."""
        if self.axes:
            return
        self.axes = recorder.axes()
        if self.targets.max() >= logits.shape[1]:
            raise LibranasError(
                f"A target is class {self.targets.max().item()}, but the network has {logits.shape[1]} outputs.",
                "Number the classes from 0, and make the network for all of them.",
            )

    def _call(self, tensors: dict[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        one = self.anatomy.batch_norms.values() if len(inputs) == 1 else ()
        try:
            # A copy: batch norm puts a new counter into it, under one of the names that share it.
            with hooked((module, contiguous_gradient) for module in one):
                logits = functional_call(self.model, dict(tensors), (inputs,))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise LibranasError(
                f"Batch normalisation in training mode cannot run on {len(inputs)} image(s) here: {error}",
                "Use larger images, a larger batch or fewer micro-batches (pieces), or mode='eval'.",
            ) from error
        if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != len(inputs):
            found = tuple(getattr(logits, "shape", ())) or type(logits).__name__
            raise LibranasError(
                f"The network returns {found} for {len(inputs)} images; expected are logits of shape (B, K).",
                "Wrap it in a module that returns the logits alone.",
            )
        return logits

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return this part's share of the mean cross-entropy of the whole batch."""
        return F.cross_entropy(logits, targets, reduction="sum") / len(self.inputs)

    def loss_gradient(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the gradient of :meth:`loss` at the logits."""
        return (logits.softmax(1) - F.one_hot(targets, logits.shape[1])) / len(self.inputs)

    @contextmanager
    def mode(self, train: bool, fused: bool = True, identity: tuple = ()):
        """Put the network in another mode for a while.

        ``fused=False`` turns off fused attention, which has no second derivative and whose products are not counted,
        and relative positions as wider heads, whose products are others.
        Modules of the types `identity` return their input.
        """
        off = () if fused else ("fused_attn", "one_hot_positions")
        hooks = ((m, no_norm) for m in self.model.modules() if isinstance(m, identity))
        attention = nullcontext() if fused else sdpa_kernel(SDPBackend.MATH)
        with hooked(hooks), attention, switched(self.model, False, *off):
            self._set_mode(train)
            try:
                yield
            finally:
                self._set_mode(self.train)

    def _set_mode(self, train: bool) -> None:
        """Training mode is for batch norms alone: dropout and stochastic depth are always off."""
        if any(module.training for module in self.anatomy.modules.values()):
            self.model.eval()
        for module in self.anatomy.batch_norms.values():
            module.training = train

    def dry_run(self) -> None:
        """Learn the order of the layers."""
        with self.mode(train=False), torch.no_grad():
            tensors, images = self.tensors(DATA), self.batch(DATA)
            self.logits(tensors, images[:1])
            self.complete_axes(tensors)

    def complete_axes(self, tensors: dict[str, torch.Tensor]) -> None:
        """Look at all images where the first ones leave out layers, such as experts."""
        if not self.known and unseen_layers(self.model, tensors, self.layers()):
            self.axes = {}
            with self.mode(train=False), torch.no_grad():
                self.logits(tensors, self.batch(DATA))


class PassRun(ABC):
    """One pass: a run of the network, in ``context.parts`` parts, that gives what it shows to the proxies."""

    pass_: ClassVar[Pass]

    def __init__(self, context: Context):
        self.context, self.collected = context, context.collected

    @abstractmethod
    def run(self) -> None: ...


@lru_cache(maxsize=4)  # equal for all networks
def _noise(size: tuple[int, ...], seed: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(device, dtype)
