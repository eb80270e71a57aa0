"""Results of the proxies of one scoring call, place by place."""

from collections import defaultdict
from collections.abc import Iterable

import torch

from libranas.zero_cost.options import Options
from libranas.zero_cost.proxy import NEEDS, Pass, Proxy, Undefined


class Collected:
    """The numbers that the reduces of the proxies returned, by proxy, need and place.

    Attributes
    ----------
    captures : proxy name -> its captures (need -> reduce)
    undefined : proxy name -> the reason why it has no value for this network
    """

    def __init__(self, proxies: Iterable[Proxy], options: Options):
        self.options = options
        self.captures = {p.name: p.captured(options) for p in proxies}
        self.undefined: dict[str, str] = {}
        self._found: dict[tuple[str, str], dict[str, dict]] = defaultdict(dict)

    def wants(self, *needs: str) -> bool:
        """Return whether a proxy that may still have a value has one of `needs`."""
        open_ = (captures for name, captures in self.captures.items() if name not in self.undefined)
        return any(need in captures for captures in open_ for need in needs)

    def give(self, place: str, captured, *needs: str) -> None:
        """Let every proxy with one of `needs` reduce what was captured at `place`; parts of a batch add up."""
        for need in needs:
            for name, captures in self.captures.items():
                if need in captures and name not in self.undefined:
                    self._reduce(name, need, place, captured)

    def _reduce(self, name: str, need: str, place: str, captured) -> None:
        try:
            numbers = self.captures[name][need](captured, self.options)
        except Undefined as reason:
            self.undefined[name] = str(reason)
            return
        places = self._found[name, need]
        if place in places:
            numbers = {key: places[place][key] + number for key, number in numbers.items()}
        places[place] = numbers

    def refuse(self, reason: str, *needs: str) -> None:
        """Make all proxies with one of `needs` undefined for this network."""
        for name, captures in self.captures.items():
            if any(need in captures for need in needs):
                self.undefined.setdefault(name, reason)

    def forget(self, passes: Iterable[Pass]) -> None:
        """Drop what `passes` have given so far, since they are run again."""
        for name, need in list(self._found):
            if NEEDS[need][0] in passes:
                del self._found[name, need]

    def fetch(self) -> None:
        """Copy all single numbers from the device at once: waiting for each of them would leave a GPU idle."""
        found = [numbers for places in self._found.values() for numbers in places.values()]
        waiting = [
            (numbers, key) for numbers in found for key, x in numbers.items() if torch.is_tensor(x) and not x.dim()
        ]
        if waiting:
            values = torch.stack([numbers[key].double() for numbers, key in waiting]).tolist()
            for (numbers, key), value in zip(waiting, values, strict=True):
                numbers[key] = value

    def of(self, proxy: Proxy, watched: dict[str, tuple[str, ...]]) -> list[dict]:
        """Return the joined dicts of each place, in the order of execution; Undefined if there is no value.

        `watched` are the places along each axis that were looked at.
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
