"""What a run of a pass is."""

from abc import ABC, abstractmethod
from typing import ClassVar

from libranas.zero_cost.passes.context import Context
from libranas.zero_cost.proxy import Pass


class PassRun(ABC):
    """One run of the network that shows every proxy of the pass what it needs.

    Attributes
    ----------
    pass_ : Pass
        The pass that this class runs.
    """

    pass_: ClassVar[Pass]

    def __init__(self, context: Context):
        self.context, self.collected = context, context.collected

    @abstractmethod
    def run(self) -> None:
        """Run the network and give what it shows to the proxies, in ``context.parts`` parts."""
