"""A file that a reader reads."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class InputFile:
    """An input file.

    Attributes:
      name: how rejects and the input's hash name it; does not change when the input as a whole is moved.
      path: where Beam's file systems find it.
      bytes: its size.
    """

    name: str
    path: str
    bytes: int
