"""Preprocessing in naive Beam: one Python object an element, on the in-memory runner."""

import hashlib

import apache_beam as beam
import pyarrow as pa
from apache_beam.io.tfrecordio import WriteToTFRecord
from apache_beam.pvalue import AsSingleton

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.config import Config
from beam_jobs.contract.records import RecordSpec
from beam_jobs.contract.word_lists import resolve
from beam_jobs.preprocessing.analyze import process_analyzer
from beam_jobs.preprocessing.buckets import split_keys
from beam_jobs.preprocessing.splits import assign
from beam_jobs.sources import registry


class AnalyzeOne(beam.DoFn):
    def __init__(self, config: Config):
        self._text = resolve(config.text).model_dump_json()

    def setup(self):
        self._analyzer = process_analyzer(self._text)

    def process(self, document):
        yield self._analyzer([document.texts[0].encode()])[0], document


def merge_equal(element, config: Config):
    """(text, its documents) -> (split, id, text, label names)."""
    text, documents = element[0], list(element[1])
    digest = hashlib.blake2b(text, digest_size=16).digest()
    key = split_keys(pa.chunked_array([[digest]], pa.binary()))
    (split,) = assign(key, pa.nulls(1, pa.int8()), config.splits).to_pylist()
    return (
        split,
        min(document.id for document in documents),
        text,
        sorted({label for document in documents for label in document.labels}),
    )


def encode_one(document, label_ids: dict[str, int]) -> bytes:
    _, name, text, labels = document
    return RecordSpec().encode(
        {
            "id": name.encode(),
            "text": text,
            "labels": [label_ids[label] for label in labels if label in label_ids],
        }
    )


def run(config: Config, shards: int) -> None:
    """Writes `naive/SPLIT-*` and `naive/vocabulary` in the working directory."""
    reader = registry.make_reader(config.data)
    with beam.Pipeline(runner="FnApiRunner") as job:
        documents = (
            job
            | beam.Create(reader.files())
            | beam.FlatMap(reader.read)
            | "Analyze" >> beam.ParDo(AnalyzeOne(config))
            | beam.GroupByKey()
            | "Merge" >> beam.Map(merge_equal, config)
        )
        label_ids = (
            documents
            | "Labels" >> beam.FlatMap(lambda document: document[3])
            | "CountLabels" >> beam.combiners.Count.PerElement()
            | "Frequent" >> beam.Filter(lambda counted: counted[1] >= config.labels.min_count)
            | "Names" >> beam.Keys()
            | beam.combiners.ToList()
            | "Ids" >> beam.Map(lambda names: {name: i for i, name in enumerate(sorted(names))})
        )
        _ = (
            documents
            | "Train" >> beam.Filter(lambda document: document[0] == 0)
            | "Tokens" >> beam.FlatMap(lambda document: set(document[2].split()))
            | "CountTokens" >> beam.combiners.Count.PerElement()
            | "Known"
            >> beam.Filter(lambda counted: counted[1] >= config.vocabulary.min_documents_of_token)
            | beam.combiners.Top.Of(
                config.vocabulary.size,
                key=lambda counted: (counted[1], [*(-byte for byte in counted[0]), 1]),
            )
            | "Lines" >> beam.FlatMap(lambda counted: [token.decode() for token, _ in counted])
            | beam.io.WriteToText("naive/vocabulary", num_shards=1, shard_name_template="")
        )
        for i, split in enumerate(manifests.SPLITS):
            _ = (
                documents
                | f"Only {split}" >> beam.Filter(lambda document, i=i: document[0] == i)
                | f"Encode {split}" >> beam.Map(encode_one, AsSingleton(label_ids))
                | f"Write {split}" >> WriteToTFRecord(f"naive/{split}", num_shards=shards)
            )
