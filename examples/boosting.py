"""Train LightGBM by its own multiclass objective and by one of these ops: same trees. ``make examples``."""

from pathlib import Path
from time import perf_counter

import lightgbm
import matplotlib
import numba
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastsoftmax as fs

matplotlib.use("agg")
import matplotlib.pyplot as plt

PICTURE = Path(__file__).with_suffix(".png")
CLASSES, ROUNDS = 10, 60
PARAMETERS = {
    "num_class": CLASSES,
    "num_leaves": 7,
    "verbosity": -1,
    "num_threads": 1,
    "deterministic": True,
    "boost_from_average": False,
}
console = Console()


def main():
    features, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(features, labels, test_size=0.3, random_state=0)
    console.rule("[bold]Handwritten digits, boosted trees")
    runs = {
        "LightGBM's own": fit("multiclass", train, train_labels),
        "fastsoftmax in @njit": fit(objective_of(train_labels), train, train_labels),
    }
    table = Table("objective", "seconds", "loss", "right of those held back")
    losses = {}
    for name, (booster, seconds) in runs.items():
        losses[name] = losses_by_round(booster, test, test_labels)
        right = (booster.predict(test, raw_score=True).argmax(1) == test_labels).mean()
        table.add_row(name, f"{seconds:.2f}", f"{losses[name][-1]:.4f}", f"{right:.1%}")
    console.print(table)
    dumps = [booster.dump_model()["tree_info"] for booster, _ in runs.values()]
    same = sum(splits(a) == splits(b) for a, b in zip(*dumps, strict=True))
    console.print(f"{same} of {len(dumps[0])} trees split the same features at the same values")
    draw(losses)
    console.print(f"The loss by rounds: [bold]{PICTURE}")


def fit(objective, features, labels):
    """The booster, and how long its training took."""
    data = lightgbm.Dataset(features, labels)
    start = perf_counter()
    booster = lightgbm.train(PARAMETERS | {"objective": objective}, data, ROUNDS)
    return booster, perf_counter() - start


@numba.njit
def derivatives(scores, labels):
    """Gradient and Hessian diagonal of each row's cross-entropy, the latter with LightGBM's factor."""
    gradient, hessian = fs.softmax(scores), np.empty_like(scores)
    factor = scores.shape[1] / (scores.shape[1] - 1)
    for i in range(len(scores)):
        for k in range(scores.shape[1]):
            hessian[i, k] = factor * gradient[i, k] * (1 - gradient[i, k])
        gradient[i, labels[i]] -= 1
    return gradient, hessian


def objective_of(labels):
    labels = labels.astype(np.intp)
    derivatives(np.zeros((2, CLASSES), order="F"), labels[:2])  # compiled before the clock runs
    return lambda scores, _: derivatives(scores, labels)


def losses_by_round(booster, features, labels):
    scores = (booster.predict(features, raw_score=True, num_iteration=n) for n in range(1, ROUNDS + 1))
    return [fs.cross_entropy(s, labels) for s in scores]


def splits(tree):
    """Feature and threshold of each inner node, depth first."""

    def walk(node):
        if "split_feature" in node:
            yield node["split_feature"], node["threshold"]
            yield from walk(node["left_child"])
            yield from walk(node["right_child"])

    return list(walk(tree["tree_structure"]))


def draw(losses):
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for (name, values), style in zip(losses.items(), ("-", "--"), strict=True):
        axes.plot(range(1, ROUNDS + 1), values, style, lw=2, label=name)
    axes.set(xlabel="rounds", ylabel="cross-entropy of digits held back", yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(PICTURE, dpi=150)


if __name__ == "__main__":
    main()
