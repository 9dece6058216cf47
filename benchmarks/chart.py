"""Draw accuracy over minutes for the runs under results/: docs/accuracy.svg.

A line is the accuracy on the training batches, augmented, as they were trained, epoch by epoch; the mark at its end is
the accuracy on the test split without test-time augmentation, measured once, after the last epoch. Of several seeds the
first is drawn, and all their marks.

    python benchmarks/chart.py
"""

import json
from itertools import accumulate
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.ticker import FixedLocator, StrMethodFormatter

ROOT = Path(__file__).parents[1]
# Runs by label, of one data set: CIFAR-10's ten classes, trained on two cores or, where it says so, on one.
RUNS = {
    "fast94, 10 epochs": ("fast94/seed0", "fast94/seed1", "fast94/seed2"),
    "fast94, bfloat16": tuple(f"trials/fast94-bfloat16/seed{seed}" for seed in range(3)),
    "lab-resnet32-short, 10 epochs": ("lab-resnet32-short",),
    "fast-resnet20, one core": ("fast-resnet20",),
    "fast-resnet32, one core": ("fast-resnet32",),
    "fast-resnet56, one core": ("fast-resnet56",),
}
MINUTES = (0.5, 1, 2, 5, 10, 20, 40, 80)


def read_curve(folder: Path) -> tuple[list[float], list[float], float]:
    """Give minutes and training accuracy of each epoch, and the test accuracy at the end, in percent."""
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    evaluation = json.loads((folder / "evaluation.json").read_text())
    minutes = [seconds / 60 for seconds in accumulate(epoch["seconds"] for epoch in log)]
    test = evaluation["splits"]["test"]["accuracy"]["value"]
    return minutes, [100 * epoch["train_accuracy"] for epoch in log], 100 * test


def main() -> None:
    plt.rcParams["svg.hashsalt"] = "reslab"  # the same bytes every time
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for index, (label, names) in enumerate(RUNS.items()):
        curves = [read_curve(ROOT / "results" / name) for name in names]
        minutes, training, _ = curves[0]
        axes.plot(minutes, training, color=f"C{index}", linewidth=1.5, label=label)
        axes.plot([curve[0][-1] for curve in curves], [curve[2] for curve in curves], "o", color=f"C{index}", zorder=3)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(MINUTES))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set(xlabel="minutes of training", ylabel="accuracy, %", ylim=(40, 100))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", title="line: training batches; mark: test split", fontsize=9, title_fontsize=9)
    figure.savefig(ROOT / "docs/accuracy.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
