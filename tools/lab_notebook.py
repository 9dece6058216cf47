"""The lab as a notebook, in English and in Russian from one source, executed.

    python tools/lab_notebook.py RUN EXTENDED          writes notebooks/lab.ipynb and notebooks/lab.ru.ipynb

RUN is a finished run, EXTENDED one that was taught new classes; what is not evaluated yet is evaluated. In the notebook
they are called runs/ten and runs/fifteen; whoever has no such folders trains them by running it, and an interrupted
training is resumed.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import nbformat
from nbclient import NotebookClient

from reslab.language import LANGUAGES, LanguageName

FOLDER: Final = Path(__file__).parents[1] / "notebooks"
FILES: Final[dict[LanguageName, Path]] = {"en": FOLDER / "lab.ipynb", "ru": FOLDER / "lab.ru.ipynb"}
RUN, EXTENDED = "runs/ten", "runs/fifteen"  # what the cells call them

# A cell is code, or a text in English and in Russian.
CELLS: Final[Sequence[str | tuple[str, str]]] = (
    (
        """# The lab: a residual network, and new classes for it

A network for CIFAR-10's ten classes is measured on both splits and compared with published ones. Then it is taught five
reptiles of CIFAR-100 that it has never seen. Run the cells from top to bottom: if the folders `RUN` and `EXTENDED` hold
finished runs, that takes a minute; otherwise the cells train them, which takes hours on a CPU. If that is interrupted, run
the cell again: it resumes.""",
        """# Лабораторная работа: остаточная сеть и новые классы

Сеть, обученная распознавать десять классов CIFAR-10, оценивается на обеих выборках и сравнивается с опубликованными. Затем
её учат пяти рептилиям из CIFAR-100, которых она раньше не видела. Выполняйте ячейки по порядку: если в папках `RUN` и
`EXTENDED` лежат готовые запуски, это займёт минуту; иначе сети обучаются, а это несколько часов на процессоре. Если обучение
прервалось, выполните ячейку ещё раз: оно продолжится.""",
    ),
    """import importlib.util
from pathlib import Path

