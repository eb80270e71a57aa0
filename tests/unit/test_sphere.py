"""Images on the sphere: the geometry, and a slow projection point by point."""

import math

import numpy as np
import pytest

from libranas.data.adapters.spherical_cifar import HALF_SIDE, grid, project, random_rotation

UPRIGHT = np.eye(3)
QUARTER = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # by 90 degrees about z


def noise(size=32, channels=3) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (size, size, channels), dtype=np.uint8)


def slow(image, rotation, bandwidth):
    """A ray from the south pole through each point to the plane z = 1, then the four pixels around where it hits."""
    size, channels = len(image), image.shape[2]
    out = np.zeros((2 * bandwidth, 2 * bandwidth, channels))

    def pixel(row, column, channel):
        return float(image[row, column, channel]) if 0 <= row < size and 0 <= column < size else 0.0

    for j in range(2 * bandwidth):
        for k in range(2 * bandwidth):
            beta, alpha = math.pi * j / (2 * bandwidth), math.pi * k / bandwidth
            point = [math.sin(beta) * math.cos(alpha), math.sin(beta) * math.sin(alpha), math.cos(beta)]
            x, y, z = (sum(rotation[i][n] * point[n] for n in range(3)) for i in range(3))
            if z < -0.999:
                continue
            t = 2 / (z + 1)  # (0, 0, -1) + t ((x, y, z) - (0, 0, -1)) has the height 1
            row = (t * x + HALF_SIDE) / (2 * HALF_SIDE) * size - 0.5
            column = (-t * y + HALF_SIDE) / (2 * HALF_SIDE) * size - 0.5
            r, c = math.floor(row), math.floor(column)
            for dr in (0, 1):
                for dc in (0, 1):
                    weight = (1 - abs(row - r - dr)) * (1 - abs(column - c - dc))
                    for channel in range(channels):
                        out[j, k, channel] += weight * pixel(r + dr, c + dc, channel)
    return out


@pytest.mark.parametrize("rotation", [UPRIGHT, QUARTER, random_rotation(1), random_rotation(2)])
@pytest.mark.parametrize("size", [32, 7])
def test_the_projection_is_that_of_the_slow_one(rotation, size):
    image = noise(size)
    fast = project(image, rotation, 12)
    assert fast.dtype == np.uint8 and fast.shape == (24, 24, 3)
    assert np.abs(fast - slow(image, rotation, 12)).max() <= 0.5 + 1e-6  # rounding


def test_the_grid_has_unit_vectors_from_the_north_pole_down():
    points = grid(30)
    assert points.shape == (3, 60, 60)
    np.testing.assert_allclose((points**2).sum(axis=0), 1, rtol=1e-14)
    np.testing.assert_allclose(points[:, 0], np.tile([[0], [0], [1]], 60), atol=1e-15)
    np.testing.assert_allclose(points[:, 30, 15], [0, 1, 0], atol=1e-15)  # on the equator, a quarter round
    np.testing.assert_allclose(np.diff(np.arccos(points[2, :, 0])), np.pi / 60, rtol=1e-9)


def test_the_centre_of_the_image_is_at_the_pole_and_the_rest_is_black():
    image = noise(33)
    sphere = project(image, UPRIGHT)
    np.testing.assert_array_equal(sphere[0], np.tile(image[16, 16], (60, 1)))
    assert not sphere[40:].any()  # the corners are at 93 degrees
    assert sphere[:24].all()  # the sides at 74
    turned_over = project(image, np.diag([1.0, -1, -1]))
    assert not turned_over[:20].any() and turned_over[40:].all()


def test_a_white_image_covers_the_share_of_the_sphere_that_it_has_in_theory():
    sphere = project(np.full((32, 32, 1), 255, np.uint8), UPRIGHT, 200)[..., 0] / 255
    weight = np.sin(np.arange(400) * np.pi / 400)[:, None]
    side = np.linspace(-HALF_SIDE, HALF_SIDE, 2001)
    density = (
        1 / (1 + (side[:, None] ** 2 + side**2) / 4) ** 2 / (4 * np.pi)
    )  # area on the sphere over area in the plane
    theory = np.trapezoid(np.trapezoid(density, side), side)
    assert abs((sphere * weight).sum() / (weight.sum() * 400) - theory) < 0.01


def test_the_image_is_upright_for_an_eye_at_the_centre():
    image = np.zeros((32, 32, 1), np.uint8)
    image[4:8, 24:28] = 255  # up and to the right
    x, y, z = (grid(30) * project(image, UPRIGHT)[..., 0]).sum(axis=(1, 2))
    assert x < 0 and y < 0 and z > 0  # rows along x, columns against y


def test_a_quarter_turn_about_the_axis_turns_the_image():
    image = noise()
    turned = project(image, QUARTER).astype(int)
    np.testing.assert_allclose(turned, np.roll(project(image, UPRIGHT), -15, axis=1), atol=1)
    np.testing.assert_allclose(turned, project(np.ascontiguousarray(np.rot90(image)), UPRIGHT), atol=1)


def test_rotations_are_rotations_from_the_seed_in_all_directions():
    rotations = np.stack([random_rotation(seed) for seed in range(2000)])
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (2000, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotations), 1, rtol=1e-12)
    np.testing.assert_array_equal(rotations[7], random_rotation(7))
    assert np.abs(rotations.mean(axis=0)).max() < 0.06  # the mean of a uniform rotation is zero: sd 0.013
    np.testing.assert_allclose((rotations**2).mean(axis=0), 1 / 3, atol=0.04)
