"""`multihot.audit`: the labels of a dataset that look wrong or missing."""

import os

from beam_jobs.contract.config import Config
from multihot.calls import python_call
from multihot.dataset import Dataset
from multihot.run import config_of
from multihot.settings import Settings


def audit(
    source: Dataset | Config | Settings | str | os.PathLike[str],
    *,
    top: int | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    verbose: bool = True,
    settings: Settings | None = None,
    **sections: Settings,
) -> list[dict[str, str]]:
    """Lists labels that look wrong or missing, the likeliest first.

    Train and validation documents are divided into folds, and each is scored by a model that was
    trained on the other folds.

    Args:
      source: a dataset, its directory, or the config of an experiment whose dataset is there. It
        needs as many shards as folds (`output={"shards": 5}` when it is made).
      top: rows of each kind; None: a tenth of the documents, and at least 100.
      run_dir: beside it, in a directory of its name and `-audit`, the folds are trained; default:
        the one that the config names.
      fresh: delete the runs of an earlier audit first.
      verbose: print what is done.
      settings: keys of the config, such as `{"train.folds": 10}`; 5 folds are the default.
      **sections: the same by section, such as `model={"name": "linear"}`.

    Returns:
      Rows for `pandas.DataFrame`: kind (`wrong`, `missing`), rank, id, label, score, usual_score
      (the mean score of the documents with the label), labels, text. They are in audit.csv too.

    Raises:
      UserError: settings and dataset do not fit, or the dataset has fewer shards than folds.
    """
    with python_call(verbose=verbose):
        from trainer.auditing import audit as audit_labels
        from trainer.training.signals import StoppedBySignal

        config = config_of(source, settings, sections, run_dir=run_dir)
        try:
            _, rows = audit_labels(config, top=top, fresh=fresh)
        except StoppedBySignal as stopped:
            raise KeyboardInterrupt(str(stopped)) from None
    return rows
