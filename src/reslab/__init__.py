"""reslab trains small-image classifiers, measures them with confidence intervals, compares them with published tables
and teaches them new classes.

Public names are loaded on first use, so importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reslab.data.images import ImageSet
    from reslab.data.load import describe, load
    from reslab.errors import Failure, UserError
    from reslab.evaluation import evaluate
    from reslab.evaluation.classify import classify
    from reslab.evaluation.elsewhere import evaluate_elsewhere
    from reslab.evaluation.onnx import evaluate_onnx
    from reslab.evaluation.watching import watch
    from reslab.exporting import export
    from reslab.extension import extend, remember, resume_extension
    from reslab.fitting import fit
    from reslab.fitting.planning import plan
    from reslab.integrations.hub import pull, push
    from reslab.integrations.notebook import draw_images, live_curves
    from reslab.integrations.scikit_learn import Classifier
    from reslab.integrations.tracking import track
    from reslab.lab import run_lab
    from reslab.models import build
    from reslab.network.network import Network
    from reslab.pretrained import Pretrained
    from reslab.recipe.networks import MODELS
    from reslab.recipe.recipe import Recipe, derive, read_recipe
    from reslab.recipe.settings import with_settings
    from reslab.recipe.shipped import RECIPES, find_recipe
    from reslab.records import Evaluation
    from reslab.report import draw, summarize, tabulate, write_report
    from reslab.report.comparison import compare
    from reslab.runs import Run
    from reslab.training import resume, train
    from reslab.training.calibrating import calibrate
    from reslab.training.importing import import_weights

__version__ = "0.1.0"

__all__ = [
    "MODELS",
    "RECIPES",
    "Classifier",
    "Evaluation",
    "Failure",
    "ImageSet",
    "Network",
    "Pretrained",
    "Recipe",
    "Run",
    "UserError",
    "build",
    "calibrate",
    "classify",
    "compare",
    "derive",
    "describe",
    "draw",
    "draw_images",
    "evaluate",
    "evaluate_elsewhere",
    "evaluate_onnx",
    "export",
    "extend",
    "find_recipe",
    "fit",
    "import_weights",
    "live_curves",
    "load",
    "plan",
    "pull",
    "push",
    "read_recipe",
    "remember",
    "resume",
    "resume_extension",
    "run_lab",
    "summarize",
    "tabulate",
    "track",
    "train",
    "watch",
    "with_settings",
    "write_report",
]

_HOMES = {
    "reslab.report.comparison": ("compare",),
    "reslab.data.images": ("ImageSet",),
    "reslab.data.load": ("describe", "load"),
    "reslab.errors": ("Failure", "UserError"),
    "reslab.evaluation": ("evaluate",),
    "reslab.evaluation.classify": ("classify",),
    "reslab.training.importing": ("import_weights",),
    "reslab.evaluation.elsewhere": ("evaluate_elsewhere",),
    "reslab.evaluation.watching": ("watch",),
    "reslab.evaluation.onnx": ("evaluate_onnx",),
    "reslab.exporting": ("export",),
    "reslab.extension": ("extend", "remember", "resume_extension"),
    "reslab.fitting": ("fit",),
    "reslab.fitting.planning": ("plan",),
    "reslab.integrations.hub": ("pull", "push"),
    "reslab.lab": ("run_lab",),
    "reslab.network.network": ("Network",),
    "reslab.models": ("build",),
    "reslab.recipe.networks": ("MODELS",),
    "reslab.integrations.notebook": ("draw_images", "live_curves"),
    "reslab.pretrained": ("Pretrained",),
    "reslab.recipe.recipe": ("Recipe", "derive", "read_recipe"),
    "reslab.recipe.shipped": ("RECIPES", "find_recipe"),
    "reslab.records": ("Evaluation",),
    "reslab.report": ("draw", "summarize", "tabulate", "write_report"),
    "reslab.runs": ("Run",),
    "reslab.recipe.settings": ("with_settings",),
    "reslab.integrations.scikit_learn": ("Classifier",),
    "reslab.integrations.tracking": ("track",),
    "reslab.training": ("resume", "train"),
    "reslab.training.calibrating": ("calibrate",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'reslab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
