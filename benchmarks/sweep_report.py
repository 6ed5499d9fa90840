"""Tables and curves of what `benchmarks.sweep` has found.

    python -m benchmarks.sweep_report runs/sweep.jsonl --against random --output curves.png

A row of the table is a data set, a model and a variant: mAP50-95 of the best epoch of every seed, their mean, the
range of the validation's class loss over all epochs, and the mean seconds. With `--against VARIANT`, over the seeds
that both have: how much more the mean is than that variant's, and after how many epochs each seed was above the best
of the same seed there; a dash if it never was. The plot has a panel for every data set and model, with the mean over
the seeds by epoch, and their range.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from detector.plots import LINE_COLORS, new_figure, rgb, write_figure
from detector.tables import align

Found = dict[str, Any]  # a line of the results
Groups = dict[tuple[str, str], dict[str, list[Found]]]  # data set and model, variant, seeds


def read_found(path: Path) -> list[Found]:
    """Read what was found, one line of JSON per training."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def group(found: Sequence[Found]) -> Groups:
    """Sort what was found by data set and model, variant, seed."""
    groups: Groups = {}
    for run in sorted(
        found, key=lambda run: (Path(run["data"]).stem, run["model"], run["variant"], run["seed"])
    ):
        variants = groups.setdefault((Path(run["data"]).stem, run["model"]), {})
        variants.setdefault(run["variant"], []).append(run)
    return groups


def ahead(runs: Sequence[Found], others: Sequence[Found]) -> list[str]:
    """Return the cells that compare with another variant: the gain, and the epochs until each seed is above it."""
    best = {run["seed"]: max(run["curve"]) for run in others}
    pairs = [(run["curve"], best[run["seed"]]) for run in runs if run["seed"] in best]
    if not pairs:
        return ["", ""]
    above = [[epoch for epoch, value in enumerate(curve, 1) if value > other] for curve, other in pairs]
    gain = fmean(max(curve) - other for curve, other in pairs)
    return [f"{gain:+.3f}", " ".join(str(epochs[0]) if epochs else "-" for epochs in above)]


def table(found: Sequence[Found], against: str | None = None) -> list[list[str]]:
    """Return the rows; `against` names the variant to compare with."""
    more = [f"over {against}", "after epoch"] if against else []
    rows = [["data", "model", "variant", "mAP50-95 by seed", "mean", *more, "class loss", "seconds"]]
    for names, variants in group(found).items():
        for variant, runs in variants.items():
            best = [max(run["curve"]) for run in runs]
            others = variants.get(against, []) if against not in (None, variant) else []
            compared = ahead(runs, others)[: len(more)]
            losses = [loss for run in runs for loss in run.get("class_loss", ())]
            spread = f"{min(losses):.3g} to {max(losses):.3g}" if losses else ""
            seconds = fmean(run["seconds"][-1] for run in runs)
            by_seed = " ".join(f"{value:.3f}" for value in best)
            rows.append([*names, variant, by_seed, f"{fmean(best):.3f}", *compared, spread, f"{seconds:.0f}"])
    return rows


def draw(found: Sequence[Found], path: Path) -> Path:
    """Draw mAP50-95 by epoch, a panel for every data set and model, a colour for every variant."""
    groups = group(found)
    models = sorted({model for _, model in groups})
    names = sorted({variant for variants in groups.values() for variant in variants})
    colors = {variant: rgb(number) for variant, number in zip(names, LINE_COLORS, strict=False)}
    data = sorted({name for name, _ in groups})
    figure, panels = new_figure(len(data), len(models), 3.4, 2.6)
    for panel, place in zip(panels, [(name, model) for name in data for model in models], strict=True):
        panel.set_title(", ".join(place), fontsize=9)
        panel.set_xlabel("epoch")
        panel.set_ylabel("mAP50-95")
        _curves(panel, groups.get(place, {}), colors)
    panels[0].legend(loc="lower right", frameon=False)
    return write_figure(figure, path)


def _curves(panel: Any, variants: Mapping[str, Sequence[Found]], colors: Mapping[str, Any]) -> None:
    for variant, runs in variants.items():
        curves = np.array([run["curve"][: min(len(other["curve"]) for other in runs)] for run in runs])
        epochs, color = np.arange(1, curves.shape[1] + 1), colors[variant]
        panel.plot(epochs, curves.mean(0), color=color, linewidth=1.8, label=variant)
        panel.fill_between(epochs, curves.min(0), curves.max(0), color=color, alpha=0.2, linewidth=0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, write the plot."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sweep_report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", nargs="+", type=Path, help="files that benchmarks.sweep has written")
    parser.add_argument("--against", metavar="VARIANT", help="compare the others with this one")
    parser.add_argument("--output", type=Path, help="image file for the curves")
    args = parser.parse_args(arguments)
    found = [run for path in args.results for run in read_found(path)]
    if not found:
        parser.error(f"{', '.join(map(str, args.results))}: no results; give a file of benchmarks.sweep")
    print(align(table(found, args.against)))
    if args.output:
        print(draw(found, args.output))


if __name__ == "__main__":
    main()