# The clone that this notebook is in; elsewhere, write the path of a wheel: reslab is not on PyPI.
SOURCE = ".."
if importlib.util.find_spec("reslab") is None:
    %pip install --quiet "{SOURCE}[notebook,report]\"""",
    """import reslab

RECIPE = reslab.find_recipe("lab-resnet32")
RUN = Path("runs/ten")
NEW, METHOD = "cifar100:reptiles", "finetune-distill"
EXTENDED = Path("runs/fifteen")
PICTURES = Path("my-pictures")  # your own; those that come with reslab where there is no such folder
LANGUAGE = "{language}\"""",
    (
        """## Part one: ten classes

### Data

The first training images of every class. The test images stay closed until the network is finished.""",
        """## Часть первая: десять классов

### Данные

Первые обучающие изображения каждого класса. Тестовая выборка не используется, пока сеть не обучена.""",
    ),
    """images = reslab.load(RECIPE.data, "train", image_size=RECIPE.image_size)
reslab.draw_images(images, language=LANGUAGE)""",
    (
        """### The residual block, and why

Additional layers should never hurt: a deeper network could copy a shallower one and make its extra layers the identity.
In practice, plain networks get *worse* with depth, even on the training images (He et al. 2015, arXiv:1512.03385). So the
cause is not overfitting: the optimizer does not find these identity layers.

A residual block learns a change of its input instead of a new output: *y = x + F(x)*. To change nothing, it only has to
drive *F* to zero. Since ∂*y* / ∂*x* = 1 + *F′(x)*, the gradient reaches the first layers through the identity term, however
many blocks lie between. The lab uses the *pre-activation* block (He et al. 2016, arXiv:1603.05027): normalization and ReLU
come before each convolution, so nothing lies on the path of *x* at all.""",
        """### Остаточный блок и зачем он нужен

Лишний слой не должен мешать: более глубокая сеть могла бы повторить менее глубокую, оставив остальные слои
тождественными. На деле обычные сети с ростом глубины становятся *хуже*, причём уже на обучающей выборке (He et al. 2015,
arXiv:1512.03385). Значит, дело не в переобучении: оптимизатор не находит тождественных слоёв.

Остаточный блок вычисляет не новый выход, а поправку ко входу: *y = x + F(x)*. Чтобы ничего не менять, достаточно сделать
*F* нулём. А так как ∂*y* / ∂*x* = 1 + *F′(x)*, градиент доходит до первых слоёв через единичное слагаемое, сколько бы
блоков ни стояло между ними. В работе используется блок с *предактивацией* (He et al. 2016, arXiv:1603.05027):
нормализация и ReLU стоят перед каждой свёрткой, и на пути *x* нет вообще ничего.""",
    ),
    """network = reslab.build(RECIPE.model, num_classes=len(images.classes), channels=images.images.shape[1])
print(RECIPE.model.label, f"{sum(parameter.numel() for parameter in network.parameters()):,}", sep=": ")
next(module for module in network.modules() if type(module).__name__ == "Block")""",
    (
        """### Training

The accuracy logged during training is measured on augmented images while the weights still change. The result is measured
afterwards, with the weights of the last epoch.""",
        """### Обучение

Доля верных ответов в журнале обучения измеряется на аугментированных изображениях, пока веса ещё меняются. Результат
измеряется потом, с весами последней эпохи.""",
    ),
    """if not reslab.Run(RUN).is_finished:
    with reslab.live_curves(RUN):
        if RUN.exists():  # an interrupted training
            reslab.resume(RUN)
        else:
            reslab.train(RECIPE, out=RUN)
run = reslab.Run.open(RUN)
if not run.is_evaluated:
    reslab.evaluate(run)
print(run.recipe.name, run.recipe.model.label, f"{len(run.log)} / {run.recipe.epochs}", sep=", ")
reslab.draw(run, part="curves", language=LANGUAGE)""",
    (
        """### Metrics on both splits

With 95 % intervals. The test images were opened once, for this table.""",
        """### Показатели на обеих выборках

С доверительными интервалами 95 %. Тестовая выборка открыта один раз — для этой таблицы.""",
    ),
    'reslab.tabulate(run, part="splits", language=LANGUAGE)',
    'reslab.tabulate(run, part="classes", language=LANGUAGE)',
    (
        """### Compared with published networks

The source gives one run of each, without an interval. Compare with the row of the same network first: a better result of a
network with ten times the parameters says nothing about the training.""",
        """### Сравнение с опубликованными сетями

В источнике по одному запуску на сеть, без интервалов. Сравнивать следует прежде всего с той же сетью: лучший результат
сети, в которой параметров в десять раз больше, ничего не говорит о качестве обучения.""",
    ),
    'reslab.tabulate(run, part="field", language=LANGUAGE)',
    (
        """### Errors

Which classes the network confuses, and the mistakes of which it was most certain.""",
        """### Ошибки

Какие классы сеть путает и в каких своих ошибках она больше всего уверена.""",
    ),
    'reslab.draw(run, part="matrices", language=LANGUAGE)',
    'reslab.draw(run, part="mistakes", language=LANGUAGE)',
    (
        """### Are the probabilities calibrated?""",
        """### Откалиброваны ли вероятности?""",
    ),
    'reslab.draw(run, part="calibration", language=LANGUAGE)',
    (
        """### Your own pictures

An answer in brackets is only a guess: the picture is unlike those that the network was trained on. Only a network that held
training images out can tell. `lab-resnet32` holds none out, so it answers every picture, and no brackets appear here.""",
        """### Свои изображения

Ответ в скобках — лишь догадка: изображение не похоже на те, на которых обучалась сеть. Узнать это может только сеть, при
обучении которой часть изображений была отложена. `lab-resnet32` ничего не откладывает, поэтому отвечает на любое
изображение, и скобок здесь не будет.""",
    ),
    """import matplotlib.pyplot as plt
from PIL import Image

demo = Path("runs/demo")
if not PICTURES.exists() and not demo.exists():
    reslab.pull("demo", out=demo)
pictures = sorted((PICTURES if PICTURES.exists() else demo / "pictures").iterdir())
_, places = plt.subplots(1, len(pictures), figsize=(1.7 * len(pictures), 2.1), squeeze=False)
for place, picture, answer in zip(places[0], pictures, reslab.classify(pictures, weights=run.path), strict=True):
    said = f"{answer.classes[0]} {answer.probabilities[0]:.0%}"
    place.imshow(Image.open(picture).convert("RGB"))
    place.set_title(said if answer.answered else f"({said})", fontsize=9)
    place.axis("off")""",
    (
        """## Part two: new classes

The finished network is taught five reptiles, with 500 training images each against 5,000 of every old class. It must not
forget the old classes.""",
        """## Часть вторая: новые классы

Готовую сеть учат рептилиям: на каждую приходится 500 обучающих изображений, на каждый старый класс — 5000. Старые классы при
этом нельзя забыть.""",
    ),
    """reslab.draw_images(reslab.load(NEW, "train", image_size=RECIPE.image_size), language=LANGUAGE)""",
    """if not reslab.Run(EXTENDED).is_finished:
    with reslab.live_curves(EXTENDED):
        if EXTENDED.exists():
            reslab.resume_extension(EXTENDED)
        else:
            reslab.extend(RUN, data=NEW, out=EXTENDED, method=METHOD)
extended = reslab.Run.open(EXTENDED)
if not extended.is_evaluated:
    reslab.evaluate(extended)
print(extended.recipe.extension.method)
reslab.tabulate(extended, part="splits", language=LANGUAGE)""",
    'reslab.tabulate(extended, part="old", language=LANGUAGE)',
    'reslab.tabulate(extended, part="new", language=LANGUAGE)',
    'reslab.draw(extended, part="mistakes", language=LANGUAGE)',
    (
        """## Conclusion

What was found:""",
        """## Выводы

Что получилось:""",
    ),
    """print(reslab.summarize(run, language=LANGUAGE))
print()
print(reslab.summarize(extended, language=LANGUAGE))""",
    (
        """What it means:

1. **Residual blocks make depth trainable.** The network has 32 layers and trains from the first epoch on. Whether a plain
   network of the same depth would do worse is not tested here; the study `degradation` tests it.
2. **Quote the interval.** With 10,000 test images, accuracy is known to about half a point, so a smaller gap to a published
   result is not significant; and one seed is a single sample.
3. **The mistakes are not spread evenly.** Most pairs above are animals, or things that share a background. At 32 by 32
   pixels, some are hard for a person, too, and a few labels are debatable.
4. **In part two, look at macro F1.** A reptile has 100 test images, an old class 1,000: a network that hardly knows a
   single reptile can still have a high accuracy.
5. **The test images chose nothing**: no epoch, no learning rate, no threshold.""",
        """Что это значит:

1. **Остаточные блоки позволяют обучать глубокие сети.** В сети 32 слоя, и она обучается с первой же эпохи. Была бы обычная
   сеть той же глубины хуже, здесь не проверялось; этому посвящено исследование `degradation`.
2. **Показатель имеет смысл только с интервалом.** На 10 000 тестовых изображениях доля верных ответов известна с точностью
   около половины процентного пункта, поэтому меньший разрыв с опубликованным результатом статистически незначим; к тому же
   один запуск — это одна случайная реализация.
3. **Ошибки распределены неравномерно.** Большинство пар выше — животные или предметы с похожим фоном. При размере 32 на 32
   пикселя некоторые изображения трудны и для человека, а несколько меток спорны.
4. **Во второй части важна макроусреднённая F-мера.** На рептилию приходится 100 тестовых изображений, на старый класс —
   1000: сеть, которая почти не знает рептилий, всё равно может показать высокую долю верных ответов.
5. **По тестовой выборке ничего не выбиралось**: ни эпоха, ни скорость обучения, ни порог.""",
    ),
)


