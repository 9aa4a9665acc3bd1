"""Cleaning label names: one spelling per label, and only the labels that are wanted."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.label_lists import read_labels
from beam_jobs.contract.manifest import LabelChanges
from beam_jobs.contract.sections.labels import LabelsConfig
from beam_jobs.contract.validation import LabelName, Section, canonical_label

_FIRST_UNUSED = 5
_CHANGES = tuple(LabelChanges.model_fields)


class ResolvedLabels(LabelsConfig):
    """The config's section with the labels of its lists in it: it depends on no file."""

    allow: None | tuple[LabelName, ...] = None
    include: None | tuple[LabelName, ...] = None


class UnusedNames(Section):
    """Names of the config that no document has: how many, and the first of them."""

    count: int
    first: tuple[str, ...]


def resolve(config: LabelsConfig) -> ResolvedLabels:
    """What the config's section means: lists of labels in files are read.

    Raises:
      UserError: one cannot be read or holds no label, or labels are to be included and left out.
    """
    lists = {
        key: read_labels(value, key=f"labels.{key}") if isinstance(value, str) else value
        for key, value in (("allow", config.allow), ("include", config.include))
    }
    resolved = ResolvedLabels(**config.model_dump() | lists)
    rules = LabelRules(resolved)
    for name in rules.included:
        key = "deny" if name in rules.denied else "allow"
        if name in rules.denied or (rules.allowed is not None and name not in rules.allowed):
            raise UserError(
                f"labels.include: received {name!r}, which labels.{key} leaves out; expected "
                "labels that the other keys keep"
            )
    return resolved


@dataclasses.dataclass(frozen=True)
class LabelRules:
    """The rules of a resolved config, in their order: case folding, aliases, deny-list, allow-list.

    If case is folded, the names in the config are folded too.
    """

    config: ResolvedLabels

    def clean(self, labels: pa.ChunkedArray) -> tuple[pa.ChunkedArray, LabelChanges, bytes]:
        """Lists of names, one per document -> the same lists cleaned; the number of occurrences
        that each rule changed or dropped; and one bit for each of the config's names, in the order
        of `_names`: whether it occurred. No bytes if the config names none.

        A name may be in a list twice afterwards.
        """
        config = self.config
        if not (config.fold_case or self._names or config.allow is not None):
            return labels, LabelChanges(), b""
        codes = pc.list_flatten(labels).combine_chunks().dictionary_encode()
        cleaned, changed, used = self._clean_names(codes.dictionary.to_pylist())
        indices = codes.indices.to_numpy()
        occurrences = np.bincount(indices, minlength=len(cleaned))
        names = pa.array(cleaned, pa.large_string()).take(codes.indices)
        kept = names.is_valid().to_numpy(zero_copy_only=False)
        offsets = np.searchsorted(
            pc.list_parent_indices(labels).to_numpy()[kept], np.arange(len(labels) + 1)
        )
        lists = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), names.drop_null())
        counts = {change: int(occurrences[rows].sum()) for change, rows in changed.items()}
        return pa.chunked_array([lists]), LabelChanges(**counts), np.packbits(used).tobytes()

    def unused(self, used: Iterable[bytes]) -> dict[str, "UnusedNames"]:
        """By key of the config, its names that occur nowhere, of what `clean` says of all parts."""
        is_used = np.zeros(len(self._names), bool)
        for bits in used:
            if bits:
                packed = np.frombuffer(bits, np.uint8)
                is_used |= np.unpackbits(packed, count=len(is_used)).astype(bool)
        unused: dict[str, list[str]] = {}
        for (key, name), index in self._names.items():
            if not is_used[index]:
                unused.setdefault(key, []).append(name)
        return {
            key: UnusedNames(count=len(names), first=tuple(names[:_FIRST_UNUSED]))
            for key, names in unused.items()
        }

    @functools.cached_property
    def included(self) -> tuple[str, ...]:
        """The labels that are kept in any case, as names are after the rules."""
        named = map(self._fold, self.config.include or ())
        return tuple(dict.fromkeys(self._aliases.get(name, name) for name in named))

    @functools.cached_property
    def denied(self) -> frozenset[str]:
        """The deny-list, as names are compared."""
        return frozenset(map(self._fold, self.config.deny))

    @functools.cached_property
    def allowed(self) -> frozenset[str] | None:
        """The allow-list, as names are compared; None: all are allowed."""
        allow = self.config.allow
        return None if allow is None else frozenset(map(self._fold, allow))

    @functools.cached_property
    def _aliases(self) -> Mapping[str, str]:
        fold = self._fold
        return {fold(name): fold(target) for name, target in self.config.aliases.items()}

    def _fold(self, name: str) -> str:
        return canonical_label(name.casefold()) if self.config.fold_case else name

    @functools.cached_property
    def _names(self) -> Mapping[tuple[str, str], int]:
        """(key, name as it is compared) of every name that the config has -> its index."""
        config = self.config
        given = {"aliases": config.aliases, "deny": config.deny, "allow": config.allow or ()}
        pairs = [(f"labels.{key}", self._fold(name)) for key in given for name in given[key]]
        pairs += [("labels.include", name) for name in self.included]
        return {pair: index for index, pair in enumerate(dict.fromkeys(pairs))}

    def _clean_names(
        self, names: list[str]
    ) -> tuple[list[str | None], dict[str, list[int]], np.ndarray]:
        """Each name cleaned, or None if it is dropped; the indices of the names that each rule
        changed or dropped; and bool [names of the config]: whether it is among the names.
        """
        aliases, deny, allow = self._aliases, self.denied, self.allowed
        included = frozenset(self.included)
        used = np.zeros(len(self._names), bool)

        def use(key: str, name: str) -> None:
            used[self._names[f"labels.{key}", name]] = True

        cleaned: list[str | None] = []
        changed: dict[str, list[int]] = {change: [] for change in _CHANGES}
        for index, received in enumerate(names):
            name = self._fold(received)
            if name != received:
                changed["case_folded"].append(index)
            if name in aliases:
                use("aliases", name)
                name = aliases[name]
                changed["aliased"].append(index)
            if name in deny:
                use("deny", name)
                changed["denied"].append(index)
                cleaned.append(None)
            elif allow is not None and name not in allow:
                changed["not_allowed"].append(index)
                cleaned.append(None)
            else:
                if allow is not None:
                    use("allow", name)
                if name in included:
                    use("include", name)
                cleaned.append(name)
        return cleaned, changed, used
