"""A process that fits blocks of labels: `python -m trainer.linear.worker JOB`.

`trainer.linear.blocks` starts it. JOB is a JSON object: the directory of the problem, and the other
arguments of `load_problem`. Each line of stdin is a JSON object, first and last label and the file
to write; each is answered by a line. It ends with its stdin, so it never outlives the process that
feeds it by more than a block.
"""

import json
import sys
from pathlib import Path

from trainer.linear.solver import Fitter, load_problem, save_block

DONE = "done"


def main(job: str) -> None:
    options = json.loads(job)
    fitter = Fitter(load_problem(Path(options.pop("directory")), **options))
    for line in sys.stdin:
        block = json.loads(line)
        result = fitter.fit(block["first"], block["last"])
        save_block(Path(block["file"]), result)
        print(DONE, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
