import math

import pytest
import torch

from reslab.data.augment import augment, crop, flip, mirror, shift
from reslab.recipe import Crop, Flip, Shift

NUM, ROWS, COLUMNS = 12, 5, 8  # not square: rows and columns taken for each other must fail


def make_images(num=NUM, channels=2, rows=ROWS, columns=COLUMNS):
    return torch.randn(num, channels, rows, columns, generator=torch.Generator().manual_seed(1))


def seed(number=0):
    return torch.Generator().manual_seed(number)


# ---- naive references, a pixel at a time; `moved` pixels are zero outside of the image


def look_up(image, channel, row, column):
    inside = 0 <= row < image.shape[1] and 0 <= column < image.shape[2]
    return float(image[channel, row, column]) if inside else 0.0


def moved_slowly(image, down, right):
    """Each pixel is the mean of the four around the place that it comes from, weighted by nearness."""
    result = torch.empty_like(image)
    for channel in range(image.shape[0]):
        for row in range(image.shape[1]):
            for column in range(image.shape[2]):
                above, left = math.floor(row - down), math.floor(column - right)
                below_share, right_share = row - down - above, column - right - left
                result[channel, row, column] = (
                    (1 - below_share) * (1 - right_share) * look_up(image, channel, above, left)
                    + (1 - below_share) * right_share * look_up(image, channel, above, left + 1)
                    + below_share * (1 - right_share) * look_up(image, channel, above + 1, left)
                    + below_share * right_share * look_up(image, channel, above + 1, left + 1)
                )
    return result


def mirror_index(index, side):
    """Find the pixel that stands in place of one outside: the edge itself is not repeated."""
    index = abs(index)
    return 2 * (side - 1) - index if index >= side else index


def cropped_slowly(image, down, right, fill):
    result = torch.empty_like(image)
    for channel in range(image.shape[0]):
        for row in range(image.shape[1]):
            for column in range(image.shape[2]):
                from_row, from_column = row - down, column - right
                if fill == "reflect":
                    from_row, from_column = mirror_index(from_row, ROWS), mirror_index(from_column, COLUMNS)
                result[channel, row, column] = look_up(image, channel, from_row, from_column)
    return result


def drawn_distances(fraction, num=NUM):
    """Draw what `shift` draws from seed 0: how far each image of a batch goes down and right, in pixels."""
    draws = 2 * torch.rand(2, num, generator=seed()).double() - 1
    return [(fraction * ROWS * float(down), fraction * COLUMNS * float(right)) for down, right in draws.T]


# ---- flip


def test_flip_mirrors_columns_or_leaves_an_image_as_it_is():
    images = make_images(64)
    flipped = flip(images, generator=seed())
    mirrored = torch.stack([images[:, :, :, COLUMNS - 1 - column] for column in range(COLUMNS)], dim=3)
    was_mirrored = [torch.equal(each, other) for each, other in zip(flipped, mirrored, strict=True)]
    for place, is_mirror in enumerate(was_mirrored):
        assert is_mirror or torch.equal(flipped[place], images[place])
    assert 0 < sum(was_mirrored) < 64


def test_flip_mirrors_half_of_the_images():
    images = torch.arange(2.0).expand(20_000, 1, 1, 2)
    share = float(flip(images, generator=seed())[:, 0, 0, 0].mean())
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(20_000)


def test_mirror_takes_the_images_that_are_chosen_and_no_others():
    images = make_images(4)
    result = mirror(images, chosen=torch.tensor([True, False, False, True]))
    for place in range(4):
        expected = images[place, :, :, torch.arange(COLUMNS - 1, -1, -1)] if place in (0, 3) else images[place]
        assert torch.equal(result[place], expected)


# ---- shift


