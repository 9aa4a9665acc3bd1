"""The splits that are not decided yet when documents are merged, by the config's method."""

import dataclasses

import apache_beam as beam

from beam_jobs.contract.sections.splits import SplitsConfig, StratifiedSplits, TimeFractionSplits
from beam_jobs.preprocessing.stratified_split import Stratify
from beam_jobs.preprocessing.time_split import SplitByTime


@dataclasses.dataclass
class AssignSplits(beam.PTransform):
    """Buckets of ENCODED -> the same with a split for every document.

    Attributes:
      directory: for spill files and the buckets.
      splits: how documents are split.
      kept_labels: PCollection of one Frequencies.
    """

    directory: str
    splits: SplitsConfig
    kept_labels: beam.PCollection

    def expand(self, buckets):
        if isinstance(self.splits, StratifiedSplits):
            return buckets | Stratify(self.directory, self.splits, self.kept_labels)
        if isinstance(self.splits, TimeFractionSplits):
            return buckets | SplitByTime(self.directory, self.splits)
        # Merging has decided them; the step keeps the composite from being empty.
        return buckets | "Unchanged" >> beam.Map(lambda bucket: bucket)
