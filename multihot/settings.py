"""Settings of a call -> the config that drives every stage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beam_jobs.contract import user_code
from beam_jobs.contract.config import CONFIG_FILE, Config, config_from_dict, load_config
from beam_jobs.contract.errors import UserError, shown

# The key of a section that says which kind it is; other kinds have other keys.
_KINDS = {
    "data": "source",
    "splits": "method",
    "model": "name",
    "loss": "name",
    "optimizer": "name",
}
Settings = Mapping[str, Any]


def config_with(source: Config | Settings | str | Path, *settings: Settings | None) -> Config:
    """A config with settings of a call in it.

    Args:
      source: a config, the path of its YAML file or of a directory that holds one, or its sections
        as plain values.
      settings: sections, `{"train": {"epochs": 3}}`, or single keys, `{"train.epochs": 3}`; later
        ones win.

    Raises:
      UserError: a key is unknown, or a value is of a wrong type or range.
    """
    what = "the config"
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            path /= CONFIG_FILE
        user_code.search_beside(path)
        source, what = load_config(path), str(path)
    if isinstance(source, Config):
        # What was not set stays so: it is what `model.name: auto` may choose.
        source = source.model_dump(mode="json", exclude_unset=True)
    if not isinstance(source, Mapping):
        raise UserError(
            f"received {shown(source)} as the config, expected the path of a YAML file, a mapping "
            "of sections, or a Config"
        )
    raw = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in source.items()
    }
    for given in settings:
        for section, key, value in _keys_of(given or {}):
            _set(raw, section, key, value)
            what = "settings"
    return config_from_dict(raw, what=what)


def _keys_of(settings: Settings) -> list[tuple[str, str | None, Any]]:
    """(section, key, value) of each setting, those that name a section's kind first."""
    if not isinstance(settings, Mapping):
        raise UserError(
            f"settings: received {shown(settings)}, expected a mapping, such as "
            "{'train': {'epochs': 3}} or {'train.epochs': 3}"
        )
    keys: list[tuple[str, str | None, Any]] = []
    for name, value in settings.items():
        section, _, key = str(name).partition(".")
        if key:
            keys.append((section, key, value))
        elif isinstance(value, Mapping) and section in Config.model_fields:
            keys += [(section, str(inner), of_inner) for inner, of_inner in value.items()]
        else:
            keys.append((section, None, value))
    return sorted(keys, key=lambda row: row[1] != _KINDS.get(row[0]))


def _set(raw: dict[str, Any], section: str, key: str | None, value: Any) -> None:
    if key is None:
        raw[section] = value
        return
    values = raw.get(section)
    values = values if isinstance(values, dict) else {}
    if key == _KINDS.get(section) and values.get(key) != value:
        values = {}  # its keys are those of another kind
    raw[section] = values | {key: value}