@pytest.mark.parametrize("fraction", [0.0625, 0.125, 0.9])
def test_shift_moves_each_image_as_the_slow_loop_does(fraction):
    images = make_images()
    moved = shift(images, fraction=fraction, generator=seed())
    distances = drawn_distances(fraction)
    expected = [moved_slowly(image, *distance) for image, distance in zip(images, distances, strict=True)]
    torch.testing.assert_close(moved, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_shift_goes_both_ways_along_both_axes_evenly_and_never_further_than_told():
    """The centre of a bright pixel tells how far its image went."""
    num, side, fraction = 4000, 17, 0.25
    images = torch.zeros(num, 1, side, side)
    images[:, :, 8, 8] = 1
    moved = shift(images, fraction=fraction, generator=seed())[:, 0]
    pixels = torch.arange(side, dtype=torch.float32)
    for distance in (moved.sum(2) @ pixels - 8, moved.sum(1) @ pixels - 8):
        limit = fraction * side
        assert float(distance.abs().max()) <= limit + 1e-4
        assert float(distance.min()) < -0.99 * limit
        assert float(distance.max()) > 0.99 * limit
        assert abs(float(distance.mean())) < 4 * limit / math.sqrt(3 * num)
        assert float(distance.std()) == pytest.approx(limit / math.sqrt(3), rel=0.05)  # of a uniform distribution
    down, right = moved.sum(2) @ pixels - 8, moved.sum(1) @ pixels - 8
    assert abs(float(torch.corrcoef(torch.stack([down, right]))[0, 1])) < 0.1


def test_shift_moves_further_along_the_longer_side():
    images = torch.ones(500, 1, 4, 40)
    lost = 1 - shift(images, fraction=0.25, generator=seed())
    rows_lost, columns_lost = lost[:, 0, :, 20].sum(1), lost[:, 0, 2, :].sum(1)
    assert 0.9 < float(rows_lost.max()) <= 1.0001
    assert 9 < float(columns_lost.max()) <= 10.0001


# ---- crop


@pytest.mark.parametrize("fill", ["zeros", "reflect"])
def test_crop_cuts_the_window_that_the_slow_loop_cuts(fill):
    images, pixels = make_images(), 2
    cropped = crop(images, pixels=pixels, fill=fill, generator=seed())
    places = {
        (down, right): torch.stack([cropped_slowly(image, down, right, fill) for image in images])
        for down in range(-pixels, pixels + 1)
        for right in range(-pixels, pixels + 1)
    }
    for number in range(NUM):
        assert any(torch.equal(cropped[number], place[number]) for place in places.values())


def test_crop_reaches_every_place_about_as_often_as_the_others():
    """A bright pixel in the middle tells the place of the window; 25 places, each expected 400 times."""
    images = torch.zeros(10_000, 1, 7, 9)
    images[:, :, 3, 4] = 1
    cropped = crop(images, pixels=2, fill="zeros", generator=seed())
    counts = cropped.sum(0)[0]
    assert float(counts.sum()) == 10_000
    reached = counts[1:6, 2:7]
    assert float(reached.sum()) == 10_000
    assert float((reached - 400).abs().max()) < 4.5 * math.sqrt(400)


def test_crop_of_the_largest_mirrored_edge_that_fits():
    images = make_images()
    assert crop(images, pixels=ROWS - 1, fill="reflect", generator=seed()).shape == images.shape


# ---- all of them

ALL = (Flip(), Shift(fraction=0.125), Crop(pixels=2, fill="reflect"), Crop(pixels=1))


def test_parts_are_applied_in_their_order_from_one_generator():
    images, generator = make_images(), seed(5)
    expected = flip(images, generator=generator)
    expected = shift(expected, fraction=0.125, generator=generator)
    expected = crop(expected, pixels=2, fill="reflect", generator=generator)
    expected = crop(expected, pixels=1, fill="zeros", generator=generator)
    assert torch.equal(augment(images, parts=ALL, generator=seed(5)), expected)


def test_an_alternating_flip_mirrors_what_it_is_told_to_and_draws_nothing():
    images, mirrored = make_images(), torch.arange(NUM) % 3 == 0
    expected = crop(mirror(images, chosen=mirrored), pixels=2, fill="zeros", generator=seed(5))
    parts = (Flip(alternate=True), Crop(pixels=2))
    assert torch.equal(augment(images, parts=parts, generator=seed(5), mirrored=mirrored), expected)


def test_a_plain_flip_draws_for_itself():
    images, none = make_images(), torch.zeros(NUM, dtype=torch.bool)
    found = augment(images, parts=(Flip(),), generator=seed(5), mirrored=none)
    assert torch.equal(found, flip(images, generator=seed(5)))


def test_no_part_is_no_change():
    images = make_images()
    assert torch.equal(augment(images, parts=(), generator=seed()), images)


@pytest.mark.parametrize("part", ALL)
def test_the_generator_decides_alone(part):
    images = make_images()
    once, again = (augment(images, parts=(part,), generator=seed(3)) for _ in range(2))
    torch.manual_seed(99)
    assert torch.equal(once, again)
    assert not torch.equal(once, augment(images, parts=(part,), generator=seed(4)))


@pytest.mark.parametrize("part", ALL)
def test_images_are_left_as_they_are_and_keep_their_shape_and_type(part):
    images = make_images()
    before = images.clone()
    result = augment(images, parts=(part,), generator=seed())
    assert torch.equal(images, before)
    assert (result.shape, result.dtype) == (images.shape, images.dtype)
    assert result.data_ptr() != images.data_ptr()


@pytest.mark.parametrize("part", ALL)
def test_each_image_draws_its_own_numbers(part):
    same = make_images(1).expand(40, -1, -1, -1)
    result = augment(same, parts=(part,), generator=seed())
    assert len({tuple(image.flatten().tolist()) for image in result}) > 1
