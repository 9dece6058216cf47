"""What a terminal shows while a network trains."""

import io

from rich.console import Console

from reslab.training.progress import Display


def test_a_terminal_has_a_bar_with_epoch_speed_loss_and_accuracy() -> None:
    display = Display(total_updates=12, total_epochs=3, silent=False)
    assert not display.console.is_terminal
    with display.shown(updates=4):
        assert display.bar is None
    display.console = Console(file=io.StringIO(), force_terminal=True, width=100)
    display.due = 0.0
    with display.shown(updates=4) as shown:
        shown.update(done=5, epoch=1, images_per_second=1234.4, so_far=lambda: (0.5, 0.75))
        assert shown.bar is not None
        (task,) = shown.bar.tasks
        assert (task.completed, task.total) == (5, 12)
        assert (task.description, task.fields["rate"]) == (
            "epoch 2/3",
            "1,234 images/s  loss 0.5000  accuracy 75.00\u00a0%",
        )
        shown.update(done=4, epoch=0, images_per_second=1.0, so_far=lambda: (0.5, 0.75))  # an epoch is repeated
        assert task.completed == 4
