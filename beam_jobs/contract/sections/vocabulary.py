"""The section `vocabulary`: which tokens the model knows."""

from pydantic import Field

from beam_jobs.contract.validation import Section


class VocabularyConfig(Section):
    """Which tokens of the train split the model knows."""

    size: int = Field(50_000, ge=1, description="the most frequent tokens kept")
    min_document_count: int | None = Field(
        None,
        ge=1,
        description=(
            "tokens and n-grams in fewer train documents are left out; null: 1 for tokens, 2 for "
            "n-grams"
        ),
    )
    ngrams: int = Field(
        1,
        ge=1,
        le=3,
        description=(
            "2: also pairs of neighbouring tokens, which bow and mlp then use; 3: also triples; "
            "1: none"
        ),
    )
    max_ngrams: int = Field(100_000, ge=1, description="the most frequent pairs and triples kept")

    @property
    def min_documents_of_token(self) -> int:
        return 1 if self.min_document_count is None else self.min_document_count

    @property
    def min_documents_of_ngram(self) -> int:
        """Also the occurrences of a subword that is learned."""
        return 2 if self.min_document_count is None else self.min_document_count
