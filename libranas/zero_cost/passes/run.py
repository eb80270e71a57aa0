"""The runs of a network: one method a pass, which shows every proxy of the pass what it wants to see.

A pass whose batch does not fit in memory is repeated in parts. Where the loss of an image does not depend on
the others the parts give the same values: sums over images are added up, activation signs put together, and
inner products between images made from pairs of parts. In training mode batch normalisation forbids that.
"""

import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.core.scorecard import Axis
from libranas.zero_cost.anatomy import ACTIVATIONS, BATCH_NORMS, LAYERS, NORMS, Anatomy, examine, kind_of, odd_norms
from libranas.zero_cost.captures import (
    Activation,
    Curvature,
    Feature,
    Gradient,
    InputGradient,
    Maps,
    Network,
    Perturbation,
    Saliency,
    Signal,
    TangentKernel,
    Vjp,
    Weight,
)
from libranas.zero_cost.gradient_moments import Moments, Scatter, Scratch, Wanted, tiles
from libranas.zero_cost.gradient_operands import as_matrix
from libranas.zero_cost.hooks import Recorder, choose_units, positions_last_channels
from libranas.zero_cost.options import Options
from libranas.zero_cost.proxy import DATA, EVALUATION, GAUSSIAN, HESSIAN, NEEDS, Pass, Proxy, Undefined

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
#: Size of Zen's perturbation.
ZEN_ALPHA = 1e-2


class Collected:
    """What the reduces of the proxies returned, by proxy, need and place."""

    def __init__(self, proxies: Iterable[Proxy], options: Options):
        self.options = options
        self.captures = {p.name: p.captured(options) for p in proxies}
        self.undefined: dict[str, str] = {}
        self._found: dict[tuple[str, str], dict[str, dict]] = defaultdict(dict)

    def wants(self, *needs: str) -> bool:
        """Whether a proxy that may still have a value has one of `needs`."""
        open_ = (captures for name, captures in self.captures.items() if name not in self.undefined)
        return any(need in captures for captures in open_ for need in needs)

    def give(self, need: str, place: str, captured) -> None:
        """Let every proxy with `need` reduce what was captured at `place`; numbers of parts of a batch add up."""
        for name, captures in self.captures.items():
            if need not in captures or name in self.undefined:
                continue
            try:
                numbers = captures[need](captured, self.options)
            except Undefined as reason:
                self.undefined[name] = str(reason)
                continue
            places = self._found[name, need]
            if place in places:
                numbers = {key: places[place][key] + number for key, number in numbers.items()}
            places[place] = numbers

    def refuse(self, need: str, reason: str) -> None:
        """All proxies with `need` are undefined for this network."""
        for name, captures in self.captures.items():
            if need in captures:
                self.undefined.setdefault(name, reason)

    def forget(self, passes: Iterable[Pass]) -> None:
        """Drop what a run of `passes` has given so far, since it is repeated."""
        for name, need in list(self._found):
            if NEEDS[need][0] in passes:
                del self._found[name, need]

    def of(self, proxy: Proxy, watched: dict[str, tuple[str, ...]]) -> list[dict]:
        """The joined dicts of each place, in the order of execution.

        `watched` are the places that were looked at along each axis.

        Raises
        ------
        Undefined
            With the reason why there is no value.
        """
        if proxy.name in self.undefined:
            raise Undefined(self.undefined[proxy.name])
        joined: dict[str, dict] = {}
        for need in self.captures[proxy.name]:
            axis, found = NEEDS[need][1], self._found[proxy.name, need]
            places = list(found) if axis is None else list(watched.get(axis, ())[need == "vjp" :])
            missing = [place for place in places if place not in found]
            if missing:
                raise Undefined(
                    f"no {need} at {len(missing)} places, e.g. {missing[0]}: the output does not depend on them, "
                    "or they do not depend on the images"
                )
            for place in places:
                joined.setdefault(place, {}).update(found[place])
        if not joined:
            raise Undefined(proxy.undefined_for or "nothing of what it needs is in this network")
        return list(joined.values())


