"""Check the licences of all that libranas and its extras (but `dev` and `docs`) install: PYTHON .ci/licences.py

Prints what each licence is that of; exit code 1 for one that software under Apache-2.0 may not depend on, or for none.
"""

import re
import sys
from collections import defaultdict
from importlib import metadata

from packaging.requirements import Requirement

#: Licences of dependencies that work under Apache-2.0 may import. LGPL: the library stays replaceable.
COMPATIBLE = (
    r"MIT|BSD|Apache|ISC|MPL|Mozilla|PSF|Python Software Foundation|Zlib|CC0|BSL|LLVM|HPND|LGPL|Public Domain"
    r"|Permission is hereby granted, free of charge"  # MIT, without its name
)
#: Libraries of NVIDIA, which PyTorch's build with CUDA loads and pip fetches from NVIDIA under NVIDIA's licence.
NVIDIA = r"nvidia-|cuda-toolkit$"


def installed(name: str, extras: tuple[str, ...], found: dict) -> dict:
    """Add a package and all that it needs here to `found`."""
    for text in metadata.requires(name) or []:
        wanted = Requirement(text)
        if wanted.marker and not any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        key = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if key not in found:
            found[key] = metadata.distribution(key)
            installed(key, tuple(wanted.extras), found)
    return found


def licence(package: metadata.Distribution) -> list[str]:
    """Return the licences of a package; those of one list are a choice."""
    about = package.metadata
    if text := about.get("License-Expression"):
        return text.split(" OR ")
    if kinds := [kind for kind in about.get_all("Classifier", []) if kind.startswith("License ::")]:
        return [kind.split(" :: ")[-1] for kind in kinds]
    files = [file.read_text() for file in package.files or [] if "LICEN" in file.name.upper()]
    lines = (about.get("License") or "\n".join(files)).splitlines()
    return [line for line in lines if re.search(COMPATIBLE, line)][:1] or lines[:1]


def fine(name: str, choices: list[str]) -> bool:
    each = (re.split(r" AND | WITH ", text) for text in choices)
    return bool(re.match(NVIDIA, name)) or any(all(re.search(COMPATIBLE, part) for part in parts) for parts in each)


def main() -> int:
    extras = tuple(e for e in metadata.metadata("libranas").get_all("Provides-Extra") if e not in ("dev", "docs"))
    names, wrong = defaultdict(list), []
    try:
        found = installed("libranas", extras, {})
    except metadata.PackageNotFoundError as error:
        sys.exit(f"{error.name} is not installed: pip install 'libranas[{','.join(extras)}]'")
    for name, package in sorted(found.items()):
        choices = licence(package)
        names[" or ".join(choices) or "none"].append(name)
        wrong += [] if fine(name, choices) else [name]
    for text, packages in sorted(names.items()):
        print(f"{text}: {', '.join(packages)}")
    print(f"{len(found)} packages. " + (f"Not compatible with Apache-2.0: {', '.join(wrong)}" if wrong else "All fit."))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
