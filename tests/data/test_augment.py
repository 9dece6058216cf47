import math

import pytest
import torch

from reslab.data.augment import augment, crop, erase, flip, mirror, random_resized_crop, shift
from reslab.recipe.recipe import (
    ColorJitter,
    Crop,
    Flip,
    RandomErasing,
    RandomResizedCrop,
    Shift,
    Standardize,
    TrivialAugment,
)

BY = Standardize(mean=(120, 130), std=(60, 70))  # of two channels
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


# ---- random resized crop

AREA, RATIO = (0.08, 1.0), (0.75, 4 / 3)


def drawn_windows(num, area, ratio):
    """Draw what `random_resized_crop` draws from seed 0, a window at a time: top, left, height, width in pixels."""
    generator = seed()
    shares, shapes = torch.rand(2, 10, num, generator=generator).double()
    down, right = torch.rand(2, num, generator=generator).double()
    for image in range(num):
        height, width = float(ROWS), float(COLUMNS)
        for attempt in range(10):
            pixels = ROWS * COLUMNS * (area[0] + (area[1] - area[0]) * float(shares[attempt, image]))
            shape = ratio[0] * (ratio[1] / ratio[0]) ** float(shapes[attempt, image])
            if math.sqrt(pixels / shape) <= ROWS and math.sqrt(pixels * shape) <= COLUMNS:
                height, width = math.sqrt(pixels / shape), math.sqrt(pixels * shape)
                break
        yield float(down[image]) * (ROWS - height), float(right[image]) * (COLUMNS - width), height, width


def stretched_slowly(image, top, left, height, width):
    """Each pixel's centre lies somewhere in the window; there the four pixels around count by nearness."""
    result = torch.empty_like(image)
    for channel in range(image.shape[0]):
        for row in range(ROWS):
            for column in range(COLUMNS):
                y = min(max(top + (row + 0.5) * height / ROWS - 0.5, 0), ROWS - 1)
                x = min(max(left + (column + 0.5) * width / COLUMNS - 0.5, 0), COLUMNS - 1)
                above, before = math.floor(y), math.floor(x)
                result[channel, row, column] = sum(
                    (1 - abs(y - i)) * (1 - abs(x - j)) * look_up(image, channel, i, j)
                    for i in (above, above + 1)
                    for j in (before, before + 1)
                )
    return result


