"""A source of your own that is an Apache Beam transform: whatever Beam can read can be a source."""

import apache_beam as beam

from multihot import Document


class Reviews(beam.PTransform):
    """Lines `labels<TAB>text` -> documents. `beam.io.ReadFromBigQuery` would do as well."""

    def __init__(self, pattern: str):
        super().__init__()
        self.pattern = pattern

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        lines = pipeline | "Lines" >> beam.io.ReadFromText(self.pattern)
        return lines | "Documents" >> beam.Map(self.document)

    def document(self, line: str) -> Document:
        labels, _, text = line.partition("\t")
        return Document(
            id=text[:20],
            texts=(text,),
            labels=tuple(labels.split(",")),
            weight=1.0,
            source=self.pattern,
            row=0,
        )
