"""The one exception that means "the user's input was wrong"."""


class UserError(ValueError):
    """An input that the user can correct: a config, a file, a directory or an argument.

    Its message says what was received, what was expected and how to fix it. The command
    lines print it alone, without a traceback, and exit with status 2. Any other exception
    is a defect of ours or a failure of the machine and exits with status 1.
    """