@pytest.mark.parametrize(("area", "ratio"), [(AREA, RATIO), ((0.5, 0.6), (0.5, 0.5)), ((0.9, 1.0), (3.0, 4.0))])
def test_a_window_is_stretched_as_the_slow_loop_does(area, ratio):
    images = make_images()
    found = random_resized_crop(images, area=area, ratio=ratio, generator=seed())
    windows = drawn_windows(NUM, area, ratio)
    expected = [stretched_slowly(image, *window) for image, window in zip(images, windows, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_windows_have_the_shares_and_the_shapes_that_are_asked_for():
    """Images that hold the row or the column of each pixel tell by their slopes how far a window was stretched."""
    num, side = 3000, 40
    pixels = torch.arange(float(side))
    images = torch.stack([pixels[:, None].expand(side, side), pixels.expand(side, side)])[None].expand(num, -1, -1, -1)
    found = random_resized_crop(images, area=AREA, ratio=RATIO, generator=seed())
    middle = slice(side // 2 - 5, side // 2 + 5)
    height = found[:, 0, middle, 0].diff(dim=1).mean(1)
    width = found[:, 1, 0, middle].diff(dim=1).mean(1)
    shares, shapes = height * width, width / height
    assert float(shares.min()) == pytest.approx(AREA[0], rel=0.05)
    assert float(shares.max()) == pytest.approx(AREA[1], rel=0.05)
    assert float(shapes.min()) == pytest.approx(RATIO[0], rel=0.02)
    assert float(shapes.max()) == pytest.approx(RATIO[1], rel=0.02)
    assert abs(float(shapes.log().mean())) < 0.02  # as often wide as high
    centre = found[:, :, side // 2 - 1 : side // 2 + 1, side // 2 - 1 : side // 2 + 1].mean((2, 3))
    assert torch.allclose(centre.mean(0), torch.full((2,), (side - 1) / 2), atol=0.3)  # and everywhere


def test_a_window_of_the_whole_image_is_the_image():
    images = make_images()
    found = random_resized_crop(images, area=(1, 1), ratio=(COLUMNS / ROWS,) * 2, generator=seed())
    torch.testing.assert_close(found, images, rtol=1e-5, atol=1e-5)


# ---- erasing


def test_half_of_the_images_lose_one_rectangle_of_about_the_drawn_area():
    images = torch.ones(400, 2, 20, 30)
    gone = erase(images, probability=0.5, area=(0.1, 0.2), generator=seed())[:, 0] == 0
    hit = gone[gone.any(2).any(1)]
    assert 0.4 < len(hit) / len(images) < 0.6
    assert torch.equal(hit, hit.any(2)[:, :, None] & hit.any(1)[:, None, :])  # rows times columns
    assert 0.09 < float(hit.float().mean()) < 0.21


# ---- all of them

ALL = (Flip(), Shift(fraction=0.125), Crop(pixels=2, fill="reflect"), Crop(pixels=1), RandomResizedCrop())


def test_parts_are_applied_in_their_order_from_one_generator():
    images, generator = make_images(), seed(5)
    expected = flip(images, generator=generator)
    expected = shift(expected, fraction=0.125, generator=generator)
    expected = crop(expected, pixels=2, fill="reflect", generator=generator)
    expected = crop(expected, pixels=1, fill="zeros", generator=generator)
    expected = random_resized_crop(expected, area=AREA, ratio=RATIO, generator=generator)
    assert torch.equal(augment(images, parts=ALL, by=BY, generator=seed(5)), expected)


def test_an_alternating_flip_mirrors_what_it_is_told_to_and_draws_nothing():
    images, mirrored = make_images(), torch.arange(NUM) % 3 == 0
    expected = crop(mirror(images, chosen=mirrored), pixels=2, fill="zeros", generator=seed(5))
    parts = (Flip(alternate=True), Crop(pixels=2))
    assert torch.equal(augment(images, parts=parts, by=BY, generator=seed(5), mirrored=mirrored), expected)


def test_a_plain_flip_draws_for_itself():
    images, none = make_images(), torch.zeros(NUM, dtype=torch.bool)
    found = augment(images, parts=(Flip(),), by=BY, generator=seed(5), mirrored=none)
    assert torch.equal(found, flip(images, generator=seed(5)))


def test_no_part_is_no_change():
    images = make_images()
    assert torch.equal(augment(images, parts=(), by=BY, generator=seed()), images)


EVERY = (*ALL, RandomErasing(probability=0.5), ColorJitter(), TrivialAugment())


@pytest.mark.parametrize("part", EVERY)
def test_the_generator_decides_alone(part):
    images = make_images()
    once, again = (augment(images, parts=(part,), by=BY, generator=seed(3)) for _ in range(2))
    torch.manual_seed(99)
    assert torch.equal(once, again)
    assert not torch.equal(once, augment(images, parts=(part,), by=BY, generator=seed(4)))


@pytest.mark.parametrize("part", EVERY)
def test_images_are_left_as_they_are_and_keep_their_shape_and_type(part):
    images = make_images()
    before = images.clone()
    result = augment(images, parts=(part,), by=BY, generator=seed())
    assert torch.equal(images, before)
    assert (result.shape, result.dtype) == (images.shape, images.dtype)
    assert result.data_ptr() != images.data_ptr()


@pytest.mark.parametrize("part", ALL)
def test_each_image_draws_its_own_numbers(part):
    same = make_images(1).expand(40, -1, -1, -1)
    result = augment(same, parts=(part,), by=BY, generator=seed())
    assert len({tuple(image.flatten().tolist()) for image in result}) > 1
