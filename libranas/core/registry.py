"""Registries: everything of one kind, by name. A registry is the only list of its kind.

A registry finds its records in the modules of one package of libranas: a new file there is all that a new record takes.
Other packages add records through an entry point of the registry's group, which names a module or a record.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from libranas.core.errors import LibranasError

Record = TypeVar("Record")


class Registry(Mapping[str, Record], Generic[Record]):
    """All records of one type, by their ``name``. Modules are imported when the registry is first read.

    Then it is a LibranasError if two records have one name, or an entry point cannot be loaded.

    Parameters
    ----------
    record : the type of the records, with an attribute ``name``
    package : dotted name of the package whose modules define records
    kind : what a record is called in messages, singular
    group : entry-point group of records in other packages
    order : sort key of the listing; None: the order in which records were found
    """

    def __init__(self, record: type[Record], package: str, kind: str, group: str, order: Callable | None = None):
        self.record, self.package, self.kind, self.group, self.order = record, package, kind, group, order

    def __getitem__(self, name: str) -> Record:
        if not isinstance(name, str):  # anything that a file holds; a list would be a TypeError
            raise KeyError(name)
        return self._records[name][0]

    def __iter__(self) -> Iterator[str]:
        if self.order is None:
            return iter(self._records)
        return iter(sorted(self._records, key=lambda name: self.order(self[name])))

    def __len__(self) -> int:
        return len(self._records)

    def get_or_explain(self, name: str) -> Record:
        """Return the record called `name`; a LibranasError lists the known names if there is none."""
        if name not in self:
            raise LibranasError(f"Unknown {self.kind} '{name}'.", f"Known: {', '.join(self)}.")
        return self[name]

    def add(self, record: Record, where: str = "added by a call") -> None:
        """Register one more record for this process; `where` names its origin in messages."""
        self._add(self._records, record, where)

    def remove(self, name: str) -> None:
        """Take back what :meth:`add` registered."""
        del self._records[name]

    @cached_property
    def _records(self) -> dict[str, tuple[Record, str]]:
        """Each record and where it was found, by name."""
        found: dict[str, tuple[Record, str]] = {}
        package = importlib.import_module(self.package)
        for module in pkgutil.walk_packages(package.__path__, f"{self.package}."):
            self._scan(found, importlib.import_module(module.name))
        for point in entry_points(group=self.group):
            self._load(found, point)
        return found

    def _load(self, found: dict, point) -> None:
        where = f"the entry point {point.name} = {point.value} of {point.dist.name if point.dist else 'a package'}"
        try:
            loaded = point.load()
        except Exception as error:
            raise LibranasError(
                f"{where} in the group {self.group} cannot be loaded: {type(error).__name__}: {error}",
                "Mend or uninstall that package.",
            ) from error
        if isinstance(loaded, self.record):
            self._add(found, loaded, where)
        else:
            self._scan(found, loaded)

    def _scan(self, found: dict, module) -> None:
        """Register the records among the names of a module."""
        for value in vars(module).values():
            if isinstance(value, self.record):
                self._add(found, value, module.__name__)

    def _add(self, found: dict, record: Record, where: str) -> None:
        known, origin = found.get(record.name, (record, ""))
        if known is not record:
            raise LibranasError(
                f"Two {self.kind} records are called '{record.name}': one from {origin}, one from {where}.",
                "Rename one of them.",
            )
        found.setdefault(record.name, (record, where))
