"""The tokenizer of a pretrained encoder, as read from the directory that `text.tokenizer` names.

Directories are those of Hugging Face (`tokenizer.json`, or the older `vocab.txt` and SentencePiece
models) and presets of KerasHub. What is read depends on no file any more: the manifest holds it.
"""

import base64
import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from beam_jobs.contract.encoder_names import directory_of
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.validation import Section

_SENTENCEPIECE_FILES = (
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
    "assets/tokenizer/vocabulary.spm",
)
_WORDPIECE_FILES = ("vocab.txt", "assets/tokenizer/vocabulary.txt")
_TOKENIZER, _TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
_FILES = (_TOKENIZER, _TOKENIZER_CONFIG, *_WORDPIECE_FILES, *_SENTENCEPIECE_FILES)
_MAX_PIECES = 1 << 22
_READABLE = (
    "expected WordPiece (BERT, DistilBERT, MiniLM, BGE, E5) or SentencePiece with its model file "
    "(XLM-RoBERTa, multilingual E5)"
)
# XLM-RoBERTa's ids, which are those of fairseq: four special tokens, then the pieces of the model
# after its own three, then the mask.
_FAIRSEQ_START, _FAIRSEQ_END = ("<s>", "<pad>", "</s>", "<unk>"), ("<mask>",)
_FAIRSEQ_TOKENIZERS = {"XLMRobertaTokenizer", "XLMRobertaTokenizerFast"}


class _Tokenizer(Section):
    pieces: tuple[str, ...] = Field(description="by id, those of the encoder")
    lower_case: bool
    strip_accents: bool
    unknown: str = Field(description="the piece of what no other piece spells")
    start: str = Field(description="the piece before a document")
    end: str = Field(description="the piece after a document")


class WordPiece(_Tokenizer):
    """BERT's tokenizer: words and punctuation apart, then the longest pieces from the left."""

    kind: Literal["wordpiece"] = "wordpiece"
    max_word_characters: int = Field(description="a longer word is unknown")


class SentencePiece(_Tokenizer):
    """A SentencePiece model."""

    kind: Literal["sentencepiece"] = "sentencepiece"
    model: str = Field(description="the file of the model, in Base64")
    replacements: tuple[tuple[str, str], ...] = Field(
        (), description="strings, and what takes their place before all else"
    )


class _Unreadable(ValueError):
    """What is wrong with a directory, without the key that names it."""


EncoderTokenizer = Annotated[WordPiece | SentencePiece, Field(discriminator="kind")]


def hash_of_files(directory: str) -> str:
    """SHA-256, in hex, of all files that decide the tokenizer; their names count too.

    The directory may be a name, see `encoder_names`, here and below.

    Raises:
      UserError: the directory has none, or one cannot be read.
    """
    directory = directory_of(directory, key="text.tokenizer")
    digest = hashlib.sha256()
    with _explain("text.tokenizer"):
        for path in _existing(directory, "text.tokenizer"):
            digest.update(f"{path.relative_to(directory)}\n".encode())
            digest.update(_read(path))
    return digest.hexdigest()


@contextlib.contextmanager
def _explain(key: str) -> Iterator[None]:
    try:
        yield
    except _Unreadable as error:
        raise UserError(f"{key}: {error}") from None


def read_tokenizer(directory: str, *, key: str = "text.tokenizer") -> WordPiece | SentencePiece:
    """The tokenizer of the encoder in a directory; `key` names it in errors.

    Raises:
      UserError: there is no such directory, or its tokenizer is none of those that run in a
        TensorFlow graph as they are.
    """
    with _explain(key):
        place = directory_of(directory, key=key)
        try:
            tokenizer = _tokenizer_of(place, key)
            _check_pieces(tokenizer)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, _Unreadable):
                raise
            raise _refusal(place, f"has a tokenizer that is damaged ({_fault(error)})") from None
        return tokenizer


