"""The keys of a data YAML, checked: everything that is wrong is named at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo

from detector.data.drawn import SPLIT_START
from detector.data.fetch import Archive
from detector.errors import DataError, excerpt, nearest
from detector.fields import explain_validation, is_range
from detector.files.bounds import LIMITS, BoundsError, require_within
from detector.files.safe_yaml import YamlError, read_yaml

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test", "minival")
NOTES = ("author", "date", "description", "license", "roboflow", "url", "version")  # known and not used
DRAWING = {"size": 320, "seed": 0}  # defaults of `drawn:`; size in px

Entries = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    Field(min_length=1, description="a path or a list of paths"),
    BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
]


class _Download(BaseModel):
    """An archive in a data YAML."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: str
    into: str = ""
    sha256: str | None = None


class DataYaml(BaseModel):
    """The keys of a data YAML; `val` may be called `validation`.

    Without it a part of the training images is validated on. Without `names` and `nc` the label files name the classes.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    path: str | None = Field(None, description="a folder")
    train: Entries
    val: Entries | None = Field(None, description="a path or a list of paths")
    validation: Entries | None = Field(None, description="a path or a list of paths")
    test: Entries | None = Field(None, description="a path or a list of paths")
    minival: Entries | None = Field(None, description="a path or a list of paths")
    names: dict[int, str] | None = None
    images: str | None = Field(None, description="the folder of the images of label files of a whole split")
    nc: int | None = Field(
        None,
        ge=1,
        le=LIMITS["classes"],
        description=f"a whole number of classes, 1 or more and at most {LIMITS['classes']:,}",
    )
    channels: int | None = Field(None, description="1 (grey) or 3 (colour); convert images that have others")
    value_range: list[float] | None = Field(
        None, description="two numbers, the values of images of 16 bits that become 0 and 255"
    )
    download: list[_Download] = Field([], description="an https:// address, or url, into and sha256")
    stand_in: object = None
    drawn: dict[str, NonNegativeInt] | None = Field(
        None, description="whole numbers, and a folder as `path:`"
    )

    @field_validator("names", mode="before")
    @classmethod
    def _every_id_has_a_name(cls, names: Any) -> dict[int, str]:
        if isinstance(names, list):
            names = dict(enumerate(names))
        if not isinstance(names, dict) or not names:
            raise ValueError("expected a list of class names or a map from id to name")
        numbers = {
            int(key) if isinstance(key, str) and key.isdecimal() else key: name for key, name in names.items()
        }
        names = numbers if len(numbers) == len(names) else names  # '0' is the id 0, unless both are there
        if any(type(key) is not int or not 0 <= key < LIMITS["classes"] for key in names):
            raise ValueError(f"names has the ids {_few(names)}; expected whole numbers from 0, each once")
        names = {number: names.get(number, f"class_{number}") for number in range(max(names) + 1)}
        wrong = [name for name in names.values() if type(name) not in (str, int, float)]
        if wrong:
            raise ValueError(f"names: {_few(wrong)} can't be a class name; put it in quotes")
        return {key: str(names[key]) for key in sorted(names)}

    @field_validator("channels", "value_range", mode="before")
    @classmethod
    def _network_takes_them(cls, given: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        field = cls.model_fields[info.field_name]
        fits = is_range(given) if info.field_name == "value_range" else type(given) is int and given in (1, 3)
        if not fits:
            raise ValueError(f"expected {field.description}")
        return [float(value) for value in given] if isinstance(given, list) else given

    @field_validator("download", mode="before")
    @classmethod
    def _an_archive_may_be_its_address(cls, given: Any) -> list[Any]:
        items = given if isinstance(given, list) else [given]
        return [{"url": item} if isinstance(item, str) else item for item in items]

    @field_validator("download")
    @classmethod
    def _archives_stay_inside(cls, archives: list[_Download]) -> list[_Download]:
        for into in (PurePosixPath(archive.into) for archive in archives):
            if into.is_absolute() or ".." in into.parts:
                raise ValueError(f"download: into: {into} leaves the data set's folder")
        return archives

    @field_validator("stand_in")
    @classmethod
    def _placeholder_is_drawn(cls, stand_in: object) -> object:
        if stand_in != "drawn":
            raise ValueError("expected `drawn`, or leave it out")
        return stand_in

    @field_validator("drawn", mode="before")
    @classmethod
    def _drawing_is_known(cls, drawn: Any) -> Any:
        allowed = (*SPLIT_START, *DRAWING)
        if not isinstance(drawn, dict) or not all(key in allowed for key in drawn):
            raise ValueError(f"expected {', '.join(allowed)}")
        return drawn

    @field_validator("drawn")
    @classmethod
    def _drawing_is_bounded(cls, drawn: dict[str, int]) -> dict[str, int]:
        try:
            require_within("images to draw", sum(drawn.get(split, 0) for split in SPLIT_START))
            require_within("px of an image's side", drawn.get("size", 0))
        except BoundsError as error:
            raise ValueError(f"drawn asks for {error}") from None
        return drawn

    def class_names(self) -> dict[int, str]:
        """Return class id -> name; names are made up where only their number is given."""
        return self.names or {number: f"class_{number}" for number in range(self.nc or 0)}

    def entries(self, split: str) -> list[str]:
        """Return the entries of a split as they are in the file, maybe none."""
        given: list[str] | None = getattr(self, split)
        return (given or (self.validation if split == "val" else None)) or []

    def archives(self) -> tuple[Archive, ...]:
        """Return what to download; what is not an address is refused where it would be fetched."""
        return tuple(Archive(**archive.model_dump()) for archive in self.download)


def read_data_yaml(path: Path, says: bool = False) -> DataYaml:
    """Read and check a data YAML; keys without a value count as left out, and unknown ones are warned of.

    Raises:
        DataError: If it can't be read, or naming everything that is wrong with it.
    """
    try:
        content = read_yaml(path)
    except (YamlError, OSError) as error:
        raise DataError(f"{path} is not a YAML file: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected keys such as path, train, val and names.")
    return check_data_yaml(content, str(path), says)


def check_data_yaml(
    content: Mapping[Any, Any], source: str, says: bool = False, is_file: bool = True
) -> DataYaml:
    """Check the keys of a data YAML; those without a value count as left out.

    Args:
        content: the keys.
        source: what messages call it.
        says: warn of unknown keys.
        is_file: they are from a file, which other programs may have keys in; else unknown ones are
            refused.

    Raises:
        DataError: naming everything that is wrong with them.
    """
    given = {
        key: value
        for key, value in content.items()
        if key not in NOTES and not (value is None and key in DataYaml.model_fields)
    }
    unknown = [key for key in given if key not in DataYaml.model_fields]
    for key in unknown:
        del given[key]
    hint = next((text for key in unknown if (text := nearest(str(key), DataYaml.model_fields))), "")
    named = f"{_few(map(excerpt, unknown))}{hint}"
    problems = []
    try:
        file = DataYaml.model_validate(given)
    except ValidationError as error:
        problems = explain_validation(error, DataYaml, given, _problem, _expected)
    problems += _problems_between(given)
    if not problems and file.names and file.nc not in (None, len(file.names)):
        gaps = len(file.names) - len(given["names"])
        filled = f", as the ids go to {len(file.names) - 1} and {gaps} of them have no name" if gaps else ""
        problems = [f"nc is {file.nc}, but names has {len(file.names)}{filled}; leave nc out or correct one"]
    if unknown and (problems or not is_file):
        problems.append(f"keys that are not known: {named}")
    if problems:
        end = "" if problems[-1].endswith("?") else "."
        raise DataError(
            f"{source}: {problems[0]}{end}" if len(problems) == 1 else "\n  ".join([f"{source}:", *problems])
        )
    if unknown and says:
        log.warning("%s: keys that are not known are not used: %s", source, named)
    return file


def _problems_between(given: Mapping[Any, Any]) -> list[str]:
    """Name what is wrong with a data YAML's keys together."""
    problems = []
    if "val" in given and "validation" in given:
        problems.append("both val and validation are given; keep val")
    if "drawn" in given and "path" not in given:
        problems.append(_problem("drawn", given["drawn"], _expected("drawn", DataYaml.model_fields["drawn"])))
    return problems


def _problem(key: str, value: Any, text: str) -> str:
    return text if text.startswith(key) else f"{key}: {value!r}; {text}"


def _expected(_: str, field: FieldInfo) -> str:
    return f"expected {field.description}"


def _few(values: Any) -> str:
    listed = [repr(value) if isinstance(value, str) and value.isdecimal() else str(value) for value in values]
    return ", ".join(listed[:8]) + (" ..." if len(listed) > 8 else "")
