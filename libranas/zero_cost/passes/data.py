"""The data and evaluation passes: the loss on the batch, its gradient over units, and signs of activations."""

from functools import partial

import torch

from libranas.zero_cost.captures import Gradient, Signal
from libranas.zero_cost.gradient_moments import Moments, Scratch, Wanted
from libranas.zero_cost.gradient_operands import as_matrix
from libranas.zero_cost.passes.context import PassRun
from libranas.zero_cost.passes.signs import Signs
from libranas.zero_cost.proxy import DATA, EVALUATION, Pass

#: Pass -> what it shows of the gradient of every weight over units, and of activations.
GRADIENT_NEEDS = {DATA: ("spread", "abs_spread", "signs", "gradient"), EVALUATION: ("sample_spread",)}
ACTIVATION_NEEDS = {DATA: ("activation",), EVALUATION: ("sample_activation",)}


class UnitRun(PassRun):
    """Run units that do not depend on each other: one run shows everything."""

    def run_units(self, tensors: dict[str, torch.Tensor], inputs: torch.Tensor, units: int, wanted: Wanted) -> None:
        """Run the batch as `units` equal units; the batch's gradient is the mean over them."""
        context, wants = self.context, self.collected.wants
        signals = self.pass_ == DATA and wants("signal")
        sees_outputs = self.pass_ == DATA and wants("output") and not context.train
        products = wanted.mean or wanted.of_units
        needs = self._shown(ACTIVATION_NEEDS)
        activations, outputs = Signs(context, *needs), Signs(context, "output")
        on_products = self._reduce_products(units, wanted) if products else None
        size = len(inputs) // units
        for part in context.slices(units):
            images = slice(part.start * size, part.stop * size)
            recorder = context.recorder(
                on_products=on_products,
                units=part.stop - part.start,
                on_signal=partial(self.give_signal, images.stop - images.start) if signals else None,
                on_activation=activations.see if wants(*needs) else None,
                on_output=outputs.see if sees_outputs else None,
            )
            with recorder, torch.set_grad_enabled(products or signals):
                logits = context.logits(tensors, inputs[images])
                recorder.backward(context.loss(logits, context.targets[images]), recorder.anchors)
        activations.give()
        outputs.give()

    def _shown(self, needs: dict[Pass, tuple[str, ...]]) -> list[str]:
        """Return the needs of all passes that this run shows."""
        return [need for shown in self.context.shown_by(self.pass_) for need in needs[shown]]

    def _reduce_products(self, units: int, wanted: Wanted):
        """Return the callback that reduces each weight's gradient to its moments over the units of all parts."""
        scratch, kept, needs = Scratch(), {}, self._shown(GRADIENT_NEEDS)

        def on_products(name, weight, a_UGKI, d_UGKO):
            moments = kept.pop(name, None) or Moments(wanted, scratch)
            moments.add_products(a_UGKI, d_UGKO)
            if moments.units < units:
                kept[name] = moments
            else:
                self.give_moments(name, weight, moments, units, *needs)

        return on_products

    def refuse_few(self, units: int, *needs: str) -> None:
        """Make statistics over too few units undefined."""
        least = 2 if self.context.options.few_units else 4
        if units < least:
            self.collected.refuse(f"{units} gradient units have no variance to speak of: give {least}", *needs)

    def give_moments(self, name: str, weight: torch.Tensor, moments: Moments, units: int, *needs: str) -> None:
        """Give a weight's gradient over units."""
        # The loss is a mean over the batch, so a unit's own mean loss has `units` times its gradient.
        self.collected.give(name, moments.gradient(name, as_matrix(weight), units), *needs)
        if moments.wanted.accumulated:
            self.collected.give(name, moments.gradient(name, as_matrix(weight), units, sums=True), "accumulated")

    def give_signal(self, images: int, name: str, product_BPD: torch.Tensor, fan_in: int, tokens: bool) -> None:
        """Give a layer's output times its gradient for `images` images."""
        if len(product_BPD) % images:
            reason = f"layer {name} has {len(product_BPD)} rows for {images} images: they are not samples"
            self.collected.refuse(reason, "signal")
            return
        if len(product_BPD) > images:  # windows or tokens of an image as rows of their own
            product_BPD = product_BPD.reshape(images, -1, product_BPD.shape[-1])
        self.collected.give(name, Signal(product_BPD, fan_in, len(self.context.inputs), tokens), "signal")


class Data(UnitRun):
    """Run the batch in the network's mode."""

    pass_ = DATA

    def run(self) -> None:
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
        if wants("output") and (context.train or context.coupled):
            self._outputs(tensors, inputs)  # before training mode changes the running statistics
        if not context.coupled:
            self.run_units(tensors, inputs, context.units, wanted)
            return
        self._whole_batch(tensors, inputs)
        if wanted.of_units:
            self._pieces(tensors, inputs, wanted)

    def _outputs(self, tensors: dict[str, torch.Tensor], inputs: torch.Tensor) -> None:
        """Show the signs of layers' outputs in evaluation mode."""
        context, signs = self.context, Signs(self.context, "output")
        for part in context.slices(len(inputs)):
            with context.mode(train=False), torch.no_grad(), context.recorder(on_output=signs.see):
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
            on_signal=partial(self.give_signal, len(inputs)) if wants("signal") else None,
            on_activation=activations.see if wants("activation") else None,
        )
        with recorder, torch.set_grad_enabled(wants("gradient", "signal")):
            logits = context.logits(tensors, inputs)
            sources = [*leaves.values(), *recorder.anchors]
            found = recorder.backward(context.loss(logits, context.targets), sources)
            for (name, weight), gradient in zip(leaves.items(), found[: len(leaves)], strict=True):
                if gradient is not None:
                    whole = Gradient(name, as_matrix(weight.detach()), 1, mean_OI=as_matrix(gradient))
                    self.collected.give(name, whole, "gradient")
        activations.give()

    def _pieces(self, tensors: dict[str, torch.Tensor], inputs: torch.Tensor, wanted: Wanted) -> None:
        """Show the gradient of each micro-batch of a coupled batch."""
        context = self.context
        leaves = context.leaves(tensors)
        if not leaves:
            return
        moments = {name: Moments(wanted) for name in leaves}
        for piece in context.slices(len(inputs), context.units):
            loss = context.loss(context.logits(tensors, inputs[piece]), context.targets[piece])
            found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
            for name, gradient in zip(leaves, found, strict=True):
                if gradient is not None:
                    moments[name].add_unit(as_matrix(gradient))
        for name, weight in leaves.items():
            if moments[name].units:
                needs = ("spread", "abs_spread", "signs")
                self.give_moments(name, weight.detach(), moments[name], context.units, *needs)


class Evaluation(UnitRun):
    """Run single images in evaluation mode, for networks whose data pass does not."""

    pass_ = EVALUATION

    def run(self) -> None:
        context = self.context
        if any(m.running_mean is None for m in context.anatomy.batch_norms.values()):
            reason = "batch normalisation without running statistics couples the samples in evaluation mode too"
            self.collected.refuse(reason, "sample_spread", "sample_activation")
            return
        images = len(context.inputs)
        self.refuse_few(images, "sample_spread")
        spread = self.collected.wants("sample_spread")
        with context.mode(train=False):
            wanted = Wanted(mean=spread, spread=spread)
            self.run_units(context.tensors(EVALUATION), context.batch(EVALUATION), images, wanted)
