"""The one exception that a user is meant to read.

Every failure that a user can cause or mend (a wrong config key, a missing folder, a broken image,
a truncated file) raises :class:`LibranasError` with a message that says what is wrong, where, what
was expected and what to do. Anything else that escapes is a fault of this software.
"""


class LibranasError(Exception):
    """A problem with the user's input, files or machine; the message is complete by itself.

    Parameters
    ----------
    what : str
        What is wrong and where, with the offending value.
    todo : str
        What the reader can do about it.
    """

    def __init__(self, what: str, todo: str = ""):
        self.what, self.todo = what, todo
        super().__init__(f"{what}\n  -> {todo}" if todo else what)
