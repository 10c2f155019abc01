import numpy as np
import torch

from threer.geometry import projection

K = torch.tensor([[[60.0, 0.0, 17.0], [0.0, 55.0, 12.5], [0.0, 0.0, 1.0]]], dtype=torch.float64)


def test_unprojected_depth_projects_back_onto_its_pixels() -> None:
    depth = torch.rand(1, 24, 36, dtype=torch.float64) + 0.5
    points = projection.unproject(depth, K)
    assert torch.equal(points[..., 2], depth)
    pixels = projection.project(points, K)
    assert torch.allclose(pixels[0], projection.pixel_grid(24, 36, dtype=torch.float64))
    assert pixels[0, 3, 5].round().tolist() == [5.0, 3.0]


def test_points_behind_the_camera_have_no_pixel() -> None:
    points = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [1.0, 1.0, 0.0]]], dtype=torch.float64)
    pixels = projection.project(points, K)
    assert pixels[0, 0].tolist() == [17.0, 12.5]
    assert pixels[0, 1:].isnan().all()


def test_image_centre_lies_between_the_middle_pixels() -> None:
    intrinsics = projection.centred_intrinsics(100.0, 224, 160)
    assert intrinsics[:2, 2].tolist() == [111.5, 79.5]


def test_intrinsics_follow_their_pixels_there_and_back() -> None:
    # The network image is a crop from (30, 0), then halved; pixel centres stay at integers.
    to_original = np.array([[2.0, 0.0, 30.5], [0.0, 2.0, 0.5]])
    network = projection.centred_intrinsics(100.0, 224, 224)
    original = projection.transform_intrinsics(network, to_original)
    point = np.array([0.3, -0.2, 2.0])
    seen = network @ point / point[2]
    assert np.allclose(original @ point / point[2], [*(to_original @ seen), 1.0])
    assert original[0, 0] == 200.0
    back = projection.transform_intrinsics(original, projection.invert_affine(to_original))
    assert np.allclose(back, network)


def test_intrinsics_of_many_frames_move_at_once() -> None:
    affines = np.array([[[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    moved = projection.transform_intrinsics(np.repeat(K.numpy(), 2, axis=0), affines)
    assert moved[0, 1, 1] == 165.0
    assert np.array_equal(moved[1], K[0].numpy())
