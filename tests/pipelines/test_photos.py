"""What EXIF says of pictures that are there more than once."""

from threer.io.exif import PhotoFocal
from threer.pipelines.classical.photos import by_picture


def test_a_copy_without_exif_does_not_take_it_from_the_original() -> None:
    said, problem, nothing = PhotoFocal(500.0), PhotoFocal(problem="absurd"), PhotoFocal()
    found = by_picture([3, 1, 3, 1, 3, 2], [nothing, said, said, nothing, PhotoFocal(600.0), problem])
    assert found == {3: said, 1: said, 2: problem}
    assert list(found) == [3, 1, 2]
