"""The data and evaluation passes: the loss on the batch, its gradient over units, and signs of activations."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import torch

from libranas.networks.device import kernel_on
from libranas.zero_cost.captures import Gradient, InputGradient, Signal
from libranas.zero_cost.executor import Executor
from libranas.zero_cost.gradient_moments import Moments, Scratch, Wanted
from libranas.zero_cost.gradient_operands import as_matrix
from libranas.zero_cost.hooks import Recorder
from libranas.zero_cost.passes.context import PassRun
from libranas.zero_cost.passes.jacobian import Jacobian
from libranas.zero_cost.passes.signs import Signs
from libranas.zero_cost.proxy import DATA, EVALUATION, Pass

#: Pass -> what it shows of the gradient of every weight over units, and of activations.
GRADIENT_NEEDS = {DATA: ("spread", "abs_spread", "signs", "gradient"), EVALUATION: ("sample_spread",)}
ACTIVATION_NEEDS = {DATA: ("activation",), EVALUATION: ("sample_activation",)}


class UnitRun(PassRun):
    """Run units that do not depend on each other: one run shows everything."""

    def run_units(self, tensors: dict[str, torch.Tensor], inputs: torch.Tensor, units: int, wanted: Wanted) -> None:
        """Run the batch as `units` equal units; the batch's gradient is the mean over them."""
        context = self.context
        signs = Signs(context, *self._shown(ACTIVATION_NEEDS)), Signs(context, "output")
        gradients, watch = self._shown(GRADIENT_NEEDS), partial(self._recorder, tensors, signs)
        if context.by_rule:
            self._run_by_rule(tensors, inputs, units, wanted, watch)
        elif units == len(inputs):
            # Whatever the order of its rows, an image that is run alone has them all.
            self.run_pieces(tensors, inputs, units, wanted, gradients, partial(watch, 1))
        else:
            self.run_pieces(tensors, inputs, len(inputs), Wanted(), (), partial(watch, 1))
            self.run_pieces(tensors, inputs, units, wanted, gradients)
        for seen in signs:
            seen.give()

    def _recorder(self, tensors, signs: tuple[Signs, Signs], images: int, **callbacks) -> Recorder:
        """Watch what the pass shows besides gradients, in a run of `images` images."""
        wants, data = self.collected.wants, self.pass_ == DATA
        activations, outputs = signs
        return self.context.recorder(
            tensors,
            images=images,
            on_signal=partial(self.give_signal, images) if data and wants("signal") else None,
            on_activation=partial(activations.see, images) if wants(*activations.needs) else None,
            on_output=partial(outputs.see, images) if data and wants("output") and not self.context.train else None,
            **callbacks,
        )

    def _run_by_rule(self, tensors, inputs: torch.Tensor, units: int, wanted: Wanted, watch) -> None:
        """Run as many units together as memory allows."""
        context, size = self.context, len(inputs) // units
        on_products = self._reduce_products(units, wanted) if wanted.any else None
        for part in context.slices(units):
            images = slice(part.start * size, part.stop * size)
            recorder = watch(images.stop - images.start, on_products=on_products, units=part.stop - part.start)
            backward = wanted.any or recorder.on_signal is not None
            if context.by_hand:
                self._run_by_hand(recorder, tensors, inputs[images], context.targets[images], backward)
                continue
            with recorder, torch.set_grad_enabled(backward):
                self.run_watched(recorder, tensors, inputs[images], context.targets[images])

    @torch.no_grad()
    def _run_by_hand(self, recorder: Recorder, tensors, inputs, targets, backward: bool) -> None:
        """Do what :meth:`run_watched` does, without autograd."""
        run = Executor(self.context.model, tensors, recorder)
        logits = run.forward(inputs, keep=backward)
        self.context.learn(recorder, logits)
        if backward:
            self.see_images(lambda: run.at_images(torch.ones_like(logits)), logits)
            run.backward(self.context.loss_gradient(logits, targets))

    def see_images(self, gradient: Callable[[], torch.Tensor], logits: torch.Tensor) -> None:
        """Take the gradient of the sum of the logits at the images, where it is needed."""

    def run_watched(self, recorder: Recorder, tensors, inputs, targets, leaves: Sequence[torch.Tensor] = ()) -> tuple:
        """Run images forward and backward; return the gradients of the loss at `leaves` and the recorder's anchors."""
        logits = self.context.logits(tensors, inputs)
        return recorder.backward(self.context.loss(logits, targets), [*leaves, *recorder.anchors])

    def run_pieces(self, tensors, inputs, units: int, wanted: Wanted, needs, watch=nullcontext) -> None:
        """Run one unit at a time, with autograd's own weight gradients."""
        context = self.context
        leaves = context.leaves(tensors) if wanted.any else {}
        moments, reached = {name: Moments(wanted) for name in leaves}, set()
        for piece in context.slices(len(inputs), units):
            with watch() as recorder:
                loss = context.loss(context.logits(tensors, inputs[piece]), context.targets[piece])
                sources = [*leaves.values(), *(recorder.anchors if recorder else ())]
                found = torch.autograd.grad(loss, sources, allow_unused=True) if sources else ()
            for (name, weight), gradient in zip(leaves.items(), found[: len(leaves)], strict=True):
                # A unit may not use a weight that others use, such as an expert's.
                moments[name].add_unit(as_matrix(torch.zeros_like(weight) if gradient is None else gradient))
                if gradient is not None:
                    reached.add(name)
        for name in leaves:
            if name in reached:
                self.give_moments(name, leaves[name].detach(), moments[name], units, *needs)

    def _shown(self, needs: dict[Pass, tuple[str, ...]]) -> list[str]:
        """Return the needs of all passes that this run shows."""
        return [need for shown in self.context.shown_by(self.pass_) for need in needs.get(shown, ())]

    def _reduce_products(self, units: int, wanted: Wanted):
        """Return the callback that reduces each weight's gradient to its moments over the units of all parts."""
        scratch, kept, needs = Scratch(), {}, self._shown(GRADIENT_NEEDS)
        kind = self._kind_of_moments()

        def on_products(name, weight, a_UGKI, d_UGKO):
            moments = kept.pop(name, None) or kind(wanted, scratch)
            moments.add_products(a_UGKI, d_UGKO)
            if moments.units < units:
                kept[name] = moments
            else:
                self.give_moments(name, weight, moments, units, *needs)

        return on_products

    def _kind_of_moments(self) -> type[Moments]:
        wanted, device = self.context.options.tensor_cores, self.context.inputs.device
        kernel = kernel_on(device, "libranas.zero_cost.moments_kernel") if wanted else None
        return kernel.FusedMoments if kernel else Moments

    def refuse_few(self, units: int, *needs: str) -> None:
        """Make statistics over too few units undefined."""
        least = 2 if self.context.options.few_units else 4
        if units < least:
            self.collected.refuse(f"{units} gradient units have no variance to speak of: give {least}", *needs)

    def give_moments(self, name: str, weight: torch.Tensor, moments: Moments, units: int, *needs: str) -> None:
        """Give a weight's gradient over units."""
        # The loss is a mean over the batch, so a unit's own mean loss has `units` times its gradient.
        sums = (False, True) if moments.wanted.accumulated else (False,)
        for of_sums in sums:
            gradient = moments.gradient(name, as_matrix(weight), units, of_sums)
            gradient.doubts = self.context.doubts
            self.collected.give(name, gradient, *(("accumulated",) if of_sums else needs))

    def give_signal(self, images: int, name: str, product_BPD: torch.Tensor, fan_in: int, tokens: bool) -> None:
        """Give a layer's output times its gradient for `images` images."""
        if len(product_BPD) > images:  # windows or tokens of an image as rows of their own
            product_BPD = product_BPD.reshape(images, -1, product_BPD.shape[-1])
        self.collected.give(name, Signal(product_BPD, fan_in, len(self.context.inputs), tokens), "signal")