def _fault(error: Exception) -> str:
    if isinstance(error, pydantic.ValidationError):
        faults = (f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
        return "; ".join(faults)
    return f"{type(error).__name__}: {error}"


def _check_pieces(tokenizer: WordPiece | SentencePiece) -> None:
    if len(set(tokenizer.pieces)) < len(tokenizer.pieces):
        piece, number = Counter(tokenizer.pieces).most_common(1)[0]
        raise ValueError(f"it has the piece {piece!r} {number} times")
    for name in ("unknown", "start", "end"):
        piece = getattr(tokenizer, name)
        if piece not in tokenizer.pieces:
            raise ValueError(f"its piece for `{name}`, {piece!r}, is none of its pieces")


def _tokenizer_of(directory: str, key: str) -> WordPiece | SentencePiece:
    files = {str(path.relative_to(directory)): path for path in _existing(directory, key)}
    config = _json(files.get(_TOKENIZER_CONFIG))
    whole = _json(files.get(_TOKENIZER))
    if "class_name" in whole:  # KerasHub's
        return _of_kerashub(directory, whole, files)
    kind = whole.get("model", {}).get("type") or _kind_by_files(files)
    if kind == "WordPiece":
        return _wordpiece(directory, whole, config, files)
    if kind == "Unigram":
        return _sentencepiece(directory, whole, config, files)
    raise _refusal(
        directory,
        f"has a tokenizer of the kind {kind}, which TensorFlow Text has no operation for"
        if kind
        else "has a tokenizer of a kind that is not known",
    )


def _existing(directory: str, key: str) -> list[Path]:
    root = Path(directory)
    if not root.is_dir():
        others = "whitespace, unicode_script, character, or " if key == "text.tokenizer" else ""
        raise _Unreadable(
            f"received {directory!r}, which is no directory; expected {others}the directory of a "
            "pretrained encoder"
        )
    found = [root / name for name in _FILES if (root / name).is_file()]
    if not found:
        raise _refusal(directory, f"holds none of {', '.join(_FILES)}")
    return found


def _refusal(directory: str, what: str) -> _Unreadable:
    return _Unreadable(f"{directory} {what}; {_READABLE}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _Unreadable(f"cannot read {path}: {error}") from None


def _json(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        values = json.loads(_read(path))
    except ValueError as error:
        raise _Unreadable(f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise _Unreadable(f"{path} holds a JSON {type(values).__name__}, expected an object")
    return values


def _kind_by_files(files: Mapping[str, Path]) -> str | None:
    if any(name in files for name in _WORDPIECE_FILES):
        return "WordPiece"
    return "Unigram" if any(name in files for name in _SENTENCEPIECE_FILES) else None


def _special(config: Mapping[str, Any], name: str, default: str) -> str:
    """A special token, which is a string, or a mapping that has it as its content."""
    value = config.get(name) or default
    return value["content"] if isinstance(value, dict) else value


# --- WordPiece -------------------------------------------------------------------------


def _wordpiece(
    directory: str, whole: dict[str, Any], config: dict[str, Any], files: Mapping[str, Path]
) -> WordPiece:
    model, normalizer = whole.get("model", {}), whole.get("normalizer")
    if whole and (normalizer or {}).get("type") != "BertNormalizer":
        raise _refusal(directory, f"normalises text otherwise than BERT ({normalizer})")
    if not whole:
        normalizer = {
            "lowercase": config.get("do_lower_case", True),
            "strip_accents": config.get("strip_accents"),
            "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
        }
    if not normalizer.get("handle_chinese_chars", True):
        raise _refusal(directory, "does not part Chinese characters, unlike TensorFlow Text")
    if model.get("continuing_subword_prefix", "##") != "##":
        raise _refusal(directory, "marks the inside of words otherwise than by ##")
    lower_case, strip_accents = normalizer["lowercase"], normalizer.get("strip_accents")
    if whole:
        pieces = _by_id(model["vocab"] | _added(whole))
    else:
        pieces = _lines(_read(files["vocab.txt"]))
    return WordPiece(
        pieces=pieces,
        lower_case=lower_case,
        # Null means: where the case is lowered.
        strip_accents=lower_case if strip_accents is None else strip_accents,
        unknown=model.get("unk_token") or _special(config, "unk_token", "[UNK]"),
        start=_special(config, "cls_token", "[CLS]"),
        end=_special(config, "sep_token", "[SEP]"),
        max_word_characters=model.get("max_input_chars_per_word", 100),
    )


def _added(whole: Mapping[str, Any]) -> dict[str, int]:
    return {token["content"]: token["id"] for token in whole.get("added_tokens", ())}


def _by_id(ids: Mapping[str, int]) -> tuple[str, ...]:
    """Pieces in the order of their ids; an id without a piece has one that no text gives."""
    names = {number: piece for piece, number in ids.items()}
    if min(names) < 0 or max(names) >= _MAX_PIECES:
        raise ValueError(f"it has ids from {min(names)} to {max(names)}")
    return tuple(names.get(number, f"[unused id {number}]") for number in range(max(names) + 1))


def _lines(content: bytes) -> tuple[str, ...]:
    # Not splitlines(): vocabularies of many languages have some that it takes for line ends.
    return tuple(content.decode("utf-8").removesuffix("\n").split("\n"))


# --- SentencePiece ---------------------------------------------------------------------


def _sentencepiece(
    directory: str, whole: dict[str, Any], config: dict[str, Any], files: Mapping[str, Path]
) -> SentencePiece:
    name = next((name for name in _SENTENCEPIECE_FILES if name in files), None)
    if name is None:
        raise _refusal(
            directory,
            "has a tokenizer.json of SentencePiece without the model that it was made from "
            f"({', '.join(_SENTENCEPIECE_FILES[:-1])})",
        )
    model = _read(files[name])
    if whole:
        scored = [piece for piece, _ in whole["model"]["vocab"]]
        pieces = _by_id({piece: number for number, piece in enumerate(scored)} | _added(whole))
    elif config.get("tokenizer_class") in _FAIRSEQ_TOKENIZERS:
        pieces = _fairseq_pieces(model)
    else:
        raise _refusal(
            directory,
            f"has {name} and no tokenizer.json, which says how ids follow from it",
        )
    lower_case, strip_accents, replacements = _normalization(directory, whole.get("normalizer"))
    return SentencePiece(
        pieces=pieces,
        lower_case=lower_case,
        strip_accents=strip_accents,
        replacements=replacements,
        unknown=_special(config, "unk_token", "<unk>"),
        start=_special(config, "cls_token", "<s>"),
        end=_special(config, "sep_token", "</s>"),
        model=base64.b64encode(model).decode(),
    )


def _normalization(
    directory: str, normalizer: dict[str, Any] | None
) -> tuple[bool, bool, tuple[tuple[str, str], ...]]:
    """What is done before the model's own normalisation: lower case, no accents, replacements."""
    lower_case = strip_accents = False
    replacements = []
    for step in _steps(normalizer):
        kind = step.get("type")
        if kind == "Lowercase":
            lower_case = True
        elif kind == "StripAccents":
            strip_accents = True
        elif kind == "Replace" and "String" in step["pattern"]:
            replacements.append((step["pattern"]["String"], step["content"]))
        # The model does these itself; the last Replace is of several spaces by one.
        elif kind not in ("Precompiled", "NFKD", "NFKC", "NFC", "Strip", "Replace"):
            raise _refusal(directory, f"normalises text by {kind}, which is not known")
    return lower_case, strip_accents, tuple(replacements)


def _steps(normalizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if normalizer is None:
        return []
    return normalizer["normalizers"] if normalizer.get("type") == "Sequence" else [normalizer]


def _fairseq_pieces(model: bytes) -> tuple[str, ...]:
    pieces = _model_pieces(model)
    return (*_FAIRSEQ_START, *pieces[3:], *_FAIRSEQ_END)


def _model_pieces(model: bytes) -> list[str]:
    """The pieces of a SentencePiece model by its own ids."""
    from beam_jobs.contract.quiet import import_tensorflow_quietly

    import_tensorflow_quietly()
    import tensorflow as tf
    import tensorflow_text as tf_text

    try:
        tokenizer = tf_text.SentencepieceTokenizer(model=model, out_type=tf.string)
    except tf.errors.OpError:
        raise ValueError("its file is no model of SentencePiece") from None
    names = tokenizer.id_to_string(tf.range(tokenizer.vocab_size())).numpy()
    return [name.decode() for name in names]


# --- KerasHub --------------------------------------------------------------------------


def _of_kerashub(
    directory: str, saved: Mapping[str, Any], files: Mapping[str, Path]
) -> WordPiece | SentencePiece:
    name, config = saved["class_name"], saved.get("config", {})
    if name in ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"):
        return WordPiece(
            pieces=_lines(_read(files["assets/tokenizer/vocabulary.txt"])),
            lower_case=config.get("lowercase", False),
            # BERT was trained so, which KerasHub's own tokenizer does not do.
            strip_accents=config.get("strip_accents") or config.get("lowercase", False),
            unknown="[UNK]",
            start="[CLS]",
            end="[SEP]",
            max_word_characters=100,
        )
    spm = files.get("assets/tokenizer/vocabulary.spm")
    if name == "XLMRobertaTokenizer" and spm is not None:
        model = _read(spm)
        return SentencePiece(
            pieces=_fairseq_pieces(model),
            lower_case=False,
            strip_accents=False,
            unknown="<unk>",
            start="<s>",
            end="</s>",
            model=base64.b64encode(model).decode(),
        )
    raise _refusal(directory, f"has KerasHub's {name}")
