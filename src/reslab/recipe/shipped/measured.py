"""Our results of the shipped recipes, written by `make figures` from results/."""

from typing import NamedTuple


class MeasuredRecipe(NamedTuple):
    """Test accuracy and minutes of a recipe, averaged over its runs, and the processor."""

    accuracy: float
    minutes: float
    num_runs: int
    processor: str


MEASURED = {
    # [[[cog cog.outl(measured_recipes()) ]]]
    "lab-resnet32": MeasuredRecipe(0.9211, 489.7, 1, "AMD EPYC (AVX512) and AMD EPYC (AVX2)"),
    "lab-resnet32-short": MeasuredRecipe(0.8739, 29.9, 1, "AMD EPYC (AVX2)"),
    "resnet-20": MeasuredRecipe(0.9134, 139.7, 3, "AMD EPYC (AVX512)"),
    "elu-resnet-20": MeasuredRecipe(0.9127, 150.4, 3, "AMD EPYC (AVX512)"),
    "zoo-lenet": MeasuredRecipe(0.7455, 136.3, 1, "AMD EPYC (AVX2)"),
    "fast94": MeasuredRecipe(0.9313, 6.2, 5, "AMD EPYC (AVX512)"),
    "fast-cifar100": MeasuredRecipe(0.7074, 30.8, 1, "Intel(R) Xeon(R) Processor (AVX512)"),
    "fast-resnet20": MeasuredRecipe(0.9200, 36.3, 1, "Intel(R) Xeon(R) Processor (AVX512)"),
    "fast-resnet32": MeasuredRecipe(0.9324, 54.3, 1, "Intel(R) Xeon(R) Processor (AVX512)"),
    "fast-resnet56": MeasuredRecipe(0.9336, 91.9, 1, "Intel(R) Xeon(R) Processor (AVX512)"),
    # [[[end]]]
}
