"""The Dockerfile agrees with setup.py and with what Beam's engines start; nothing is built here."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def stages() -> list[tuple[str, str]]:
    """(head, instructions) of each stage."""
    text = (ROOT / "Dockerfile").read_text()
    parts = re.split(r"^FROM (.*)$", text, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def test_the_stage_for_workers_is_beams_image_of_our_version_with_its_program_as_entry_point():
    setup = (ROOT / "setup.py").read_text()
    beam = re.search(r'"apache-beam==([0-9.]+)"', setup)[1]
    heads = dict(stages())
    worker = heads[f"apache/beam_python${{PYTHON}}_sdk:{beam} AS worker"]
    assert 'ENTRYPOINT ["/opt/apache/beam/boot"]' in worker and "USER" not in worker
    extras = re.search(r"ARG WORKER_EXTRAS=(\S+)", worker)[1].split(",")
    assert all(f'"{extra}": [' in setup for extra in extras)


def test_what_is_built_without_a_target_is_the_command_as_a_user_without_rights():
    head, last = stages()[-1]
    assert " AS " not in head
    assert 'ENTRYPOINT ["multihot"]' in last and "USER 1000" in last


def test_every_image_has_a_version_and_every_stage_that_is_named_exists():
    names = [head.partition(" AS ")[2] for head, _ in stages()]
    text = (ROOT / "Dockerfile").read_text()
    assert all(re.search(r":[\w.-]+", head.partition(" AS ")[0]) for head, _ in stages())
    assert set(re.findall(r"from=(\w+)", text)) <= set(names)
    assert "--no-cache-dir" in text and "apt-get" not in text and "ADD " not in text
