"""The study of a search in its storage: trials that several workers begin, end and take over."""

import contextlib
import fcntl
import hashlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from beam_jobs.contract.config import Config, differing_keys
from beam_jobs.contract.errors import UserError, first_line
from trainer.tuning.space import Space

_DATABASE = "study.db"
_LOCK = "lock"
_SQLITE_TIMEOUT_SECONDS = 120  # of waiting while another worker writes
_STARTUP_TRIALS = 8  # random ones, before the sampler has something to go by
_MAX_TAKEOVERS = 2  # a trial that has ended its worker more often is not begun again
_WHAT = "what"  # user attribute of a study: what it compares

# User attributes of a trial.
START = "start"  # it is the config's own choice
DIRECTORY = "directory"  # its name, in the directory of trials
ERROR = "error"  # why it has failed
WORKER = "worker"  # the number of the worker that runs it
_TAKEOVERS = "takeovers"  # how often its worker has ended before it
_KEPT = (START, DIRECTORY, _TAKEOVERS)  # by the trial that goes on in its directory


class Study:
    """The trials of a search. Several processes may have the same; a context manager.

    Each process is a worker: it holds a lock as long as it lives, by which the others know that its
    trial runs.

    Args:
      space: what is searched.
      dataset: a hash of the dataset.

    Attributes:
      trials_dir: the directory of the trials.

    Raises:
      UserError: the storage cannot be used, or its study is of another search.
    """

    def __init__(self, space: Space, *, dataset: str):
        self._space, self._config, self._what = space, space.base, _what(space, dataset)
        self._dir = Path(self._config.tune.dir)
        self.trials_dir = self._dir / "trials"

    def __enter__(self) -> "Study":
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        try:
            (self._dir / "workers").mkdir(parents=True, exist_ok=True)
            with self.locked():
                pass
        except OSError as error:
            raise UserError(
                f"tune.dir: cannot write to {self._dir}, or lock a file there: {error.strerror}; "
                "expected a directory where you may"
            ) from None
        self._locks = contextlib.ExitStack()
        self._number = next(n for n in range(10_000) if self._is_free(n, keep=True))
        with self.locked():
            self._storage = _open(self._config)
            self._study = self._load()
        return self

    def __exit__(self, *exc_info) -> None:
        self._storage.remove_session()
        self._locks.close()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """While entered, no other worker begins or ends a trial."""
        with open(self._dir / _LOCK, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _is_free(self, number: int, *, keep: bool = False) -> bool:
        """Whether no living process is the worker of a number; with `keep`, it is then this one."""
        file = open(self._dir / "workers" / str(number), "ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        if keep:
            self._locks.enter_context(file)
        else:
            file.close()
        return True

    def _load(self) -> optuna.Study:
        tune = self._config.tune
        study = optuna.create_study(
            storage=self._storage,
            study_name=tune.study or self._config.name,
            direction="maximize",
            load_if_exists=True,
            pruner=make_pruner(tune.pruner),
        )
        if _WHAT not in study.user_attrs:
            study.set_user_attr(_WHAT, self._what)
        elif differences := differing_keys(study.user_attrs[_WHAT], self._what):
            lines = [f"  {key}: study {old!r}, config {new!r}" for key, old, new in differences]
            raise UserError(
                f"tune.study: the study {study.study_name!r} compares something else:\n"
                + "\n".join(lines)
                + "\nset the keys back, or choose another tune.study and another tune.dir"
            )
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial({}, user_attrs={START: True})
        return study

    # --- trials ------------------------------------------------------------------------

    @property
    def optuna_study(self) -> optuna.Study:
        """For what is drawn of it."""
        return self._study

    def trials(self) -> list[FrozenTrial]:
        """The newest trial of each directory, in the order of their numbers."""
        by_directory = {
            trial.user_attrs[DIRECTORY]: trial
            for trial in self._study.get_trials(deepcopy=False)
            if DIRECTORY in trial.user_attrs
        }
        return sorted(by_directory.values(), key=lambda trial: trial.number)

    def directory(self, trial: FrozenTrial) -> Path:
        """The directory of a trial that has begun."""
        return self.trials_dir / trial.user_attrs[DIRECTORY]

    def best(self) -> FrozenTrial | None:
        """The finished trial with the best objective, of equal ones the first."""
        finished = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        return max(finished, key=lambda trial: trial.value, default=None)

    def begin(self) -> tuple[optuna.Trial, Path, dict[str, Any]]:
        """Begins a trial; call it within `locked`.

        Returns:
          The trial, its directory and its values.
        """
        name = self._next_directory()
        self._study.sampler = self._sampler(name)
        trial = self._study.ask()
        trial.set_user_attr(DIRECTORY, name)
        trial.set_user_attr(WORKER, self._number)
        values = {} if trial.user_attrs.get(START) else self._space.suggest(trial)
        return trial, self.trials_dir / name, values

    def _next_directory(self) -> str:
        """The directory of the trial that begins next: the first that waits, or a new one."""
        trials = self._study.get_trials(deepcopy=False)
        waiting = next((trial for trial in trials if trial.state == TrialState.WAITING), None)
        if waiting is not None and DIRECTORY in waiting.user_attrs:
            return waiting.user_attrs[DIRECTORY]
        names = (trial.user_attrs.get(DIRECTORY, "-1") for trial in trials)
        return f"{max(map(int, names), default=-1) + 1:04d}"

    def _sampler(self, directory: str) -> optuna.samplers.BaseSampler:
        """What draws the values of a trial.

        Its seed follows from the directory, so that a search that was killed draws the values that
        an uninterrupted one does, and from the worker, so that workers try other values.
        """
        seed = np.random.SeedSequence([self._config.tune.seed, self._number, int(directory)])
        return optuna.samplers.TPESampler(
            seed=int(seed.generate_state(1)[0]),
            n_startup_trials=_STARTUP_TRIALS,
            multivariate=True,
            group=True,
            constant_liar=True,
        )

    def finish(self, trial: optuna.Trial, value: float, *, values: Mapping[str, Any]) -> None:
        """Ends a trial that has trained to its end; `values` are those that were not drawn."""
        for key, own in values.items():
            distribution = self._space.distributions[key]
            internal = distribution.to_internal_repr(own)
            self._storage.set_trial_param(self._id(trial), key, internal, distribution)
        self._study.tell(trial.number, value)

    def prune(self, trial: optuna.Trial) -> None:
        """Ends a trial that is worse than others."""
        self._study.tell(trial.number, state=TrialState.PRUNED)

    def fail(self, trial: optuna.Trial | FrozenTrial, reason: str) -> None:
        """Ends a trial that cannot be trained."""
        self._storage.set_trial_user_attr(self._id(trial), ERROR, reason)
        self._study.tell(trial.number, state=TrialState.FAIL)

    def stop(self, trial: optuna.Trial | FrozenTrial, reason: str, *, takeovers: int = 0) -> None:
        """Ends a trial for now: another one goes on in its directory. Call it within `locked`.

        A trial that has ended stays as it is.
        """
        frozen = self._storage.get_trial(self._id(trial))
        if frozen.state.is_finished():
            return
        kept = {key: frozen.user_attrs[key] for key in _KEPT if key in frozen.user_attrs}
        takeovers += kept.get(_TAKEOVERS, 0)
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        # One waits already where a worker was killed between the next two lines.
        is_waiting = any(
            all(trial.user_attrs.get(key) == kept.get(key) for key in (START, DIRECTORY))
            for trial in waiting
        )
        if takeovers <= _MAX_TAKEOVERS and not is_waiting:
            attributes = kept | {_TAKEOVERS: takeovers}
            self._study.enqueue_trial(frozen.params, user_attrs=attributes)
        self.fail(trial, reason)

    def take_over(self) -> int:
        """Stops the trials whose workers are gone, in `locked`; returns their number."""
        stale = []
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            # One without a number was left between its first two lines.
            number = trial.user_attrs.get(WORKER, self._number)
            if number == self._number or self._is_free(number):
                stale.append(trial)
        for trial in stale:
            self.stop(trial, "its worker was ended", takeovers=1)
        return len(stale)

    def _id(self, trial: optuna.Trial | FrozenTrial) -> int:
        study_id = self._storage.get_study_id_from_name(self._study.study_name)
        return self._storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)


def _what(space: Space, dataset: str) -> dict[str, Any]:
    """What must be the same in all trials of a study, as plain values."""
    base = space.base.model_dump(mode="json", include={"model", "loss", "optimizer", "train"})
    del base["train"]["run_dir"]
    kinds = {
        key: optuna.distributions.distribution_to_json(of)
        for key, of in space.distributions.items()
    }
    return base | {"tune": {"space": kinds}, "dataset": dataset}


def dataset_hash(manifest: str) -> str:
    """Of the text of a dataset's manifest."""
    return hashlib.sha256(manifest.encode()).hexdigest()[:16]


def make_pruner(name: str) -> optuna.pruners.BasePruner:
    """The pruner of `tune.pruner`; steps are tenths of a run, see `best_by_tenth`."""
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2, n_min_trials=3)
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=2)
    return optuna.pruners.NopPruner()