def build(language: LanguageName) -> Any:
    """Make the notebook in a language, without outputs."""
    cells = []
    for number, cell in enumerate(CELLS):
        make = nbformat.v4.new_code_cell if isinstance(cell, str) else nbformat.v4.new_markdown_cell
        text = cell.replace("{language}", language) if isinstance(cell, str) else cell[LANGUAGES.index(language)]
        cells.append(make(text, id=f"cell-{number:02}"))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def execute(notebook: Any, *, folder: Path) -> None:
    """Run a notebook's cells in a folder, by this interpreter; their outputs are put into it."""
    with _own_kernel(folder):
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(
            notebook, timeout=3600, startup_timeout=300, kernel_name="python3", resources=resources, record_timing=False
        ).execute()


@contextmanager
def _own_kernel(folder: Path) -> Iterator[None]:
    """Let notebooks find this interpreter's kernel, whatever others a person has."""
    kernels = folder / "kernels" / "python3"
    kernels.mkdir(parents=True, exist_ok=True)
    command = f'["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"]'
    (kernels / "kernel.json").write_text(f'{{"argv": {command}, "display_name": "Python 3", "language": "python"}}')
    with patch.dict(os.environ, {"JUPYTER_PATH": str(folder), "IPYTHONDIR": str(folder / "ipython")}):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("extended", type=Path)
    arguments = parser.parse_args()
    for language, path in FILES.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for name, run in ((RUN, arguments.run), (EXTENDED, arguments.extended)):
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).symlink_to(run.resolve())
            notebook = build(language)
            execute(notebook, folder=folder)
        nbformat.write(notebook, path)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
