"""A chain of classifiers that tells experiences apart by a few features of each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from avalanche_ext._checks import require_choice, require_whole
from avalanche_ext.functional.recognition import (
    Table,
    detector_table,
    experience_probabilities,
    informative_features,
)


class Detector(Protocol):
    """A binary classifier in the manner of scikit-learn."""

    classes_: Any

    def fit(self, X: Any, y: Any) -> Any:
        """Learn from rows ``(N, S)`` and labels ``(N,)``, 0 and 1."""

    def predict_proba(self, X: Any) -> Any:
        """Probabilities ``(N, 2)`` in the order of ``classes_``."""


class ExperienceDetectors:
    r"""One detector an experience: are these features of its own, or of a later one?

    Each experience has features of its own, of samples of itself and of all later ones.
    Those S that are largest on its own samples count, for good.

    Args:
        features: S, >= 1.
        num_trees: Trees of a forest, >= 1.
        max_depth: Of a tree, >= 1.
        min_samples_leaf: Samples in a leaf, >= 1.
        class_weight: ``"balanced"`` weighs the one experience as the later ones
            together; None: each row counts alike.
        table: See `detector_table`.
        seed: Of forests and draws, in [0, 2**32).
        make_detector: Makes another classifier; None: a random forest with
            ``criterion="log_loss", max_features="log2", bootstrap=False``.

    Raises:
        ValueError: If an argument is out of its range.

    Attributes:
        selected: The features of each experience that count, ``(S,)``.
        widths: Of how many features each, :math:`F_m`.
        rows: ``rows[m][k - m]``, ``(N_k, S)``: m's features of samples of experience k.
        labels: Classes of the samples of each experience, ``(N_k,)``.

    References:
        Bogacka et al., 2025 (ReReLRP).
    """

    def __init__(
        self,
        features: int = 40,
        *,
        num_trees: int = 300,
        max_depth: int = 40,
        min_samples_leaf: int = 5,
        class_weight: Literal["balanced"] | None = None,
        table: Table = "balanced",
        seed: int = 0,
        make_detector: Callable[[], Detector] | None = None,
    ) -> None:
        require_whole(1, features=features, num_trees=num_trees, max_depth=max_depth)
        require_whole(1, min_samples_leaf=min_samples_leaf)
        require_whole(0, seed=seed)
        if seed >= 2**32:
            raise ValueError(f"seed is {seed!r}; wanted a whole number below 2**32")
        require_choice((None, "balanced"), class_weight=class_weight)
        require_choice(("balanced", "code"), table=table)
        if make_detector is not None and not callable(make_detector):
            raise ValueError(
                f"make_detector is {make_detector!r}; wanted a function that makes a "
                "classifier, or None"
            )
        # also of numbers of numpy
        self.features, self.table, self.seed = int(features), table, int(seed)
        self.min_samples_leaf = int(min_samples_leaf)
        self.forest = {
            "n_estimators": int(num_trees),
            "max_depth": int(max_depth),
            "min_samples_leaf": self.min_samples_leaf,
            "class_weight": class_weight,
        }
        self.make_detector = make_detector or self._random_forest
        self.selected: list[Tensor] = []
        self.widths: list[int] = []
        self.rows: list[list[Tensor]] = []
        self.labels: list[Tensor] = []
        self._fitted: list[Detector] = []

    def __len__(self) -> int:
        return len(self.selected)

    def add(
        self, rows: Sequence[Tensor], predicted: Sequence[Tensor], labels: Tensor
    ) -> None:
        """Take a new experience in, and fit all detectors anew.

        Args:
            rows: All features that each experience, the new one last, has of the new
                one's samples, each ``(N, F_m)``.
            predicted: Local class that each experience predicts of them, ``(N,)``.
            labels: Classes of the samples, ``(N,)``.

        Raises:
            ValueError: If the rows are not those of one experience more than there are,
                not all of as many samples, at least one, not as wide as before, or not
                finite. Nothing has changed then.
        """
        sizes = [len(each) for each in (*rows, *predicted)]
        if sizes != [len(labels)] * (2 * len(self) + 2):
            raise ValueError(
                f"{len(rows)} times rows and {len(predicted)} times predictions, of "
                f"{sizes} samples; wanted {len(self) + 1} times each, of {len(labels)}"
            )
        self._require_widths(rows[:-1])
        for m, each in enumerate(rows):
            if not bool(each.isfinite().all()):
                raise ValueError(
                    f"the rows of experience {m} have nan or infinity; wanted finite "
                    "numbers: are the network's weights and inputs finite?"
                )
        newest = rows[-1]
        n = min(self.features, newest.shape[1])
        if n < self.features:
            warnings.warn(
                f"features is {self.features}, but there are {n} units: all are used",
                stacklevel=2,
            )
        self.selected.append(informative_features(newest, n).cpu())
        self.widths.append(newest.shape[1])
        self.rows.append([])
        for own, index, each, label in zip(
            self.rows, self.selected, rows, predicted, strict=True
        ):
            kept = each.cpu()[:, index]
            # as published, the rows are sorted by the class predicted
            order = label.cpu().argsort(stable=True)
            own.append(kept[order] if self.table == "code" else kept)
        self.labels.append(labels.cpu())
        self._fit()

    def probabilities(self, rows: Sequence[Tensor]) -> Tensor:
        """Probability of each experience.

        Args:
            rows: Features of the samples, ``(N, F_m)``, of the first T experiences.

        Returns:
            Shape ``(N, T)``, float64, on the device of the rows.

        Raises:
            ValueError: If there are no rows, more than experiences, or some of another
                width than at `add`.
        """
        if not 1 <= len(rows) <= len(self):
            raise ValueError(
                f"rows are of {len(rows)} experiences; wanted 1 to {len(self)}, those "
                "known"
            )
        self._require_widths(rows)
        self._require_fitted()
        columns = [self._inside(m, each) for m, each in enumerate(rows[:-1])]
        p = torch.stack(columns, 1) if columns else torch.empty(len(rows[0]), 0)
        return experience_probabilities(p.double()).to(rows[0].device)

    def memory_bytes(self) -> dict[str, int]:
        """Bytes of rows and of forests.

        Returns:
            ``{"relevance_rows": bytes, "detectors": bytes}``; detectors without
            ``estimators_`` count 0.
        """
        self._require_fitted()
        trees = [t.tree_ for f in self._fitted for t in getattr(f, "estimators_", ())]
        return {
            "relevance_rows": sum(r.nbytes for own in self.rows for r in own),
            "detectors": sum(
                part.nbytes
                for tree in trees
                for part in tree.__getstate__().values()
                if hasattr(part, "nbytes")
            ),
        }

    def state_dict(self) -> dict[str, Any]:
        """Rows, labels and features that count; the forests follow from them."""
        names = ("selected", "widths", "rows", "labels")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put them back.

        Args:
            state: As returned by `state_dict`.
        """
        self.selected, self.widths = list(state["selected"]), list(state["widths"])
        self.rows = [list(own) for own in state["rows"]]
        self.labels = list(state["labels"])
        self._fitted = []

    def _random_forest(self) -> Detector:
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(  # type: ignore[no-any-return]
            criterion="log_loss",
            max_features="log2",
            bootstrap=False,
            random_state=self.seed,
            **self.forest,
        )

    def _require_widths(self, rows: Sequence[Tensor]) -> None:
        for m, each in enumerate(rows):
            if each.shape[1:] != (self.widths[m],):
                raise ValueError(
                    f"the rows of experience {m} are of shape {tuple(each.shape)}; "
                    f"wanted (N, {self.widths[m]}), as when it was added"
                )

    def _require_fitted(self) -> None:
        if len(self._fitted) < len(self) - 1:  # just loaded
            self._fit()

    def _fit(self) -> None:
        """Fit a detector of every experience but the last."""
        self._fitted = []
        for m, own in enumerate(self.rows[:-1]):
            generator = torch.Generator().manual_seed(self.seed)
            x, y = detector_table(
                own, self.labels[m:], table=self.table, generator=generator
            )
            fewest, leaf = int((y == 0).sum()), self.min_samples_leaf
            if fewest < 2 * leaf:
                warnings.warn(
                    f"{fewest} reference samples of experience {m}; wanted at least "
                    f"{2 * leaf}, or the forest is constant, or nearly so",
                    stacklevel=3,
                )
            detector = self.make_detector()
            detector.fit(x.numpy(), y.numpy())
            self._fitted.append(detector)

    def _inside(self, m: int, rows: Tensor) -> Tensor:
        """Probability that samples are of experience m, not of a later one."""
        detector = self._fitted[m]
        own = rows.cpu()[:, self.selected[m]].numpy()
        column = list(detector.classes_).index(0)
        return torch.as_tensor(detector.predict_proba(own)[:, column])
