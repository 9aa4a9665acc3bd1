"""What fails around a command, for `scripts/check_faults.py`: a function for each fault.

Each takes the uninterrupted runs, and tells what came of the fault in one stage after another.
"""

from kills import disks, disturbances, sizes

KINDS = disks.KINDS | disturbances.KINDS | sizes.KINDS
