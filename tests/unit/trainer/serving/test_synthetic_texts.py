"""Synthetic texts: Zipf's law, the same in every run, divided among fields."""

from trainer.serving.synthetic_texts import columns_of, synthetic_texts


def test_frequent_words_of_the_vocabulary_are_frequent_in_the_texts():
    vocabulary = [f"w{i}" for i in range(500)]
    texts = synthetic_texts(vocabulary)
    assert texts == synthetic_texts(vocabulary) and len(texts) == 256
    assert {len(text.split()) for text in texts} == {100}
    words = " ".join(texts).split()
    assert words.count("w0") > 5 * words.count("w100") > 0


def test_the_words_of_a_text_are_divided_among_the_fields():
    columns = columns_of(["a b c", "d"], ("title", "body"))
    assert columns == {"title": ["a", ""], "body": ["b c", "d"]}
    assert columns_of(["a b", ""], ("text",)) == {"text": ["a b", ""]}
