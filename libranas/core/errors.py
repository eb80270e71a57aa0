"""The one exception that a user is meant to read."""


class LibranasError(Exception):
    """A problem with the user's input, files or machine. Any other exception that escapes is a fault of libranas.

    Parameters
    ----------
    what : what is wrong and where, with the offending value
    todo : what the reader can do about it
    """

    def __init__(self, what: str, todo: str = ""):
        self.what, self.todo = what, todo
        super().__init__(f"{what}\n  -> {todo}" if todo else what)
