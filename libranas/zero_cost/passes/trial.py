"""The trial: whether what two images show of a network is what the engine takes for granted.

The gradient of the logits of the second image is made by autograd, and by the rules from its half of the rows of every
layer. It must be the same, and must not reach the first image.
"""

from collections import defaultdict
from functools import partial

import torch

from libranas.core.errors import LibranasError
from libranas.zero_cost.anatomy import BATCH_NORMS, is_plain_norm
from libranas.zero_cost.gradient_operands import as_matrix, norm_gradient, normalised, rule_of
from libranas.zero_cost.hooks import Recorder, hooked
from libranas.zero_cost.parameters import Tensors, kernel_weights, parameters_of, unseen_layers, weight_of
from libranas.zero_cost.passes.context import PassRun
from libranas.zero_cost.proxy import DATA, TRIAL

#: Relative error up to which two gradients are the same; those of other rows differ by their own size.
TOLERANCE = 1e-3


class Trial(PassRun):
    """Find out how the gradients of a network can be made; see the attributes of the context."""

    pass_ = TRIAL

    def run(self) -> None:
        context = self.context
        self._by_rule: dict[int, list] = defaultdict(list)  # id of a weight -> gradients of its uses
        self._used: list[tuple] = []  # layer, its input, version of that
        self._ran: set[int] = set()  # ids of weights whose module these images use
        #: (axis, place) -> whether its rows are seen to be images, and whether they may be
        self._rows: dict[tuple[str, str], tuple[bool, bool]] = {}
        tensors = self._nowhere_zero(context.tensors(DATA))
        images = context.batch(DATA)[[0, -1]].requires_grad_()
        parameters = parameters_of(context.model, tensors, context.layers())
        sources = {key: p.tensor.requires_grad_() for key, p in parameters.items() if p.tensor.is_floating_point()}
        at_images, *found = self._gradients(tensors, [images, *sources.values()])
        self._judge(tensors, at_images, dict(zip(sources, found, strict=True)))

    def _nowhere_zero(self, tensors: Tensors) -> Tensors:
        """Replace parameters that are all zero, which would hide what comes before them."""
        context, made = self.context, {}
        generator = context.generator("trial")
        for key, parameter in parameters_of(context.model, tensors, ()).items():
            old = parameter.tensor
            if not old.any():
                made[key] = torch.randn(old.shape, generator=generator).mul_(0.02).to(old)
        return {name: made.get(id(tensor), tensor) for name, tensor in tensors.items()}

    def _gradients(self, tensors: Tensors, sources: list[torch.Tensor]) -> tuple:
        """Return the gradients of the logits of the second image, mixed at random."""
        context, anatomy = self.context, self.context.anatomy
        recorder = Recorder(
            anatomy,
            on_signal=lambda place, product_BPD, *_: self._see_rows("layer", place, product_BPD),
            by_use=True,
            **context.tensors_of(tensors),
        )
        hooks = [(anatomy.layers[name], partial(self._see_layer, name)) for name in anatomy.plain]
        if not context.mixes:
            norms = (m for m in anatomy.norms.values() if m.weight is not None and is_plain_norm(m))
            hooks += [(module, self._see_norm) for module in norms]
        before = [
            module.register_forward_pre_hook(partial(self._see_activation, name))
            for name, module in anatomy.activations.items()
        ]
        identity = BATCH_NORMS if context.mixes else ()
        try:
            with context.mode(train=False, identity=identity), hooked(hooks), recorder:
                logits = context.logits(tensors, sources[0])[1]
                weights = torch.randn(logits.shape, generator=context.generator("trial")).to(logits)
                return torch.autograd.grad(logits @ weights, sources, allow_unused=True)
        except RuntimeError as error:
            changed = next((name for name, x, version in self._used if x._version != version), None)
            if changed is None or "inplace" not in str(error):
                raise
            raise LibranasError(
                f"The input of layer {changed} was changed in place after the layer used it.",
                "Make the operation that follows it out-of-place (inplace=False).",
            ) from error
        finally:
            for handle in before:
                handle.remove()

    def _see_layer(self, name: str, module, args, output):
        weight, inputs = id(module.weight), args[0].detach()
        self._ran.add(weight)
        self._used.append((name, inputs, inputs._version))

        def receive(out_grad):
            gradient = out_grad.new_full((), torch.nan)
            if len(inputs) % 2 == 0 and inputs.dim() >= module.weight.dim():
                self.context.rows.setdefault(name, set()).add(len(inputs) // 2)
                a_UGKI, d_UGKO = rule_of(module).operands(module, inputs, out_grad, 2)
                gradient = (d_UGKO[1].mT @ a_UGKI[1]).flatten(0, 1)
            self._by_rule[weight].append(gradient)

        output.register_hook(receive)
        return output.clone()  # what follows may work in place

    def _see_norm(self, module, args, output):
        weight, normal = id(module.weight), normalised(module, args[0].detach())
        self._ran.add(weight)

        def receive(out_grad):
            gradient = out_grad.new_full((), torch.nan)
            if len(out_grad) % 2 == 0:
                gradient = norm_gradient(module, normal, out_grad, 2)[1]
            self._by_rule[weight].append(gradient)

        output.register_hook(receive)
        return output.clone()

    def _see_activation(self, name: str, module, args):
        self._rows.setdefault(("activation", name), (False, len(args[0]) == 2))
        if args[0].requires_grad:
            args[0].register_hook(partial(self._see_rows, "activation", name))

    def _see_rows(self, axis: str, place: str, gradient: torch.Tensor) -> None:
        """Note whether the second half of the rows is the second image's, and nothing else is."""
        first, second = gradient.tensor_split(2)
        seen = len(first) == len(second) and bool(second.any()) and not first.any()
        self._rows[axis, place] = seen, seen or (len(gradient) == 2 and not gradient.any())  # nothing arrives

    def _judge(self, tensors: Tensors, at_images, found: dict[int, torch.Tensor]) -> None:
        context = self.context
        context.complete_axes(tensors)
        places = {id(weight_of(tensors, name)) for name in context.layers()}
        kernel = {id(weight) for weight in kernel_weights(context.model, tensors, context.layers())}
        context.other_rows = {axis: place for (axis, place), (_, possible) in self._rows.items() if not possible}
        seen = all(seen for seen, _ in self._rows.values())
        context.by_rule = seen and all(self._holds(found, weight) for weight in places)
        context.kernel_by_rule = context.by_rule and all(self._holds(found, weight) for weight in kernel)
        unseen = unseen_layers(context.model, tensors, context.layers())
        context.unseen |= {p.place for p in unseen if found.get(id(p.tensor)) is not None}
        if at_images is not None:
            first, second = at_images.abs().amax(tuple(range(1, at_images.dim())))
            if first.isfinite() and first > TOLERANCE * second:
                context.by_rule = context.kernel_by_rule = False
                context.choose_units(mixes=True)

    def _holds(self, found: dict[int, torch.Tensor], weight: int) -> bool:
        """Return whether the rule gives autograd's gradient of a weight, or no output depends on it."""
        gradient, by_rule = found[weight], self._by_rule.get(weight)
        if gradient is None:
            return weight in self._ran
        if by_rule is None:
            return False
        error = as_matrix(gradient) - sum(by_rule) if gradient.dim() > 1 else gradient - sum(by_rule)
        return bool(error.norm() < TOLERANCE * gradient.norm())
