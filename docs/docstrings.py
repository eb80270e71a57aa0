"""A griffe extension: docstrings of this project as mkdocstrings reads them.

An entry ``name : text`` of a section has a type only if its description stands in the lines below; else the text is the
description. Roles (``:class:`Arch```) become code.
"""

import re

from griffe import Extension

#: A type and the start of a description that goes on in the next line are told apart by their lengths.
LONGEST_TYPE = 70


class Docstrings(Extension):
    """Rewrites the text of every docstring before it is parsed."""

    def on_object(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(text: str) -> str:
    """Return the docstring for a parser of NumPy's style."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    sections = re.split(r"^(\w+\n-+\n)", text, flags=re.M)
    for i in range(1, len(sections), 2):
        if sections[i].startswith(("Parameters", "Attributes")):
            sections[i + 1] = re.sub(
                r"^(\S.*?) : (.*)\n?((?: +.*\n?)*)",
                lambda m: m[0] if m[3] and len(m[2]) < LONGEST_TYPE else f"{m[1]}\n    {m[2]}\n{m[3]}",
                sections[i + 1],
                flags=re.M,
            )
    return "".join(sections)
