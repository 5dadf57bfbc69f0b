"""Train a softmax classifier on handwritten digits, then compare the backends. Run by ``make demo``."""

from functools import partial
from pathlib import Path

import autograd
import autograd.numpy as anp
import matplotlib
import numpy as np
import scipy.optimize
import scipy.special
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import fastsoftmax as fs
from fastsoftmax._timing import interleave

PICTURE = Path(__file__).with_suffix(".png")
CLASSES = 10
MOST_STEPS = 200
console = Console()


def main():
    features, labels = load_digits(return_X_y=True)
    split = train_test_split(features / 16, labels, test_size=0.3, random_state=0, stratify=labels)
    train, test, train_labels, test_labels = split
    console.rule("[bold]Handwritten digits, a softmax classifier")
    console.print(f"{len(train)} digits to learn from, {len(test)} to be tested on, of 8 x 8 pixels")
    choice = fs.explain("cross_entropy_with_grad", (len(train), CLASSES))
    console.print(
        f"fastest backend: [bold]{choice.backend}[/] ({choice.kernel}, threads: {choice.num_threads})"
    )

    parameters = fit(train, train_labels)
    probabilities = fs.softmax(logits(parameters, test))
    report_accuracy(probabilities, *split)
    report_gradient(train, train_labels, parameters)
    compare_backends()
    draw_hardest(test, test_labels, probabilities)
    console.print(f"\nThe digits that the model finds hardest: [bold]{PICTURE}")


def logits(parameters, features):
    """One row a digit; ``parameters`` are weights ``(pixels + 1, classes)``, the last row the bias."""
    weights = parameters.reshape(-1, CLASSES)
    return features @ weights[:-1] + weights[-1]


def loss_and_gradient(parameters, features, labels):
    """Mean cross-entropy, with the penalty that scikit-learn's ``LogisticRegression`` has by default."""
    loss, dx = fs.cross_entropy_with_grad(logits(parameters, features), labels)
    weights = parameters.reshape(-1, CLASSES)[:-1]
    penalty = 0.5 / len(features)
    gradient = np.vstack([features.T @ dx + 2 * penalty * weights, dx.sum(axis=0)])
    return loss + penalty * np.sum(weights**2), gradient.ravel()


