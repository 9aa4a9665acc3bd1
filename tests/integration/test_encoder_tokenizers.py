"""The tokenizers of encoders in the analyzer: the pieces of Hugging Face's own, on any text."""

import base64
import json

import pytest
import sentencepiece
import tensorflow as tf
import tokenizers

from beam_jobs.contract.analyzer import Analyzer
from beam_jobs.contract.encoder_tokenizer import read_tokenizer
from beam_jobs.contract.sections.text import TextConfig
from beam_jobs.contract.word_lists import resolve
from tests.tiny_encoder import write_tokenizer

TEXTS = [
    "",
    "  \t\n ",
    "Don't stop: it's U.S.A.'s foo_bar, $5 <b> a^b~c",
    "Sydämet ja ääkköset: ÖLJY, e\u0301a\u0308, yö",
    "你好，世界 ok 漢字かな한국어 텍스트",
    "مرحبا بالعالم، كَتَبَ ٣٤؟",
    "नमस्ते दुनिया। ไทยไทย שָׁלוֹם",
    "ẞ ß STRASSE \u0130stanbul I\u0307 ﬁne ①② ½ ＦＵＬＬ Ǆ ΑΣ",
    "zero\u200bwidth soft\u00adhyphen \ufeffbom a\u3000b a\u00a0b \u2028x a\ufffdb",
    "a\x0cb\x7fc\x85d \x1b e\x00f \ue000private",
    "🤗 emoji 👨\u200d👩\u200d👧 flags 🇫🇮",
    "x" * 100,
    "\u044f" * 60,
    "line\r\nends\rand\ttabs",
]
# Each character of the texts, in and after the beginning of a word: pieces then tell all that was
# done to characters.
CHARACTERS = sorted(
    {
        character
        for text in TEXTS
        for form in (text, *map(str.lower, text))
        for character in tokenizers.normalizers.NFD().normalize_str(form) + form
        if character.strip() and character.isprintable()
    }
    - set("½ﬁ")
)
PIECES = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]"),
    *CHARACTERS,
    *(f"##{character}" for character in CHARACTERS),
]


def analyzed(directory, texts, **text) -> list[str]:
    keys = {"strip_html": False, "strip_urls": False, "max_tokens_per_document": None} | text
    analyzer = Analyzer(resolve(TextConfig(tokenizer=str(directory), **keys)))
    return [line.decode() for line in analyzer(tf.constant(texts)).numpy()]


@pytest.mark.parametrize(
    ("lower_case", "strip_accents"), [(True, None), (False, None), (True, False), (False, True)]
)
def test_wordpiece_gives_the_pieces_of_hugging_face(tmp_path, lower_case, strip_accents):
    write_tokenizer(tmp_path, PIECES, do_lower_case=lower_case, strip_accents=strip_accents)
    reference = tokenizers.BertWordPieceTokenizer(
        {piece: i for i, piece in enumerate(PIECES)},
        lowercase=lower_case,
        strip_accents=strip_accents,
    )
    expected = [" ".join(reference.encode(t, add_special_tokens=False).tokens) for t in TEXTS]
    assert analyzed(tmp_path, TEXTS) == expected
    assert "[UNK]" in "".join(expected)
    # The same tokenizer as `tokenizer.json` has it.
    reference.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "vocab.txt").unlink()
    assert analyzed(tmp_path, TEXTS) == expected


def test_html_and_addresses_are_removed_before_the_tokenizer(tmp_path):
    write_tokenizer(tmp_path, PIECES)
    texts = ["<p>a&gt;b</p>\n<br\n/>www.example.org/x a", "&#1;a\x01&eacute;"]
    assert analyzed(tmp_path, texts, strip_html=True, strip_urls=True) == ["a > b a", "a ##e"]
    assert analyzed(tmp_path, ["a b a"], max_tokens_per_document=2) == ["a b"]


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory):
    """A small SentencePiece model, with the normalisation that XLM-RoBERTa's has."""
    root = tmp_path_factory.mktemp("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text for text in TEXTS if text.strip()] * 20),
        model_prefix=str(root / "spm"),
        vocab_size=220,
        character_coverage=0.98,
        normalization_rule_name="nmt_nfkc",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return (root / "spm.model").read_bytes()


def test_sentencepiece_gives_the_pieces_of_its_model_by_the_ids_of_xlm_roberta(
    tmp_path, sentence_model
):
    (tmp_path / "sentencepiece.bpe.model").write_bytes(sentence_model)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "XLMRobertaTokenizer"})
    )
    reference = sentencepiece.SentencePieceProcessor(model_proto=sentence_model)
    names = [reference.id_to_piece(i) for i in range(reference.vocab_size())]
    names = ["<s>", "<pad>", "</s>", "<unk>", *names[3:], "<mask>"]
    own = read_tokenizer(str(tmp_path))
    assert base64.b64decode(own.model) == sentence_model
    ids = {piece: i for i, piece in enumerate(own.pieces)}
    assert [ids[piece] for piece in ("<s>", "<pad>", "</s>", "<unk>")] == [0, 1, 2, 3]
    assert list(own.pieces) == names
    texts = [text for text in TEXTS if text.strip()]
    received = [
        [ids.get(piece, 3) for piece in line.split(" ")] for line in analyzed(tmp_path, texts)
    ]
    # Both begin with three special pieces, of which `<unk>` is 0 in the model.
    expected = [
        [i + 1 if i else 3 for i in reference.encode(text.replace("\x00", ""))] for text in texts
    ]
    assert received == expected and any(3 in row for row in expected)
    # `tokenizer.json` names the pieces by the same ids.
    whole = {
        "model": {"type": "Unigram", "vocab": [[name, 0.0] for name in names[:-1]]},
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": ""},
        "added_tokens": [{"id": len(names) - 1, "content": "<mask>"}],
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole), "utf-8")
    assert read_tokenizer(str(tmp_path)).pieces == own.pieces
