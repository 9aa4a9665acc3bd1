"""Files that a config names and that are no text say what they are."""

import gzip

import pytest

from beam_jobs.contract import word_lists
from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.errors import UserError
from beam_jobs.preprocessing.labels import resolve
from beam_jobs.sources import label_names

CONTENTS = [
    (gzip.compress(b"cars\n", mtime=0), "a gzip file, so unpack it"),
    (b"PK\3\4\x80", "a zip file, so unpack it"),
    ("cars\n".encode("utf-16"), "a text in UTF-16, so save it in UTF-8"),
    (b"PAR1\x80", "a Parquet file, so write it as text"),
]


@pytest.mark.parametrize(("content", "kind"), CONTENTS)
@pytest.mark.parametrize("key", ["text.stop_words", "labels.allow", "data.label_names"])
def test_a_list_of_words_that_is_no_text_is_told_by_its_first_bytes(tmp_path, key, content, kind):
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    section, name = key.split(".")
    raw = {"name": "x", "data": {"source": "jsonl", "inputs": ["in"]}}
    if section == "data":
        raw["data"] |= {"label_format": "ids"}
    raw.setdefault(section, {})[name] = str(path)
    config = config_from_dict(raw, what="x")
    resolvers = {
        "text": lambda: word_lists.resolve(config.text),
        "labels": lambda: resolve(config.labels),
        "data": lambda: label_names.resolve(config.data),
    }
    with pytest.raises(UserError, match=f"{key}: cannot read .*; its first bytes are .* {kind}"):
        resolvers[section]()
