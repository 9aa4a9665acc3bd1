"""A source of one's own: a Beam transform that makes documents."""

from pathlib import Path

TOPICS = ("sport", "music", "food, drink")


TRANSFORM = """
import apache_beam as beam
from multihot import Document, Reject

class Rows(beam.PTransform):
    '''120 documents, as a table in a database might hold them.'''

    def __init__(self, topics, rejects=0):
        super().__init__()
        self.topics, self.rejects = topics, rejects

    def expand(self, pipeline):
        return pipeline | beam.Create(range(120 + self.rejects)) | beam.Map(self.document)

    def document(self, i):
        if i >= 120:
            return Reject("table", i + 1, "no text", "received null, expected a string", "")
        text = f"document {i} \\u00e9tude\\nsecond line"
        return Document(f"d{i}", (text,), (self.topics[i % 3],), 1.0, "table", i + 1)

def numbers(count):
    return beam.Create(range(count))
"""


def write_transform(folder: Path) -> dict:
    (folder / "my_transform.py").write_text(TRANSFORM)
    return {"source": "custom", "reader": "my_transform:Rows", "options": {"topics": list(TOPICS)}}
