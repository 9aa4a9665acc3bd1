"""Tokenizers of encoders as directories hold them, and those that are refused."""

import json

import pytest

from beam_jobs.contract.analyzer import EncoderPieces
from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.encoder_tokenizer import hash_of_files, read_tokenizer
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.word_lists import AnalyzerSpec, resolve

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "##b", "\u2028")
VOCABULARY = "".join(f"{piece}\n" for piece in PIECES)
BERT = {"type": "BertNormalizer", "lowercase": True, "strip_accents": None}
WORDPIECE = {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {p: i for i, p in enumerate("ab")}}


def write(directory, **files):
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        path = directory / name.replace("__", "/").replace("_txt", ".txt").replace("_json", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return str(directory)


def test_a_vocabulary_of_bert_is_read_with_its_options(tmp_path):
    directory = write(tmp_path, vocab_txt=VOCABULARY)
    tokenizer = read_tokenizer(directory)
    assert tokenizer.pieces == PIECES
    assert tokenizer.lower_case and tokenizer.strip_accents
    options = {"do_lower_case": False, "cls_token": {"content": "a"}}
    tokenizer = read_tokenizer(write(tmp_path, tokenizer_config_json=options))
    assert not tokenizer.lower_case and not tokenizer.strip_accents
    assert (tokenizer.start, tokenizer.end, tokenizer.unknown) == ("a", "[SEP]", "[UNK]")


def test_added_tokens_have_their_ids_and_a_gap_is_a_piece_that_no_text_gives(tmp_path):
    whole = {
        "model": WORDPIECE | {"max_input_chars_per_word": 7},
        "normalizer": BERT | {"strip_accents": False},
        "added_tokens": [
            {"id": number, "content": piece}
            for number, piece in ((3, "[CLS]"), (4, "[SEP]"), (5, "[UNK]"))
        ],
    }
    tokenizer = read_tokenizer(write(tmp_path, tokenizer_json=whole))
    assert tokenizer.pieces == ("a", "b", "[unused id 2]", "[CLS]", "[SEP]", "[UNK]")
    assert tokenizer.lower_case and not tokenizer.strip_accents
    assert tokenizer.max_word_characters == 7


def test_a_preset_of_keras_hub_strips_accents_where_it_lowers_the_case(tmp_path):
    saved = {"class_name": "BertTokenizer", "config": {"lowercase": True}}
    directory = write(tmp_path, tokenizer_json=saved, assets__tokenizer__vocabulary_txt=VOCABULARY)
    tokenizer = read_tokenizer(directory)
    assert tokenizer.pieces == PIECES and tokenizer.lower_case and tokenizer.strip_accents


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tokenizer_json": {"model": {"type": "BPE"}}}, "a tokenizer of the kind BPE, which Tens"),
        ({"tokenizer_json": {"class_name": "RobertaTokenizer"}}, "has KerasHub's RobertaTokenizer"),
        ({"tokenizer_json": "{"}, "tokenizer.json is not valid JSON"),
        ({"tokenizer_json": "[]"}, "tokenizer.json holds a JSON list, expected an object"),
        (
            {"vocab_txt": VOCABULARY, "tokenizer_config_json": "[1]"},
            "tokenizer_config.json holds a JSON list, expected an object",
        ),
        ({"tokenizer_json": {"model": {"type": "Unigram"}}}, "without the model that it was made"),
        ({"tokenizer_json": {"model": WORDPIECE}}, "normalises text otherwise than BERT"),
        (
            {
                "tokenizer_json": {
                    "model": WORDPIECE,
                    "normalizer": BERT | {"handle_chinese_chars": 0},
                }
            },
            "does not part Chinese characters",
        ),
        ({"tokenizer_config_json": {}}, "a tokenizer of a kind that is not known; expected WordPi"),
        ({"other_txt": ""}, "holds none of tokenizer.json, "),
        ({"spm.model": "x"}, "has spm.model and no tokenizer.json"),
        (
            {
                "spm.model": "x",
                "tokenizer_json": {
                    "model": {"type": "Unigram", "vocab": [["a", 0.0]]},
                    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Nmt"}]},
                },
            },
            "normalises text by Nmt, which is not known",
        ),
        ({"tokenizer_json": {"model": None}}, "a tokenizer that is damaged (AttributeError: "),
        (
            {"tokenizer_json": {"model": {"type": "WordPiece"}, "normalizer": BERT}},
            "a tokenizer that is damaged (KeyError: 'vocab'); expected WordPiece",
        ),
        (
            {"tokenizer_json": {"model": WORDPIECE, "normalizer": BERT}},
            "damaged (ValueError: its piece for `unknown`, '[UNK]', is none of its pieces)",
        ),
        (
            {
                "tokenizer_json": {
                    "model": WORDPIECE | {"vocab": {"[UNK]": 10**12}},
                    "normalizer": BERT,
                }
            },
            "damaged (ValueError: it has ids from 1000000000000 to 1000000000000)",
        ),
        ({"vocab_txt": f"{VOCABULARY}a\n"}, "damaged (ValueError: it has the piece 'a' 2 times)"),
        (
            {"vocab_txt": VOCABULARY, "tokenizer_config_json": {"cls_token": 3}},
            "damaged (start: Input should be a valid string); expected WordPiece",
        ),
    ],
)
def test_what_no_graph_can_do_is_refused_with_the_reason(tmp_path, files, expected):
    with pytest.raises(UserError) as refusal:
        read_tokenizer(write(tmp_path, **files), key="model.backbone")
    assert str(refusal.value).startswith("model.backbone: ") and expected in str(refusal.value)


def test_a_name_that_is_no_directory_is_taken_for_a_mistake_in_a_name():
    with pytest.raises(UserError, match="text.tokenizer: received 'whitespaces', which is no dir"):
        read_tokenizer("whitespaces")
    with pytest.raises(UserError, match="model.backbone: .*; expected the directory of a pretrai"):
        read_tokenizer("minilm", key="model.backbone")


def test_a_file_that_is_no_model_of_sentencepiece_is_told(tmp_path):
    directory = write(
        tmp_path,
        tokenizer_config_json={"tokenizer_class": "XLMRobertaTokenizer"},
        **{"spm.model": "x"},
    )
    with pytest.raises(UserError, match="damaged .ValueError: its file is no model of Sentence"):
        read_tokenizer(directory)
    scored = [["<s>", 0], ["</s>", 0], ["<unk>", 0]]
    write(tmp_path, tokenizer_json={"model": {"type": "Unigram", "vocab": scored}})
    with pytest.raises(UserError, match="text.tokenizer: received a file that is no model of Sen"):
        EncoderPieces(read_tokenizer(directory))


def test_the_specification_holds_the_tokenizer_and_the_hash_depends_on_its_options(tmp_path):
    directory = write(tmp_path, vocab_txt=VOCABULARY)
    text = config_from_dict(
        {
            "name": "x",
            "data": {"source": "jsonl", "inputs": ["a"]},
            "text": {"tokenizer": directory, "strip_urls": False, "max_tokens_per_document": 9},
        },
        what="",
    ).text
    spec = resolve(text)
    assert spec.encoder_tokenizer == read_tokenizer(directory) and spec.normalize == "none"
    assert not spec.strip_urls and spec.max_tokens_per_document == 9
    assert AnalyzerSpec.model_validate_json(spec.model_dump_json()) == spec
    before = hash_of_files(directory)
    write(tmp_path, tokenizer_config_json={"do_lower_case": False})
    assert hash_of_files(directory) != before
