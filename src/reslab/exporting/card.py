"""The model card: a README beside the files that says what they are, what they were made from and how good they are."""

from collections.abc import Iterable

from reslab.recipe import Recipe
from reslab.records import Estimate, Weights
from reslab.runs import Run


def write_card(run: Run, *, weights: Weights, files: Iterable[str]) -> str:
    """Write the card of a finished run in Markdown, with the head that hubs read; figures where it is evaluated."""
    recipe = run.recipe
    return "\n".join(
        [
            *("---", "library_name: reslab", "pipeline_tag: image-classification", "---", ""),
            f"# {recipe.name}",
            "",
            f"{weights.model.label} for {len(weights.classes)} classes, trained by reslab's recipe `{recipe.name}`.",
            "",
            *_facts(recipe, weights),
            "",
            *_figures(run),
            "## Files",
            "",
            *(f"- `{name}`: {FILES[name]}" for name in files),
            "",
        ]
    )


FILES = {
    "model.onnx": "stored pixels (N, C, H, W) uint8 to `logits` and `probabilities` (N, K) float32, for ONNX Runtime",
    "model-int8.onnx": "the same in 8-bit integers",
    "model.safetensors": "the weights; their metadata name the network, so `reslab predict` needs no other file",
    "recipe.json": "the recipe: enough to train it again",
    "environment.json": "versions, processor, seed and fingerprints of the data",
    "log.jsonl": "an object for each epoch",
    "evaluation.json": "every figure with its interval",
}


def _facts(recipe: Recipe, weights: Weights) -> list[str]:
    kind = {1: "grey", 3: "RGB"}.get(weights.channels, f"{weights.channels}-channel")
    return [
        f"- Images: {kind}, {weights.image_size}x{weights.image_size} pixels, 0 to 255; standardisation is inside",
        f"- Trained on: `{recipe.data}`",
        f"- Source of the recipe: {recipe.source}",
        f"- Classes, in the order of the logits: {', '.join(weights.classes)}",
    ]


def _figures(run: Run) -> list[str]:
    if not run.is_evaluated:
        return ["It has not been evaluated.", ""]
    evaluation = run.evaluation
    rows = [
        f"| {split} ({figures.num_images:,} images) | {_percent(figures.accuracy)} | {_number(figures.macro_f1)} |"
        for split, figures in evaluation.splits.items()
    ]
    return [
        f"## Figures, with {evaluation.confidence:.0%} intervals",
        "",
        "| split | accuracy | macro F1 |",
        "|---|---|---|",
        *rows,
        "",
    ]


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.2f} % ({100 * estimate.low:.2f}–{100 * estimate.high:.2f})"


def _number(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} ({estimate.low:.4f}–{estimate.high:.4f})"