def fit(features, labels):
    columns = (
        TextColumn("L-BFGS step {task.completed:>3.0f}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.6f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("fit", total=MOST_STEPS, loss=np.log(CLASSES))

        def show(intermediate_result):
            progress.update(task, advance=1, loss=intermediate_result.fun)

        result = scipy.optimize.minimize(
            loss_and_gradient,
            np.zeros((features.shape[1] + 1) * CLASSES),
            args=(features, labels),
            jac=True,
            method="L-BFGS-B",
            callback=show,
            options={"maxiter": MOST_STEPS, "ftol": 1e-10},
        )
        progress.update(task, total=result.nit)
    return result.x


def report_accuracy(probabilities, train, test, train_labels, test_labels):
    ours = np.mean(probabilities.argmax(axis=1) == test_labels)
    theirs = LogisticRegression(max_iter=1000).fit(train, train_labels).score(test, test_labels)
    console.print(f"test accuracy: [bold]{ours:.2%}[/], scikit-learn's LogisticRegression: {theirs:.2%}")
    if abs(ours - theirs) > 0.01:
        raise SystemExit("FAIL: the two accuracies differ by more than 1 %")


def report_gradient(features, labels, parameters):
    """Compare the gradient with autograd's, where the training began and where it ended."""

    def loss(parameters):
        x = logits(parameters, features)
        m = anp.max(x, axis=1, keepdims=True)
        log_sum = m[:, 0] + anp.log(anp.sum(anp.exp(x - m), axis=1))
        penalty = 0.5 / len(features) * anp.sum(parameters.reshape(-1, CLASSES)[:-1] ** 2)
        return anp.mean(log_sum - x[anp.arange(len(labels)), labels]) + penalty

    expected = autograd.grad(loss)
    for name, point in (("start", np.zeros_like(parameters)), ("end", parameters)):
        _, gradient = loss_and_gradient(point, features, labels)
        # The gradient vanishes at the end: errors count relative to its largest entry at the start.
        scale = np.abs(expected(np.zeros_like(parameters))).max()
        error = np.abs(gradient - expected(point)).max() / scale
        console.print(f"gradient at the {name} of training, max relative error against autograd: {error:.1e}")
        if error > 1e-12:
            raise SystemExit("FAIL: the gradient is not autograd's")


def textbook_softmax(x):
    """For autograd, which has no softmax of its own."""
    e = anp.exp(x - anp.max(x, axis=-1, keepdims=True))
    return e / anp.sum(e, axis=-1, keepdims=True)


def compare_backends():
    console.rule("[bold]Every backend, on Z = randint(-30, 31, (1000, 5)) / 2")
    z = np.random.default_rng(0).integers(-30, 31, (1000, 5)) / 2
    with console.status("autograd forms its Jacobian of shape (1000, 5, 1000, 5)"):
        expected = autograd_answers(z)
    with console.status("timing the backends in turns"):
        speed = speed_beside_scipy(z)
    table = Table(caption="errors: against autograd, relative to the largest term of the row's formula")
    table.add_column("backend", style="bold")
    for column in ("softmax", "Jacobian", "VJP", "speed beside SciPy's"):
        table.add_column(column, justify="right")
    for name in fs.available_backends():
        errors = (f"{error:.1e}" for error in errors_of(name, z, expected))
        table.add_row(name, *errors, f"{speed[name]:.2f} x")
    console.print(table)
    for name, status in fs.backend_status().items():
        if status != "available":
            console.print(f"[yellow]{name} is missing:[/] {escape(status)}", highlight=False)


def autograd_answers(z):
    """Softmax, the Jacobian of the batch, and the gradient of ``L = sum y**2``, the sources' loss."""
    vjp = autograd.grad(lambda x: anp.sum(textbook_softmax(x) ** 2))
    return textbook_softmax(z), autograd.jacobian(textbook_softmax)(z), vjp(z)


def errors_of(backend, z, expected):
    """One error an op, in units of the largest term that its formula adds up, row by row.

    In a saturated row the terms of the VJP nearly cancel, and autograd's own digits go with them.
    """
    with fs.use_backend(backend):
        y = fs.softmax(z)
        answers = y, fs.softmax_jacobian(y, layout="dense"), fs.softmax_vjp(y, 2 * y)
    terms = y, y, 2 * y * y
    return [max_error(*triple) for triple in zip(answers, expected, terms, strict=True)]


def max_error(a, b, terms):
    error = np.abs(a - b).reshape(len(b), -1).max(axis=1)
    return np.max(error / terms.max(axis=1))


def speed_beside_scipy(z):
    names = fs.available_backends()
    candidates = {name: partial(fs.softmax, z, backend=name) for name in names}
    candidates["scipy"] = partial(scipy.special.softmax, z, axis=-1)
    best = {name: min(samples) for name, samples in interleave(candidates, seconds=1).items()}
    return {name: best["scipy"] / best[name] for name in names}


def draw_hardest(test, labels, probabilities, count=8):
    """A picture of the test digits whose own label has the smallest probability."""
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    p_label = probabilities[np.arange(len(labels)), labels]
    hardest = np.argsort(p_label)[:count]
    figure = plt.figure(figsize=(13, 5.6), dpi=120, layout="constrained")
    figure.suptitle("The hardest test digits, and the probabilities they get\n", fontsize=15, weight="bold")
    cells = figure.subfigures(2, count // 2, wspace=0.03, hspace=0.06)
    for cell, i in zip(cells.flat, hardest, strict=True):
        draw_digit(cell, test[i].reshape(8, 8), labels[i], probabilities[i])
    figure.savefig(PICTURE)
    plt.close(figure)


def draw_digit(cell, pixels, label, probabilities):
    image, bars = cell.subplots(1, 2, width_ratios=(1.25, 1))
    image.imshow(pixels, cmap="gray_r", interpolation="nearest")
    image.set(xticks=[], yticks=[])
    image.spines[:].set_color("#c9ced6")
    guess = probabilities.argmax()
    image.set_title("a " + str(label) + (f", taken for a {guess}" if guess != label else ""), fontsize=12)
    colors = ["#c9ced6"] * CLASSES
    colors[guess], colors[label] = "#c44e52", "#2f7d4f"
    bars.barh(range(CLASSES), probabilities, color=colors)
    for k in {guess, label}:
        bars.text(
            probabilities[k] + 0.04, k, f"{probabilities[k]:.0%}", va="center", fontsize=9, color=colors[k]
        )
    bars.set(yticks=range(CLASSES), xticks=[], xlim=(0, 1.2), ylim=(CLASSES - 0.4, -0.6))
    bars.tick_params(labelsize=9, length=0)
    bars.spines[["top", "right", "bottom"]].set_visible(False)


if __name__ == "__main__":
    main()
