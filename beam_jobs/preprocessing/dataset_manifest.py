"""The manifest of a dataset whose files are written, and whether one that is there is the same."""

import dataclasses
from collections.abc import Mapping

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract import places
from beam_jobs.contract.config import Config, config_hash
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import FileInfo, Manifest
from beam_jobs.contract.named_files import describe_changes
from beam_jobs.contract.word_lists import AnalyzerSpec
from beam_jobs.preprocessing import finish, tfds_metadata
from beam_jobs.runtime import generations
from beam_jobs.runtime.generations import Generation


@dataclasses.dataclass(frozen=True)
class InputHashes:
    """What recognises the input of a dataset.

    Attributes:
      inputs: of the source's files.
      named_files: of each file that the config names, by its key.
    """

    inputs: str
    named_files: Mapping[str, str]


def generation_name(config: Config, hashes: InputHashes) -> str:
    """The name of the generation that the config, one of its files, and the input decide."""
    return generations.name_of(
        str(manifests.FORMAT_VERSION),
        config.to_yaml(with_place=False),
        hashes.inputs,
        *(f"{key} {value}" for key, value in sorted(hashes.named_files.items())),
    )


def live_generation(dataset_dir: str) -> str | None:
    """The generation that the manifest names; None: there is none, or it cannot be read."""
    try:
        return manifests.read(dataset_dir).generation or None
    except UserError:
        return None


def files_at_the_place(dataset_dir: str) -> list[str]:
    """The files of a dataset whose manifest names them beside itself, as versions before did."""
    try:
        manifest = manifests.read(dataset_dir)
    except UserError:
        return []
    return (
        [] if manifest.generation else [info.file for info in manifest.files()] + [manifests.CONFIG]
    )


def is_complete(config: Config, hashes: InputHashes, *, overwrite: bool, force: bool) -> bool:
    """Whether the same dataset is there already and need not be made again.

    Raises:
      UserError: another dataset is there, or a directory that is not a dataset.
    """
    dataset_dir = config.output.dataset_dir
    try:
        places.read_bytes(places.join(dataset_dir, manifests.MANIFEST))
    except (FileNotFoundError, NotADirectoryError):
        if not generations.is_empty(dataset_dir):
            # Not even --overwrite replaces a directory that this command has not written.
            raise UserError(
                f"output.dataset_dir: {dataset_dir} exists and is not a dataset; "
                "expected a new or empty directory"
            ) from None
        return False
    try:
        _check_same(dataset_dir, config, hashes)
        if not force:
            manifests.load(dataset_dir)  # all files are there, in their sizes
    except UserError:
        if overwrite:
            return False
        raise
    return not force


def _check_same(dataset_dir: str, config: Config, hashes: InputHashes) -> None:
    """Raises UserError unless the config and the input would give the dataset that is there."""
    manifest = manifests.read(dataset_dir)
    manifests.check_same_dataset(manifest, config.dataset_config(), dataset_dir)
    if manifest.input_hash != hashes.inputs:
        raise UserError(
            f"the dataset {dataset_dir} was made from other input files; --overwrite makes it again"
        )
    if changed := describe_changes(manifest.named_files, hashes.named_files, config):
        raise UserError(
            f"the dataset {dataset_dir} was made with other content of {' and '.join(changed)}; "
            "--overwrite makes it again"
        )


def make_manifest(
    config: Config,
    analyzer_spec: AnalyzerSpec,
    results: finish.Results,
    hashes: InputHashes,
    generation: Generation,
) -> Manifest:
    """Writes the last files of a generation, and describes all."""
    directory = generation.directory
    if not results.counts.rejected:
        places.write(places.join(directory, manifests.REJECTS), "")
    places.write(places.join(directory, manifests.CONFIG), config.to_yaml(with_place=False))
    spec = config.data.record_spec
    metadata = tfds_metadata.write_metadata(
        directory, config.name, spec, results.splits, has_weights=results.has_weights
    )
    has_ngrams = config.vocabulary.ngrams > 1

    def info(file: str, exists: bool = True) -> FileInfo | None:
        return generation.named(manifests.file_info(directory, file)) if exists else None

    dataset_config = config.dataset_config()
    return Manifest(
        format_version=manifests.FORMAT_VERSION,
        name=config.name,
        config=dataset_config,
        config_hash=config_hash(dataset_config),
        input_hash=hashes.inputs,
        named_files=dict(hashes.named_files),
        analyzer=analyzer_spec,
        text_fields=spec.text_fields,
        metadata_fields=spec.metadata_fields,
        splits={
            name: split.model_copy(update={"shards": tuple(map(generation.named, split.shards))})
            for name, split in results.splits.items()
        },
        counts=results.counts,
        labels=info(manifests.LABELS),
        num_labels=results.num_labels,
        label_counts=results.label_counts,
        vocabulary=info(manifests.VOCABULARY),
        document_counts=info(manifests.DOCUMENT_COUNTS),
        vocabulary_size=results.vocabulary_size,
        rejects=info(manifests.REJECTS),
        term_counts=info(manifests.TERM_COUNTS),
        ngrams=info(manifests.NGRAMS, has_ngrams),
        ngram_document_counts=info(manifests.NGRAM_DOCUMENT_COUNTS, has_ngrams),
        statistics=info(manifests.STATISTICS),
        tfds=tuple(map(info, metadata)),
        config_file=info(manifests.CONFIG),
    )
