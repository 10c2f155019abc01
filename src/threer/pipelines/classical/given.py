"""Whether a focal length that was given fits the pictures: a scene bends to fit a wrong one, mostly in silence."""

from __future__ import annotations

import copy
from typing import Any

from threer.pipelines.classical.colmap import quiet

CLEARLY_BETTER = 0.15
CLEARLY_OTHER = 0.10
ITERATIONS = 100
LOSS_PX = 1.0


def doubt_given_focal(model: Any, *, threads: int = 1) -> str | None:
    """What to tell of the focal length that a pycolmap Reconstruction was made with; None where it fits.

    One bundle adjustment is done on a copy, with the focal length free. It has to lower the mean reprojection error
    by 15 % and move the focal length by 10 % before anything is told. The model stays as it is.
    """
    freed = copy.deepcopy(model)
    with quiet() as colmap:
        config = colmap.BundleAdjustmentConfig()
        for image in freed.reg_image_ids():
            config.add_image(image)
        config.fix_gauge(colmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
        options = colmap.BundleAdjustmentOptions()
        options.refine_focal_length, options.refine_extra_params = True, False
        options.print_summary = False
        options.ceres.loss_function_type = colmap.LossFunctionType.SOFT_L1
        options.ceres.loss_function_scale = LOSS_PX
        options.ceres.solver_options.num_threads = threads
        options.ceres.solver_options.max_num_iterations = ITERATIONS
        colmap.create_default_bundle_adjuster(options, config, freed).solve()
        freed.update_point_3d_errors()
    before, after = (float(each.compute_mean_reprojection_error()) for each in (model, freed))
    camera = freed.images[freed.reg_image_ids()[0]].camera_id
    given, found = (float(each.cameras[camera].mean_focal_length()) for each in (model, freed))
    if not after < (1 - CLEARLY_BETTER) * before or not abs(found / given - 1) > CLEARLY_OTHER:
        return None
    return (
        f"classical: the given focal length of {given:.0f} px does not fit these pictures, {found:.0f} px fits "
        f"better ({after:.2f} px of reprojection error, not {before:.2f}): check it, or leave --intrinsics out"
    )
