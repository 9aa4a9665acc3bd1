"""The section `text`: the analyzer's whole specification."""

from typing import Annotated, Literal, get_args

import pydantic
from pydantic import Field

from beam_jobs.contract.validation import Path_, Section

TokenizerName = Literal["whitespace", "unicode_script", "character"]
# What an encoder's own tokenizer takes the place of.
_STEPS_BEFORE_TOKENS = (
    "normalize",
    "case",
    "strip_accents",
    "expand_contractions",
    "keep_characters",
    "keep_symbols",
    "keep_emoji",
    "token_pattern",
    "drop_tokens_with_digits",
    "stop_words",
    "subwords",
)


class TextConfig(Section):
    """How raw text becomes tokens: the steps of the analyzer, in this order."""

    strip_html: bool = Field(
        True,
        description=(
            "remove comments, scripts, styles and HTML's own tags, and decode its character "
            "references, such as `&eacute;`"
        ),
    )
    strip_urls: bool = Field(
        True, description="remove http://, https://, ftp:// and www. addresses"
    )
    normalize: Literal["none", "lower", "nfkc", "nfkc_casefold"] = Field(
        "nfkc_casefold",
        description=(
            "Unicode normalisation; `none` and `lower` need no TensorFlow Text when serving"
        ),
    )
    case: Literal["default", "turkic"] = Field(
        "default",
        description=(
            "how normalize lowers I: to i, or, for Turkish and Azeri, to the dotless U+0131; the "
            "dotted U+0130 becomes i in either"
        ),
    )
    strip_accents: bool = Field(
        False,
        description=(
            "decompose characters and remove what combines with them (NFD without Mn), as "
            "pretrained uncased subwords have it; needs TensorFlow Text when serving"
        ),
    )
    expand_contractions: bool = Field(True, description="English contractions: don't -> do not")
    keep_characters: str | None = Field(
        r"\p{L}\p{M}\p{N}",
        min_length=1,
        description=(
            "the inside of an RE2 character class; all other characters become spaces; null: keep "
            "all"
        ),
    )
    keep_symbols: tuple[Annotated[str, Field(pattern=r"^\S+$")], ...] = Field(
        (),
        description=(
            "terms that are tokens as they are, whatever keep_characters and token_pattern say, "
            "such as `[C++, C#, .NET]`; compared after normalize"
        ),
    )
    keep_emoji: bool = Field(
        False, description="each emoji is a token, whatever keep_characters and token_pattern say"
    )
    token_pattern: str | None = Field(
        None,
        min_length=1,
        description="RE2 pattern; only its matches remain, each split at spaces again; null: off",
    )
    tokenizer: TokenizerName | Path_ = Field(
        "whitespace",
        description=(
            "how text is split into tokens; or the directory of a pretrained encoder, or its "
            "name, as hf://owner/name@revision or kaggle://owner/model/framework/variant, whose "
            "tokenizer then does all that is between strip_urls and max_tokens_per_document, and "
            "whose pieces are the vocabulary. Serving then needs TensorFlow Text"
        ),
    )
    drop_tokens_with_digits: bool = Field(
        False, description="drop every token that holds a decimal digit"
    )
    stop_words: None | tuple[str, ...] | Path_ = Field(
        None,
        description=(
            "tokens to drop: `english`, a list, or a file with one word per line; null: none"
        ),
    )
    subwords: None | Literal["train"] | tuple[str, ...] | Path_ = Field(
        None,
        description=(
            "split words into subwords: `train`: at most vocabulary.size, learned from the train "
            "split; or a list, or a file with one per line, such as BERT's vocab.txt; null: "
            "tokens are words. Serving then needs TensorFlow Text"
        ),
    )
    max_tokens_per_document: int | None = Field(
        512,
        ge=1,
        description=(
            "tokens kept per document, from its start: words first, then their subwords; null: all"
        ),
    )

    @pydantic.model_validator(mode="after")
    def _settings_fit(self):
        if self.case == "turkic" and self.normalize not in ("lower", "nfkc_casefold"):
            raise ValueError(
                "case: turkic says how case is lowered: expected normalize lower or "
                f"nfkc_casefold with it, not {self.normalize}"
            )
        if (self.keep_symbols or self.keep_emoji) and self.tokenizer != "whitespace":
            raise ValueError(
                "keep_symbols and keep_emoji keep tokens whole: expected tokenizer whitespace with "
                f"them, not {self.tokenizer}, which would split them"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _encoder_has_its_own_steps(self):
        if self.encoder_directory is not None:
            for key in _STEPS_BEFORE_TOKENS:
                if getattr(self, key) != TextConfig.model_fields[key].default:
                    raise ValueError(
                        f"expected no {key} with the tokenizer of the encoder "
                        f"{self.encoder_directory}, which does that in its own way"
                    )
        return self

    @property
    def encoder_directory(self) -> str | None:
        """The directory of the encoder whose tokenizer it is; None: it is no encoder's."""
        is_name = self.tokenizer in get_args(TokenizerName)
        return self.tokenizer if isinstance(self.tokenizer, str) and not is_name else None

    @property
    def has_own_patterns(self) -> bool:
        """Whether a pattern is the user's own, and so may be wrong."""
        return (
            bool(self.keep_symbols)
            or self.token_pattern is not None
            or self.keep_characters
            not in (
                None,
                TextConfig.model_fields["keep_characters"].default,
            )
        )
