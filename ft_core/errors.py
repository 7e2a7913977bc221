"""The one exception that is meant for people."""


class FTError(Exception):
    """Shown to the person as it is: `message` says what happened and where, `hint` what to do.

    Everything else that escapes is a defect of FT Flow.
    """

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message = message
        self.hint = hint