class Data(UnitRun):
    """Run the batch in the network's mode; show the gradients of the logits at the images on the way."""

    pass_ = DATA

    def run(self) -> None:
        self._at_images: list[torch.Tensor] = []
        self._run_batch()
        if self.context.joins_jacobian and not self._at_images:  # units were run one by one
            Jacobian(self.context).run()
        elif self.context.joins_jacobian:
            gradient = InputGradient(torch.cat(self._at_images), self.context.targets, self._classes)
            self.collected.give("", gradient, "input_gradient")

    def run_watched(self, recorder: Recorder, tensors, inputs, targets, leaves: Sequence[torch.Tensor] = ()) -> tuple:
        if not (self.context.joins_jacobian and torch.is_grad_enabled()):
            return super().run_watched(recorder, tensors, inputs, targets, leaves)
        x = inputs.detach().requires_grad_()
        logits = self.context.logits(tensors, x)
        self.see_images(lambda: recorder.at_inputs(logits.sum(), x), logits)
        return recorder.backward(self.context.loss(logits, targets), [*leaves, x, *recorder.anchors])

    def see_images(self, gradient: Callable[[], torch.Tensor], logits: torch.Tensor) -> None:
        if self.context.joins_jacobian:
            self._classes = logits.shape[1]
            self._at_images.append(gradient().flatten(1))

    def _run_batch(self) -> None:
        context, wants = self.context, self.collected.wants
        tensors, inputs = context.tensors(DATA), context.batch(DATA)
        few = ("spread", "abs_spread", "accumulated", *(("sample_spread",) if context.apart else ()))
        self.refuse_few(context.units, *few)
        samples = context.apart and wants("sample_spread")
        wanted = Wanted(
            mean=wants("spread") or (not context.coupled and wants("gradient")) or samples,
            spread=wants("abs_spread", "spread") or samples,
            signs=wants("signs"),
            accumulated=wants("accumulated"),
        )
        needs = ("signal", "layer"), ("activation", "activation"), *((("output", "layer"),) if context.mixes else ())
        for need, axis in needs if context.coupled else ():
            if axis in context.other_rows:
                place = f"the rows of {axis} {context.other_rows[axis]}"
                reason = f"{place} are not images in their order, and the images of a batch cannot be run alone"
                self.collected.refuse(reason, need)
        if wants("output") and (context.train or context.coupled):
            self._outputs(tensors, inputs)  # before training mode changes the running statistics
        if not context.coupled:
            self.run_units(tensors, inputs, context.units, wanted)
            return
        self._whole_batch(tensors, inputs)
        if wanted.of_units:
            self.run_pieces(tensors, inputs, context.units, wanted, ("spread", "abs_spread", "signs"))

    def _outputs(self, tensors: dict[str, torch.Tensor], inputs: torch.Tensor) -> None:
        """Show the signs of layers' outputs in evaluation mode."""
        context, signs = self.context, Signs(self.context, "output")
        for part in context.slices(len(inputs), len(inputs) if "layer" in context.other_rows else None):
            recorder = context.recorder(tensors, on_output=partial(signs.see, len(inputs[part])))
            with context.mode(train=False), torch.no_grad(), recorder:
                context.logits(tensors, inputs[part])
        signs.give()

    def _whole_batch(self, tensors: dict[str, torch.Tensor], inputs: torch.Tensor) -> None:
        """Show gradient and signs of a coupled batch as a whole, by autograd's own weight gradients."""
        context, wants = self.context, self.collected.wants
        activations = Signs(context, "activation")
        leaves = context.leaves(tensors) if wants("gradient") else {}
        if not (leaves or wants("signal", "activation")):
            return
        recorder = context.recorder(
            tensors,
            on_signal=partial(self.give_signal, len(inputs)) if wants("signal") else None,
            on_activation=partial(activations.see, len(inputs)) if wants("activation") else None,
        )
        with recorder, torch.set_grad_enabled(wants("gradient", "signal")):
            found = self.run_watched(recorder, tensors, inputs, context.targets, list(leaves.values()))
            for (name, weight), gradient in zip(leaves.items(), found[: len(leaves)], strict=True):
                if gradient is not None:
                    whole = Gradient(name, as_matrix(weight.detach()), 1, mean_OI=as_matrix(gradient))
                    self.collected.give(name, whole, "gradient")
        activations.give()


class Evaluation(UnitRun):
    """Run single images in evaluation mode, for networks whose data pass does not."""

    pass_ = EVALUATION

    def run(self) -> None:
        context = self.context
        if context.mixes:
            reason = "the logits of an image depend on the other images of its batch, in evaluation mode too"
            self.collected.refuse(reason, "sample_spread", "sample_activation")
            return
        images = len(context.inputs)
        self.refuse_few(images, "sample_spread")
        spread = self.collected.wants("sample_spread")
        with context.mode(train=False):
            wanted = Wanted(mean=spread, spread=spread)
            self.run_units(context.tensors(EVALUATION), context.batch(EVALUATION), images, wanted)