class Run:
    """One scoring call: the tensors of the model by precision, and one method a pass."""

    def __init__(self, model, inputs, targets, seed, options: Options, collected: Collected):
        self.model, self.inputs, self.seed, self.options = model, inputs, seed, options
        self.collected = collected
        self.anatomy: Anatomy = examine(model, options.features)
        self.axes: dict[str, Axis] = {}
        self.warnings: list[str] = []
        self.parts, self.copy_outputs = 1, False
        self.convolutional = sum(isinstance(m, nn.Conv2d) for m in self.anatomy.layers.values()) > 1
        self.train = self.anatomy.coupled if options.mode == "auto" else options.mode == "train"
        self._set_mode(self.train)
        norms = [m for m in self.anatomy.norms.values() if isinstance(m, BATCH_NORMS)]
        #: Whether the loss of a sample depends on the other samples of its batch. Without running statistics
        #: it does so in evaluation mode too.
        self.coupled = any(self.train or m.running_mean is None for m in norms)
        sample = not self.coupled if options.unit == "auto" else options.unit == "sample"
        self.units = len(inputs) if sample else options.pieces
        #: Whether the data pass is a run over single samples in evaluation mode.
        self.apart = not self.train and not self.coupled and sample
        if len(inputs) % self.units:
            raise LibranasError(
                f"A batch of {len(inputs)} cannot be cut into {self.units} equal micro-batches.",
                "Choose a batch size that the option pieces divides.",
            )
        self.targets = targets
        if options.labels == "random":
            generator = self._generator("labels")
            self.targets = torch.randint(0, int(targets.max()) + 1, targets.shape, generator=generator).to(targets)
        if options.window is not None:
            self._dry_run()

    def actual(self, pass_: Pass) -> Pass:
        """The pass that shows what `pass_` does: the data pass for that of evaluation, if it is the same run."""
        return DATA if pass_ == EVALUATION and self.apart else pass_

    def _shows(self, pass_: Pass) -> tuple[Pass, ...]:
        """The passes whose needs a run of `pass_` meets."""
        return (DATA, EVALUATION) if pass_ == DATA and self.apart else (pass_,)

    def capture(self, pass_: Pass) -> None:
        """Run `pass_`, in as many parts as memory allows."""
        method = getattr(self, f"_{pass_.name}")
        while True:
            try:
                failure = self._attempt(method, pass_)
            except _OutputLost:
                self.copy_outputs = True
                self.collected.forget(self._shows(pass_))
                continue
            if failure is None:
                return
            most = self.units if pass_ == DATA else len(self.inputs)
            coupled = self.coupled and pass_ != EVALUATION
            if coupled or pass_.batch in ("none", "ones") or self.parts >= most:
                raise LibranasError(
                    f"The {pass_.name} pass does not fit in the memory of {self.inputs.device}: network with "
                    f"{sum(p.numel() for p in self.model.parameters()):,} parameters, {len(self.inputs)} images of "
                    f"{tuple(self.inputs.shape[1:])}. {failure}",
                    "Batch normalisation in training mode does not allow to split the batch; use a smaller one, or "
                    "mode='eval'."
                    if coupled
                    else "Use smaller images, or a device with more memory.",
                )
            self.parts *= 2
            self.collected.forget(self._shows(pass_))
            gc.collect()
            if self.inputs.device.type == "cuda":
                torch.cuda.empty_cache()

    def _attempt(self, method, pass_: Pass) -> str | None:
        """Run a pass; what the allocator said if it did not fit. (Here, so that the traceback's tensors die.)"""
        try:
            method(pass_)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            return str(error).splitlines()[0]
        return None

    # -- what the passes share ---------------------------------------------------------------------------

    def _generator(self, *names) -> torch.Generator:
        return torch.Generator().manual_seed(stream_seed(self.seed, *names))

    def _tensors(self, pass_: Pass) -> dict[str, torch.Tensor]:
        """Detached parameters and copied buffers (batch norm writes into them) in the pass's precision."""
        dtype = _DTYPES[pass_.precision or self.options.precision]

        def prepared(tensor):
            if not tensor.is_floating_point():
                return tensor.clone()
            tensor = tensor.clone() if tensor.is_inference() else tensor.detach()
            tensor = self._laid_out(tensor.to(dtype), pass_)
            return tensor.abs() if pass_.weights == "absolute" else tensor

        # A parameter that two modules share must stay one tensor.
        own = {id(p): prepared(p) for p in self.model.parameters()}
        tensors = {n: own[id(p)] for n, p in self.model.named_parameters(remove_duplicate=False)}
        own = {id(b): prepared(b).clone() for b in self.model.buffers()}
        buffers = {n: own[id(b)] for n, b in self.model.named_buffers(remove_duplicate=False)}
        return tensors | buffers

    def _batch(self, pass_: Pass) -> torch.Tensor:
        dtype = _DTYPES[pass_.precision or self.options.precision]
        if pass_.batch == "noise":
            return self._laid_out(self._noise_images("noise"), pass_)
        if pass_.batch == "ones":
            return torch.ones_like(self.inputs[:1], dtype=dtype)
        return self._laid_out(self.inputs.to(dtype), pass_)

    def _laid_out(self, tensor: torch.Tensor, pass_: Pass) -> torch.Tensor:
        """Images and kernels with channels last where that is faster: convolutional networks on a CPU, but for
        second derivatives."""
        if tensor.dim() != 4 or tensor.device.type != "cpu" or not self.convolutional or pass_ == HESSIAN:
            return tensor
        return tensor.contiguous(memory_format=torch.channels_last)

    def _noise_images(self, *stream) -> torch.Tensor:
        size = (self.options.noise_batch or len(self.inputs), *self.inputs.shape[1:])
        noise = torch.randn(size, generator=self._generator(*stream))
        return noise.to(self.inputs.device, _DTYPES[self.options.precision])

    def _slices(self, count: int, parts: int | None = None) -> Iterator[slice]:
        """Contiguous parts of `count` things."""
        size = -(-count // (parts or self.parts))
        return (slice(start, min(start + size, count)) for start in range(0, count, size))

    def _watched(self, axis: str, place: str) -> bool:
        if self.options.window is None or axis == "feature":
            return True
        names, depths = self.axes[axis].names, self.axes[axis].depth
        low, high = self.options.window
        return low <= depths[names.index(place)] < high

    def watched(self) -> dict[str, tuple[str, ...]]:
        """The places along each axis that are looked at."""
        return {axis: tuple(n for n in a.names if self._watched(axis, n)) for axis, a in self.axes.items()}

    def _recorder(self, **callbacks) -> Recorder:
        return Recorder(self.anatomy, self._watched, copy_outputs=self.copy_outputs, **callbacks)

    def _backward(self, recorder: Recorder, output: torch.Tensor, sources: list[torch.Tensor]) -> tuple:
        """Gradients of a scalar at `sources`, while `recorder` sees those at the layers' outputs."""
        if not sources:
            return ()
        found = torch.autograd.grad(output, sources, allow_unused=True)
        if recorder.unreached and not self.copy_outputs:
            raise _OutputLost
        recorder.flush()
        return found

    def _set_mode(self, train: bool) -> None:
        """Training mode is for batch norms alone: dropout and stochastic depth are always off."""
        self.model.eval()
        for module in self.anatomy.norms.values():
            module.training = train and isinstance(module, BATCH_NORMS)

    def _forward(self, recorder: Recorder, tensors, inputs) -> torch.Tensor:
        """One forward pass under `recorder`; logits (B, K)."""
        logits = self._logits(tensors, inputs)
        self.axes = self.axes or recorder.axes()
        return logits

    def _logits(self, tensors, inputs) -> torch.Tensor:
        try:
            # A copy: batch norm puts a new counter into it, under one of the names that share it.
            return functional_call(self.model, dict(tensors), (inputs,))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise LibranasError(
                f"Batch normalisation in training mode cannot run on {len(inputs)} image(s) here: {error}",
                "Use larger images, a larger batch or fewer micro-batches (pieces), or mode='eval'.",
            ) from error

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """This part's share of the mean cross-entropy of the whole batch."""
        return F.cross_entropy(logits, targets, reduction="sum") / len(self.inputs)

    def _leaves(self, tensors, everywhere: bool = False) -> dict[str, torch.Tensor]:
        """The (watched) layers' weights in `tensors` as leaves of autograd, by layer name."""
        if not self.axes:
            self._dry_run()
        names = self.axes["layer"].names if everywhere else self.watched()["layer"]
        return {name: tensors[_key(name)].requires_grad_() for name in names}

    @contextmanager
    def _mode(self, train: bool, fused: bool = True, identity: tuple = ()):
        """Another mode for a while; without fused attention (which has no second derivative and whose products
        are not counted), and with some types of modules as the identity."""
        off = [] if fused else [m for m in self.model.modules() if getattr(m, "fused_attn", False) is True]
        handles = [
            # timm has norms with an activation inside; that stays.
            m.register_forward_hook(lambda module, args, output: getattr(module, "act", nn.Identity())(args[0]))
            for m in self.model.modules()
            if isinstance(m, identity)
        ]
        self._set_mode(train)
        for m in off:
            m.fused_attn = False
        try:
            with nullcontext() if fused else sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            for m in off:
                m.fused_attn = True
            for handle in handles:
                handle.remove()
            self._set_mode(self.train)

    # -- analytic ----------------------------------------------------------------------------------------

    def _dry_run(self) -> None:
        """Only to know the order of the layers."""
        with self._mode(train=False), torch.no_grad(), Recorder(self.anatomy) as recorder:
            self._forward(recorder, self._tensors(DATA), self._batch(DATA)[:1])

    def _analytic(self, pass_: Pass) -> None:
        tensors = self._tensors(pass_)
        # One image through train-mode batch norm would be refused.
        counter, recorder = FlopCounterMode(display=False), Recorder(self.anatomy)
        with self._mode(train=False, fused=False), torch.no_grad(), counter, recorder:
            self._forward(recorder, tensors, self.inputs[:1].to(next(iter(tensors.values())).dtype))
        trainable = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self.collected.give("network", "", Network(trainable, counter.get_total_flops() // 2))
        if self.collected.wants("weight"):
            for name in self.watched()["layer"]:
                weight = tensors[_key(name)]
                self.collected.give("weight", name, Weight(as_matrix(weight)))

    # -- data --------------------------------------------------------------------------------------------

    def _data(self, pass_: Pass) -> None:
        wants, tensors, inputs = self.collected.wants, self._tensors(pass_), self._batch(pass_)
        self._refuse_few(self.units, "spread", "abs_spread", "accumulated", *(("sample_spread",) if self.apart else ()))
        samples = self.apart and wants("sample_spread")
        of_units = Wanted(
            mean=wants("spread") or (not self.coupled and wants("gradient")) or samples,
            spread=wants("abs_spread", "spread") or samples,
            signs=wants("signs"),
            accumulated=wants("accumulated"),
        )
        if wants("output") and (self.train or self.coupled):
            # Before any run in training mode, which changes the running statistics.
            signs = _Signs(self, "output")
            for part in self._slices(len(inputs)):
                with self._mode(train=False), torch.no_grad(), self._recorder(on_output=signs.see) as recorder:
                    self._forward(recorder, tensors, inputs[part])
            signs.give()
        if self.coupled:
            self._whole_batch(tensors, inputs)
            if of_units.of_units:
                self._pieces(tensors, inputs, of_units)
        else:
            self._all_units(pass_, tensors, inputs, self.units, of_units)

    def _refuse_few(self, units: int, *needs: str) -> None:
        """Statistics over too few units are undefined."""
        least = 2 if self.options.few_units else 4
        if units < least:
            for need in needs:
                self.collected.refuse(need, f"{units} gradient units have no variance to speak of: give {least}")

    def _evaluation(self, pass_: Pass) -> None:
        """See :data:`libranas.zero_cost.proxy.EVALUATION`; only for networks of which the data pass shows less."""
        if any(m.running_mean is None for m in self.anatomy.norms.values() if isinstance(m, BATCH_NORMS)):
            for need in ("sample_spread", "sample_activation"):
                reason = "batch normalisation without running statistics couples the samples in evaluation mode too"
                self.collected.refuse(need, reason)
            return
        self._refuse_few(len(self.inputs), "sample_spread")
        spread = self.collected.wants("sample_spread")
        with self._mode(train=False):
            wanted = Wanted(mean=spread, spread=spread, signs=False, accumulated=False)
            self._all_units(pass_, self._tensors(pass_), self._batch(pass_), len(self.inputs), wanted)

    def _all_units(self, pass_: Pass, tensors, inputs, units: int, wanted: Wanted) -> None:
        """Uncoupled: one run shows everything, since the batch's gradient is the mean over the units."""
        data = pass_ == DATA
        of_units = ("spread", "abs_spread", "signs", "gradient") if data else ()
        of_units += ("sample_spread",) if EVALUATION in self._shows(pass_) else ()
        places = ("activation",) if data else ()
        places += ("sample_activation",) if EVALUATION in self._shows(pass_) else ()

        def wants(*needs: str) -> bool:
            return self.collected.wants(*needs) and data

        activations, outputs = _Signs(self, *places), _Signs(self, "output")
        products, signals = wanted.mean or wanted.of_units, wants("signal")
        parts = list(self._slices(units))
        scratch, kept = Scratch(), {}

        def on_products(name, weight, a_UGKI, d_UGKO):
            moments = kept.pop(name, None) or Moments(wanted, scratch)
            moments.add_products(a_UGKI, d_UGKO)
            if moments.units < units:
                kept[name] = moments
            else:
                self._give_moments(of_units, name, weight, moments, units)

        size = len(inputs) // units
        for part in parts:
            images = slice(part.start * size, part.stop * size)
            recorder = self._recorder(
                on_products=on_products if products else None,
                units=part.stop - part.start,
                on_signal=partial(self._give_signal, images.stop - images.start) if signals else None,
                on_activation=activations.see if self.collected.wants(*places) else None,
                on_output=outputs.see if wants("output") and not self.train else None,
            )
            with recorder, torch.set_grad_enabled(products or signals):
                logits = self._forward(recorder, tensors, inputs[images])
                self._backward(recorder, self._loss(logits, self.targets[images]), recorder.anchors)
        activations.give()
        outputs.give()

    def _whole_batch(self, tensors, inputs) -> None:
        """Coupled: gradient and signs of the batch as a whole; autograd's own weight gradients."""
        wants = self.collected.wants
        activations = _Signs(self, "activation")
        leaves = self._leaves(tensors) if wants("gradient") else {}
        if not (leaves or wants("signal", "activation")):
            return
        recorder = self._recorder(
            on_signal=partial(self._give_signal, len(inputs)) if wants("signal") else None,
            on_activation=activations.see if wants("activation") else None,
        )
        with recorder, torch.set_grad_enabled(wants("gradient", "signal")):
            logits = self._forward(recorder, tensors, inputs)
            sources = [*leaves.values(), *recorder.anchors]
            found = self._backward(recorder, self._loss(logits, self.targets), sources)
            for (name, weight), gradient in zip(leaves.items(), found[: len(leaves)], strict=True):
                if gradient is not None:
                    whole = Gradient(name, as_matrix(weight.detach()), 1, mean_OI=as_matrix(gradient))
                    self.collected.give("gradient", name, whole)
        activations.give()

    def _pieces(self, tensors, inputs, wanted: Wanted) -> None:
        """Coupled: micro-batches, each by itself."""
        leaves = self._leaves(tensors)
        if not leaves:
            return
        moments = {name: Moments(wanted) for name in leaves}
        for piece in self._slices(len(inputs), self.units):
            logits = self._logits(tensors, inputs[piece])
            loss = self._loss(logits, self.targets[piece])
            found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
            for name, gradient in zip(leaves, found, strict=True):
                if gradient is not None:
                    moments[name].add_unit(as_matrix(gradient))
        for name, weight in leaves.items():
            if moments[name].units:
                needs = ("spread", "abs_spread", "signs")
                self._give_moments(needs, name, weight.detach(), moments[name], self.units)

    def _give_moments(self, needs: tuple[str, ...], name: str, weight, moments: Moments, units: int) -> None:
        # The loss is a mean over the batch, so a unit's own mean loss has `units` times its gradient.
        gradient = moments.gradient(name, as_matrix(weight), units)
        self._give(needs, name, gradient)
        if moments.wanted.accumulated:
            sums = moments.gradient(name, as_matrix(weight), units, sums=True)
            self._give(("accumulated",), name, sums)

    def _give(self, needs: Iterable[str], name: str, captured) -> None:
        for need in needs:
            self.collected.give(need, name, captured)

    def _give_signal(self, images: int, name: str, product_BPD, fan_in: int, tokens: bool) -> None:
        if len(product_BPD) % images:
            reason = f"layer {name} has {len(product_BPD)} rows for {images} images: they are not samples"
            self.collected.refuse("signal", reason)
            return
        if len(product_BPD) > images:  # windows or tokens of an image as rows of their own
            product_BPD = product_BPD.reshape(images, -1, product_BPD.shape[-1])
        self.collected.give("signal", name, Signal(product_BPD, fan_in, len(self.inputs), tokens))

    # -- jacobian ----------------------------------------------------------------------------------------

    def _jacobian(self, pass_: Pass) -> None:
        tensors, inputs = self._tensors(pass_), self._batch(pass_)
        some, gradient_BX, kernel_BB = inputs[: self.options.ntk_images], None, None
        if not self.coupled and (odd := odd_norms(self.anatomy)):
            self.collected.refuse("kernel", f"no rule for the weight of norm {odd[0]}, which has a forward of its own")
        if self.collected.wants("kernel") and not self.coupled:
            kernel_BB, gradient_BX, classes = self._kernel(tensors, some)
        if self.collected.wants("input_gradient") and (gradient_BX is None or len(some) < len(inputs)):
            rows = []
            for part in self._slices(len(inputs)):
                x = inputs[part].detach().clone().requires_grad_()
                with Recorder(self.anatomy) as recorder:
                    logits = self._forward(recorder, tensors, x)
                rows.append(torch.autograd.grad(logits.sum(), x)[0].flatten(1))
            gradient_BX, classes = torch.cat(rows), logits.shape[1]
        if self.collected.wants("input_gradient"):
            self.collected.give("input_gradient", "", InputGradient(gradient_BX, self.targets, classes))
        if self.collected.wants("kernel"):
            kernel_BB = self._coupled_kernel(tensors, some) if kernel_BB is None else kernel_BB
            self.collected.give("kernel", "", TangentKernel(kernel_BB))

    def _kernel(self, tensors, inputs) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Inner products of the images' gradients, a layer at a time; in pairs of parts if memory is short.

        Also the gradients at the images and the number of logits, which come with it.
        """
        size = len(inputs)
        kernel_BB = torch.zeros(size, size, dtype=torch.float64, device=inputs.device)
        gradient_BX = torch.zeros_like(inputs).flatten(1)
        blocks = list(self._slices(size, 2 * self.parts)) if self.parts > 1 else [slice(0, size)]
        pairs = combinations(range(len(blocks)), 2) if len(blocks) > 1 else [(0,)]
        scratch = Scratch()
        for pair in pairs:
            rows = torch.cat([torch.arange(blocks[b].start, blocks[b].stop) for b in pair]).to(inputs.device)
            part_BB = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=inputs.device)

            def on_norm(name, gradient_BW, part_BB=part_BB):
                part_BB += (gradient_BW @ gradient_BW.T).double()

            def on_products(name, weight, a_BGKI, d_BGKO, part_BB=part_BB):
                for _, g_BX in tiles(a_BGKI, d_BGKO, scratch):
                    part_BB.add_((g_BX @ g_BX.T).double())

            # Every weight counts, also outside of a window.
            recorder = Recorder(
                self.anatomy,
                on_products=on_products,
                units=len(rows),
                on_norm=on_norm,
                copy_outputs=self.copy_outputs,
            )
            x = inputs[rows].detach().clone().requires_grad_()
            with recorder:
                logits = self._forward(recorder, tensors, x)
                gradient_BX[rows] = self._backward(recorder, logits.sum(), [x])[0].flatten(1)
            kernel_BB[rows[:, None], rows] = part_BB
        return kernel_BB, gradient_BX, logits.shape[1]

    def _coupled_kernel(self, tensors, inputs) -> torch.Tensor:
        """Through batch norm in training mode every image's logits depend on all images: one backward an image."""
        owners = {**self.anatomy.layers, **self.anatomy.norms}
        names = [_key(n) for n, m in owners.items() if m.weight is not None]
        leaves = list({id(tensors[n]): tensors[n].requires_grad_() for n in names}.values())
        with Recorder(self.anatomy) as recorder:
            logits = self._forward(recorder, tensors, inputs)
        sizes = [leaf.numel() for leaf in leaves]
        gradient_BW = inputs.new_zeros(len(inputs), sum(sizes))
        for i in range(len(inputs)):
            found = torch.autograd.grad(logits[i].sum(), leaves, retain_graph=True, allow_unused=True)
            for row, gradient in zip(gradient_BW[i].split(sizes), found, strict=True):
                if gradient is not None:
                    row.copy_(gradient.flatten())
        return (gradient_BW @ gradient_BW.T).double()

    # -- hessian -----------------------------------------------------------------------------------------

    def _hessian(self, pass_: Pass) -> None:
        tensors, inputs = self._tensors(pass_), self._batch(pass_)
        leaves = self._leaves(tensors, everywhere=True)
        weights, parts = list(leaves.values()), list(self._slices(len(inputs)))
        with self._mode(self.train, fused=False):
            gradient = None
            if len(parts) > 1:
                gradient = [torch.zeros_like(w) for w in weights]
                for part in parts:
                    loss = self._loss(self._logits(tensors, inputs[part]), self.targets[part])
                    for total, g in zip(gradient, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
                        if g is not None:
                            total += g
            products = [None] * len(weights)
            for part in parts:
                loss = self._loss(self._logits(tensors, inputs[part]), self.targets[part])
                slope = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
                fixed = gradient or [None if g is None else g.detach() for g in slope]
                along = sum((g * v).sum() for g, v in zip(slope, fixed, strict=True) if g is not None)
                if not (torch.is_tensor(along) and along.requires_grad):
                    continue
                for i, product in enumerate(torch.autograd.grad(along, weights, allow_unused=True)):
                    if product is not None:
                        products[i] = product if products[i] is None else products[i] + product
        for (name, weight), product in zip(leaves.items(), products, strict=True):
            if product is not None and self._watched("layer", name):
                captured = Curvature(as_matrix(weight.detach()), as_matrix(product.detach()))
                self.collected.give("curvature", name, captured)

    # -- noise -------------------------------------------------------------------------------------------

    def _noise(self, pass_: Pass) -> None:
        tensors, inputs, wants = self._tensors(pass_), self._batch(pass_), self.collected.wants
        if wants("maps"):
            self._maps(tensors, inputs[:1])
        if not (wants("feature", "vjp") and self.anatomy.features):
            return
        covariances: dict[str, Scatter] = {}
        jacobians: dict[str, list] = {}
        for part in self._slices(len(inputs)):
            x = inputs[part].detach().clone().requires_grad_(wants("vjp"))
            with Recorder(self.anatomy, keep_features=True) as recorder, torch.set_grad_enabled(wants("vjp")):
                self._forward(recorder, tensors, x)
            names, outputs = list(recorder.features), list(recorder.features.values())
            for name, feature in recorder.features.items() if wants("feature") else ():
                rows = positions_last_channels(feature.detach()).flatten(0, 1)
                middle = rows.mean(0, dtype=torch.float64)
                rows = rows - middle.to(rows.dtype)
                running = covariances.setdefault(name, Scatter())
                running.merge(len(rows), middle, (rows.T @ rows).double())
            for i in range(1, len(names) if wants("vjp") else 0):
                signs = self._signs(names[i], outputs[i], len(inputs))[part].to(outputs[i])
                (g_in,) = torch.autograd.grad(outputs[i], outputs[i - 1], signs, retain_graph=True, allow_unused=True)
                if g_in is None:
                    self.collected.refuse("vjp", f"block {names[i]} does not depend on {names[i - 1]}")
                    break
                if signs.dim() == 4 and any(a % b for a, b in zip(g_in.shape[2:], signs.shape[2:], strict=True)):
                    sizes = f"{tuple(g_in.shape[2:])} to {tuple(signs.shape[2:])} pixels"
                    self.collected.refuse("vjp", f"the block before {names[i]} shrinks {sizes}, not by a whole factor")
                    break
                if signs.dim() == 3 and g_in.shape[1] != signs.shape[1]:  # tokens were pooled: no pairs of positions
                    jacobians[names[i]] = [1, signs.new_zeros(1, 1).double(), True]
                    continue
                g_out_RD, g_in_RD = (t.flatten(0, 1) for t in _aligned(signs, g_in))
                total = jacobians.setdefault(names[i], [0, 0.0, True])
                total[0] += len(g_out_RD)
                total[1] = total[1] + (g_in_RD.T @ g_out_RD).double()
                total[2] &= torch.equal(g_in_RD, g_out_RD)
            del recorder, outputs  # and with them this part's graph, before the next part's
        for name, running in covariances.items():
            self.collected.give("feature", name, Feature(running.m2 / running.units))
        for name, (rows, jacobian_DD, same) in jacobians.items():
            self.collected.give("vjp", name, Vjp(jacobian_DD / rows, same))

    def _signs(self, name: str, like: torch.Tensor, images: int | None = None) -> torch.Tensor:
        """Random signs for a batch of `images` outputs like those at a primary block."""
        size = (images or len(like), *like.shape[1:])
        return torch.randint(0, 2, size, generator=self._generator("signs", name)) * 2 - 1

    def _maps(self, tensors, image: torch.Tensor) -> None:
        """Every module's output for one image."""
        maps: dict[str, torch.Tensor] = {}
        uses: dict[str, int] = defaultdict(int)
        every = self.options.meco_modules == "all"

        def keep(name):
            def hook(module, args, output):
                output = output[0] if isinstance(output, tuple) else output
                if torch.is_tensor(output) and output.dim() > 2:
                    uses[name] += 1  # a module that is used twice has two maps
                    # A copy: what follows may work in place.
                    maps[f"{name}#{uses[name]}"] = output[0].detach().flatten(1).clone()

            return hook

        handles = [
            module.register_forward_hook(keep(name))
            for name, module in self.model.named_modules()
            if every or isinstance(module, (*LAYERS, *NORMS, *ACTIVATIONS))
        ]
        try:
            with torch.no_grad(), Recorder(self.anatomy) as recorder:
                self._forward(recorder, tensors, image)
        except LibranasError as error:
            self.collected.refuse("maps", error.what)
            return
        finally:
            for handle in handles:
                handle.remove()
        if maps:
            self.collected.give("maps", "", Maps(maps))

    # -- gaussian ----------------------------------------------------------------------------------------

    def _gaussian(self, pass_: Pass) -> None:
        point = self._before_pooling()
        if point is None:
            return
        modules, side = point
        for repeat in range(self.options.zen_repeats):
            tensors, x, epsilon = self._zen_draw(repeat)
            difference, stds = 0.0, defaultdict(float)
            seen: list[torch.Tensor] = []
            handles = [
                module.register_forward_hook(
                    lambda m, args, output, seen=seen: seen.append((args[0] if side == "input" else output).clone())
                )
                for module in modules
            ]
            try:
                with torch.no_grad():
                    for part in self._slices(len(x)):
                        inner: list[torch.Tensor] = []
                        with Recorder(self.anatomy, on_layer_norm=inner.append) as recorder:
                            self._forward(recorder, tensors, x[part])
                        before = seen[-1]  # of several poolings the one that runs last
                        self._logits(tensors, x[part] + ZEN_ALPHA * epsilon[part])
                        difference += (seen[-1] - before).abs().sum(dtype=torch.float64).item()
                        seen.clear()
                        for i, v in enumerate(inner):
                            stds[i] += v.std(-1, unbiased=False).mean(dtype=torch.float64).item() * len(v)
            finally:
                for handle in handles:
                    handle.remove()
            variances = tuple(
                tensors[_key(name, "running_var")].double().mean().item()
                for name, m in self.anatomy.norms.items()
                if isinstance(m, BATCH_NORMS) and m.running_var is not None
            )
            stds = tuple(total / len(x) for total in stds.values())
            self.collected.give("perturbation", str(repeat), Perturbation(difference / len(x), variances, stds))

    def _before_pooling(self) -> tuple[list[nn.Module], str] | None:
        """The modules of which the last one to run has the last feature map as its input or output."""
        if self.anatomy.features:
            _, module, side = self.anatomy.features[-1]
            return [module], side
        pools = [m for m in self.model.modules() if isinstance(m, (nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool1d))]
        return (pools, "input") if pools else None

    def _zen_draw(self, repeat: int) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        """Weights of layers from N(0, 1), their biases 0, norms 1 and 0; images and their perturbation."""
        tensors = self._tensors(GAUSSIAN)
        generator, drawn = self._generator("zen", str(repeat)), {}
        for name, module in {**self.anatomy.layers, **self.anatomy.norms}.items():
            for key, value in module.named_parameters(recurse=False):
                old = tensors[_key(name, key)]
                if id(old) not in drawn and name in self.anatomy.layers and key == "weight":
                    drawn[id(old)] = torch.randn(value.shape, generator=generator).to(old)
                elif id(old) not in drawn:
                    drawn[id(old)] = torch.full_like(old, float(key == "weight"))
        tensors = {name: drawn.get(id(tensor), tensor) for name, tensor in tensors.items()}
        x, epsilon = (self._noise_images("zen", what, str(repeat)) for what in ("x", "epsilon"))
        return tensors, x, epsilon

    # -- synaptic ----------------------------------------------------------------------------------------

    def _synaptic(self, pass_: Pass) -> None:
        self._saliencies(pass_, "saliency", BATCH_NORMS)

    def _synaptic_bare(self, pass_: Pass) -> None:
        self._saliencies(pass_, "bare_saliency", (*BATCH_NORMS, nn.LayerNorm))

    def _saliencies(self, pass_: Pass, need: str, identity: tuple) -> None:
        tensors = self._tensors(pass_)
        leaves = self._leaves(tensors)
        if not leaves:
            return
        with self._mode(train=False, identity=identity), Recorder(self.anatomy) as recorder:
            logits = self._forward(recorder, tensors, self._batch(pass_))
        gradients = torch.autograd.grad(logits.sum(), list(leaves.values()), allow_unused=True)
        for (name, weight), gradient in zip(leaves.items(), gradients, strict=True):
            if gradient is not None:
                kind = kind_of(name, self.anatomy.layers[name])
                captured = Saliency(as_matrix(weight.detach()), as_matrix(gradient), kind)
                self.collected.give(need, name, captured)


class _OutputLost(Exception):
    """A layer's output was changed in place in a way that hides its gradient: repeat with copies of outputs."""


class _Signs:
    """Signs at the places of an axis, put together from the parts of a batch; one object for all `needs`."""

    def __init__(self, run: Run, *needs: str):
        self.run, self.needs = run, needs
        self.parts: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)

    def see(self, place: str, values: torch.Tensor) -> None:
        run, units = self.run, self.run.options.psi_units
        bits_SV = _fires(values)
        chosen_SV = bits_SV
        if units != "all":
            chosen_SV = _fires(choose_units(values, units, run._generator("psi_units", place)))
        if run.parts == 1:
            self._give(place, bits_SV, chosen_SV)
        else:  # kept as single bytes
            self.parts[place].append((bits_SV.bool().cpu(), chosen_SV.bool().cpu()))

    def give(self) -> None:
        """Hand on what the parts have shown."""
        device = self.run.inputs.device
        for place, parts in self.parts.items():
            self._give(place, *(torch.cat(bits).to(device).float() for bits in zip(*parts, strict=True)))

    def _give(self, place: str, bits_SV: torch.Tensor, chosen_SV: torch.Tensor) -> None:
        rows, images = len(bits_SV), len(self.run.inputs)
        if rows != images:
            for need in self.needs:
                reason = f"{need} {place} has {rows} rows for {images} images: they are not samples"
                self.run.collected.refuse(need, reason)
            return
        self.run._give(self.needs, place, Activation(place, bits_SV, chosen_SV))


def _fires(values: torch.Tensor) -> torch.Tensor:
    """1.0 where a value is positive, else 0.0, as (samples, units); made in one go, float32.

    Units come in the order of memory: none of what is made of them depends on it.
    """
    if values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last):
        values = values.movedim(1, -1)
    bits = torch.empty(values.shape, dtype=torch.float32, device=values.device)
    return torch.gt(values, 0, out=bits).flatten(1)


def _key(module: str, parameter: str = "weight") -> str:
    """Name of a module's parameter in the state of the network."""
    return f"{module}.{parameter}" if module else parameter


def _aligned(g_out: torch.Tensor, g_in: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both as (images, positions, channels); where a block halves the resolution, the finer side's pixels
    are folded into its channels."""
    if g_out.dim() == 4 and g_in.shape[-2:] != g_out.shape[-2:]:
        g_in = F.pixel_unshuffle(g_in, g_in.shape[-1] // g_out.shape[-1])
    return positions_last_channels(g_out), positions_last_channels(g_in)


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error) for words in ("can't allocate memory", "not enough memory", "ALLOC_FAILED"))
