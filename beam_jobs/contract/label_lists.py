"""Lists of labels that a config names: text, JSON, or another dataset's."""

from beam_jobs.contract import places
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.first_bytes import hint_of
from beam_jobs.contract.json_files import read_json
from beam_jobs.contract.manifest import MANIFEST, load_labels, read
from beam_jobs.contract.validation import canonical_label

_EXPECTED = (
    "expected a list, a UTF-8 file with one label per line, a JSON file such as "
    '{"cs.CL": "computation and language"}, or the directory of a dataset'
)


def labels_of_dataset(path: str) -> list[str] | None:
    """The names of the labels of the dataset in a directory; None: there is none.

    Raises:
      UserError: there is one that cannot be read.
    """
    try:
        places.read_bytes(places.join(path, MANIFEST), 0, 1)
    except OSError:
        return None
    return [label["name"] for label in load_labels(read(path), path)]


def read_labels(path: str, *, key: str) -> tuple[str, ...]:
    """The labels of a dataset, the keys of an object in a JSON file, or the lines of a text file.

    Args:
      path: the directory or file.
      key: of the config that names it, for errors.

    Raises:
      UserError: it cannot be read or holds no label.
    """
    names = labels_of_dataset(path)
    if names is None and path.endswith(".json"):
        names = read_json(path, key=key, expected=_EXPECTED)
        if not isinstance(names, dict):
            raise UserError(f"{key}: {path!r} holds something else; {_EXPECTED}")
    elif names is None:
        names = _lines(path, key)
    names = tuple(filter(None, map(canonical_label, names)))
    if not names:
        raise UserError(f"{key}: {path!r} holds no label; {_EXPECTED}")
    return names


def _lines(path: str, key: str) -> list[str]:
    try:
        return places.read_text(path, encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{key}: cannot read {path!r}: {error}{hint_of(path)}; {_EXPECTED}"
        ) from None
