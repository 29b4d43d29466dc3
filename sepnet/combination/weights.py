"""The weights of the members' estimates: given, or found on songs."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pipelines.errors import UserError, check_packages
from pipelines.progress import progress_bar
from pipelines.songs.layouts import Track
from sepnet.combination.members import Members
from sepnet.config.songs import read_song
from sepnet.separation.separator import Separator

Weights = dict[str, tuple[float, ...]]
CONFIDENCE = 0.95


def given_weights(texts: Sequence[str], members: Members) -> Weights:
    """The weights that the user gives, made to add up to one for every source.

    Args:
        texts: "2,1" for all sources, or "vocals=2,1" for one, a number for each member in their order; of those for a
            source the last one counts. Without any, the mean is taken. Models that lack a source count nothing in it.
        members: of `read_members`.

    Raises:
        UserError: no such numbers, a source that no model has, or one left to models that do not have it.
    """
    weights = {source: tuple(map(float, _has(members, source))) for source in members.parts}
    for text in texts:
        name, equals, numbers = text.rpartition("=")
        if equals and name not in weights:
            raise UserError(f"--weights {text} names no source of the models, which are {', '.join(weights)}")
        values = _numbers(text, numbers, len(members.models))
        weights |= dict.fromkeys([name] if equals else weights, values)
    for source, values in weights.items():
        has = _has(members, source)
        total = sum(value for value, there in zip(values, has, strict=True) if there)
        if not total:
            having = ", ".join(str(model) for model, there in zip(members.models, has, strict=True) if there)
            raise UserError(f"--weights leave {source} to models that do not have it; give some weight to {having}")
        weights[source] = tuple(there * value / total for value, there in zip(values, has, strict=True))
    return weights


def _has(members: Members, source: str) -> list[bool]:
    return [source in model.parts for model in members.models]


def _numbers(text: str, numbers: str, count: int) -> tuple[float, ...]:
    try:
        values = tuple(map(float, numbers.split(",")))
    except ValueError:
        values = ()
    if len(values) != count or not np.isfinite(sum(values)) or min(values) < 0 or not any(values):
        raise UserError(
            f"--weights {text} is not {count} numbers from 0, not all of them 0, with commas between, as in "
            f"{','.join('1' * count)}"
        )
    return values


@dataclasses.dataclass(frozen=True)
class Fit:
    """The weights found for one source on songs.

    Attributes:
        weights: for each member, 0 for those that do not have the source.
        best: place of the member with the lowest error.
        best_mse: its error.
        mse: that of the combination, each song with weights that the other songs gave.
        gain_db: by how much that is lower.
        interval_db: of the gain, from resampled songs.
    """

    weights: tuple[float, ...]
    best: int
    best_mse: float
    mse: float
    gain_db: float
    interval_db: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Products:
    """Inner products of one source and its estimates, of which any weights' squared errors follow, song by song.

    Attributes:
        estimates: `[num_songs, num_members, num_members]`.
        crossed: of estimates and source, `[num_songs, num_members]`.
        source: of the source with itself, `[num_songs]`.
        num_values: samples of all channels, `[num_songs]`.
    """

    estimates: np.ndarray
    crossed: np.ndarray
    source: np.ndarray
    num_values: np.ndarray

    def squared_errors(self, weights: np.ndarray, songs=slice(None)) -> np.ndarray:
        """The sum over the samples of each of the songs."""
        squares = np.einsum("skl,k,l->s", self.estimates[songs], weights, weights)
        errors = squares - 2 * self.crossed[songs] @ weights + self.source[songs]
        # Rounding can take them to zero and below, of which there is no ratio.
        return np.maximum(errors, np.finfo(np.float64).tiny)

    def best_weights(self, songs: np.ndarray) -> np.ndarray:
        """Non-negative weights with the least squared error over songs, given as booleans."""
        from scipy.optimize import nnls

        # Rows with these products: what NNLS asks for, without the samples.
        values, vectors = np.linalg.eigh(self.estimates[songs].sum(axis=0))
        if not values.max() > 0:
            return np.zeros(len(values))
        seen = values > values.max() * 1e-12
        roots = np.sqrt(values[seen])
        rows = roots[:, None] * vectors[:, seen].T
        return nnls(rows, (vectors[:, seen].T @ self.crossed[songs].sum(axis=0)) / roots)[0]


def fit_weights(members: Members, tracks: Sequence[Track]) -> dict[str, Fit]:
    """Finds the weights with the least squared error on songs, by non-negative least squares for every source.

    What is told of their error is cross-validated: each song is judged with the weights that the others gave.

    Args:
        members: of `read_members`.
        tracks: two songs or more that hold the stems of all that the members give, wanted or not.

    Raises:
        UserError: there is one song, or none, or silence is the best estimate of a source.
    """
    check_packages(["scipy"], "fitted weights", "evaluate")
    if len(tracks) < 2:
        raise UserError(
            f"--fit takes 2 valid songs or more, and there are {len(tracks)}; put more into the valid folder"
        )
    products = _products(members, tracks)
    fits = {source: _fit(each, _has(members, source)) for source, each in products.items()}
    if unheard := [source for source, fit in fits.items() if not any(fit.weights)]:
        raise UserError(
            f"on these songs silence is better than what any model gives of {', '.join(unheard)}; leave it out by "
            "--sources, or give --weights"
        )
    return fits


def _products(members: Members, tracks: Sequence[Track]) -> dict[str, Products]:
    separators = [Separator(model.path) for model in members.models]
    rows: dict[str, list[tuple]] = {source: [] for source in members.parts}
    with progress_bar("separating with every model", total=len(tracks) * len(separators), unit="songs") as advance:
        for track in tracks:
            mixture, sources = read_song(track, members.parts)
            stems = []
            for separator in separators:
                stems.append(separator(mixture, track.sample_rate))
                advance(1)
            for source, wanted in sources.items():
                # A model without the source says silence.
                signals = [*(each[source] if source in each else np.zeros_like(wanted) for each in stems), wanted]
                flat = np.stack(signals).reshape(len(signals), -1)
                # In float64, and by NumPy's own loop, which needs no copy of the song in it.
                rows[source].append((np.einsum("in,jn->ij", flat, flat, dtype=np.float64), wanted.size))
    made = {}
    for source, values in rows.items():
        products = np.stack([each for each, _ in values])
        counts = np.array([count for _, count in values])
        made[source] = Products(products[:, :-1, :-1], products[:, :-1, -1], products[:, -1, -1], counts)
    return made


def _fit(products: Products, has: Sequence[bool]) -> Fit:
    from scipy.stats import bootstrap

    num_songs, num_members = products.crossed.shape
    everything = np.ones(num_songs, bool)
    alone = np.array([products.squared_errors(row) for row in np.eye(num_members)])
    best = min((place for place in range(num_members) if has[place]), key=lambda place: alone[place].sum())
    combined = np.empty(num_songs)
    for song in range(num_songs):
        others = everything.copy()
        others[song] = False
        combined[song] = products.squared_errors(products.best_weights(others), [song])[0]

    def gain_db(before, after, axis=-1):
        return 10 * np.log10(before.sum(axis=axis) / after.sum(axis=axis))

    interval = bootstrap(
        (alone[best], combined), gain_db, paired=True, confidence_level=CONFIDENCE, method="percentile", random_state=0
    ).confidence_interval
    total = products.num_values.sum()
    return Fit(
        tuple(map(float, products.best_weights(everything))),
        best,
        float(alone[best].sum() / total),
        float(combined.sum() / total),
        float(gain_db(alone[best], combined)),
        (float(interval.low), float(interval.high)),
    )