# --- the storage -----------------------------------------------------------------------


def _open(config: Config) -> optuna.storages.RDBStorage:
    url = _url(config)
    with explain_storage(config):
        address = sqlalchemy.engine.make_url(url)
        is_file = address.get_backend_name() == "sqlite"
        arguments = {"timeout": _SQLITE_TIMEOUT_SECONDS} if is_file else {}
        return optuna.storages.RDBStorage(
            url, engine_kwargs={"connect_args": arguments, "pool_pre_ping": True}
        )


@contextlib.contextmanager
def explain_storage(config: Config) -> Iterator[None]:
    """Turns what a database raises into UserErrors."""
    try:
        yield
    except (
        sqlalchemy.exc.SQLAlchemyError,
        optuna.exceptions.StorageInternalError,
        ImportError,
    ) as error:
        cause = error.__cause__ or error
        missing = next((e for e in (error, cause) if isinstance(e, ModuleNotFoundError)), None)
        if isinstance(error, ImportError) and missing is None:
            raise  # a library of something else, such as one for which memory has run out
        hint = f"; the driver {missing.name} is a package of its own" if missing else ""
        raise UserError(
            f"tune.storage: cannot use {_without_password(_url(config))}: {first_line(cause)}; "
            f"expected sqlite:///FILE or postgresql://USER@HOST/DATABASE that answers{hint}"
        ) from None


def _url(config: Config) -> str:
    return config.tune.storage or f"sqlite:///{Path(config.tune.dir) / _DATABASE}"


def _without_password(url: str) -> str:
    try:
        return sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return url
