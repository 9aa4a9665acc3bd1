"""Python imports this as it starts: so the processes of a watched command are watched, too."""

from kills import operations

operations.install()
