"""SavedModels of analyzers, in a process without this project: the same bytes."""

import base64
import json
import subprocess
import sys

import pytest
import tensorflow as tf

from beam_jobs.contract.analyzer import Analyzer
from beam_jobs.contract.sections.text import TextConfig
from beam_jobs.contract.word_lists import resolve
from tests.analyzer_specs import SPECS, analyze_bytes, check_invariants

NASTY = [
    *(
        b"",
        b" ",
        b"   \t\n\r ",
        b"\x00",
        b"a\x00b\x00",
        b"\x01a\x02",
        "\u3000\u00a0\u2028\u2029\x85".encode(),
    ),
    *(
        b"\xe2\x82",
        b"a\xe2\x82 b",
        b"\xc0\xaf\xc1\xbf",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80\xed\xbf\xbf",
        b"\xf8\x88\x80\x80\x80",
        bytes(range(256)),
    ),
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308 "
    "\U0001f1e9\U0001f1ea".encode(),
    "e\u0301\u0301\u0301 \u0345 \u1fb3\u0345 o\u0308\u0323 \u0041\u030a \u0340\u0341".encode(),
    "\u05e9\u05dc\u05d5\u05dd \u202e\u0645\u0631\u062d\u0628\u0627\u202c \u0667\u0668 "
    "\u0628\u0650\u0633\u0652\u0645\u0650".encode(),
    "\u6771\u4eac\u30bf\u30ef\u30fc\u3067\u300c\u5bff\u53f8\u300d\u3092\u98df\u3079\u308b\u3002"
    "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab".encode(),
    "\ufeffBOM \ufeff inside\u2028line\u2029paragraph \ufdfa \u1e9e \u0130 \ufb03 \u212b \u00a8 "
    "\u037a".encode(),
    "The \u201cquoted\u201d don\u2019t can't I\u2019m Jo's "
    "'d\u00e9j\u00e0' x2 \u00b2 \u0663".encode(),
    b"<div><p>never <b>closed <!-- nor this <script> if (a < b) <style <",
    b"&amp;amp;lt;b&amp;gt; &amp;lt;!-- &lt;script&gt; x &lt;/script&gt; --&gt; &#38;#38;",
    "caf&eacute; &#233; t&#xe9; &copy &#128; &#0; &#x110000; &amp;eacute; C++ \U0001f600 "
    "\u0130 I\u0307 &#1; a\u200bb\u00adc <stdio.h> a<b and c>d".encode(),
    b"&" * 50_000,
    b"&#1" * 50_000,
    b"http://a.b/c?d=e&f www.x.y/z) https:// ftp://x",
    b"word The " * 50_000,
    b"x" * 1_000_000,
    "\u00e9\u0301".encode() * 100_000,
    b"<" * 100_000,
    b"<!--" * 20_000,
]


# With TensorFlow alone first, then with TensorFlow Text.
SERVER = """
import base64, json, sys
folder, core, full = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
texts = [base64.b64decode(text) for text in json.load(open(folder + "/texts.json"))]
sys.modules |= dict.fromkeys(("tensorflow_text", "sklearn", "matplotlib"))
import tensorflow as tf
answers = {}
def serve(path, names):
    signatures = tf.saved_model.load(folder + "/" + path).signatures
    assert sorted(signatures) == sorted(names)
    for name in names:
        answer = signatures[name](text=tf.constant(texts))["analyzed"]
        answers[name] = [base64.b64encode(analyzed).decode() for analyzed in answer.numpy()]
serve("core", core)
del sys.modules["tensorflow_text"]
import tensorflow_text
serve("full", full)
assert not [name for name in sys.modules if name.partition(".")[0] in ("beam_jobs", "trainer")]
json.dump(answers, open(folder + "/answers.json", "w"))
"""


def save(path: str, analyzers: dict[str, Analyzer]) -> None:
    """One SavedModel, with a signature for each analyzer."""
    module = tf.Module()
    module.analyzers = list(analyzers.values())
    signatures = {
        spec: tf.function(
            lambda text, analyzer=analyzer: {"analyzed": analyzer(text)},
            input_signature=[tf.TensorSpec([None], tf.string, name="text")],
        )
        for spec, analyzer in analyzers.items()
    }
    tf.saved_model.save(module, path, signatures=signatures)


def needs_tensorflow_text(text: TextConfig) -> bool:
    return (
        text.normalize.startswith("nfkc")
        or text.tokenizer == "unicode_script"
        or text.subwords is not None
        or text.strip_accents
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> dict[str, list[bytes]]:
    """What SavedModels of the analyzers answer to NASTY where this project is not installed."""
    folder = tmp_path_factory.mktemp("served")
    stop_words = folder / "stop.txt"
    stop_words.write_text("the\nword\n")
    core = [spec for spec, text in SPECS.items() if not needs_tensorflow_text(TextConfig(**text))]
    analyzers = {}
    for spec, text in SPECS.items():
        if text.get("stop_words") == ("the", "word"):
            text = text | {"stop_words": str(stop_words)}
        analyzers[spec] = Analyzer(resolve(TextConfig(**text)))
    full = [spec for spec in SPECS if spec not in core]
    for name, specs in {"core": core, "full": full}.items():
        save(str(folder / name), {spec: analyzers[spec] for spec in specs})
    stop_words.unlink()  # a SavedModel depends on no file of the machine that made it
    (folder / "texts.json").write_text(
        json.dumps([base64.b64encode(text).decode() for text in NASTY])
    )
    command = [sys.executable, "-I", "-c", SERVER, str(folder), json.dumps(core), json.dumps(full)]
    ended = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
    answers = json.loads((folder / "answers.json").read_text())
    assert len(core) >= 3 and len(full) >= 3
    return {spec: [base64.b64decode(text) for text in texts] for spec, texts in answers.items()}


@pytest.mark.parametrize("spec", SPECS)
def test_saved_analyzer_gives_the_same_bytes_in_a_fresh_process(served, spec):
    expected = analyze_bytes(NASTY, **SPECS[spec])
    assert len(served[spec]) == len(NASTY)
    assert [i for i in range(len(NASTY)) if served[spec][i] != expected[i]] == []
    assert (
        sum(map(bool, expected)) > len(NASTY) // 2
    )  # the inputs are not nasty to the point of emptiness
    for output in expected:
        check_invariants(output, TextConfig(**SPECS[spec]).max_tokens_per_document)
