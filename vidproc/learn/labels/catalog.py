"""The objects of an archive, found by the names that label files give them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from vidproc.errors import ConfigError
from vidproc.media import Video
from vidproc.storage import StorageOptions, is_s3, open_storage


class Catalog:
    """The objects of an archive, found by what label files call them: the whole URI, the path below
    the archive, or (a video) its name with or without folder and extension."""

    def __init__(self, uri: str, objects: Iterable[tuple[str, Video]]) -> None:
        self.uri = uri
        self._by_path: dict[str, Video] = {}
        self._by_name: defaultdict[str, list[Video]] = defaultdict(list)
        for key, video in objects:
            self._by_path[key] = self._by_path[video.uri] = video
            name = PurePosixPath(key)
            for alias in {name.name, name.stem, name.stem.removeprefix("v_")}:
                self._by_name[alias].append(video)
        self.keys = tuple(key for key in self._by_path if not (key.startswith("/") or is_s3(key)))

    @classmethod
    def of(cls, uri: str, options: StorageOptions | None = None) -> Catalog:
        """One listing. Raises ConfigError where there is nothing."""
        storage = open_storage(uri, options=options)
        found = [
            (o.key, Video(storage.uri_of(o.key), o.size, f"{o.etag}:{o.size}", o.modified_at)) for o in storage.list()
        ]
        if not found:
            raise ConfigError(f"There is nothing in {uri} that the labels could refer to.")
        return cls(uri, found)

    def find(self, name: str, where: str) -> Video:
        if video := self._by_path.get(name):
            return video
        found = self._by_name.get(name, [])
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(f"{where}: {name!r} is the name of {len(found)} objects of {self.uri}; give the path.")
        raise ConfigError(f"{where}: there is no {name!r} in {self.uri}.")

    def holds(self, name: str) -> bool:
        return name in self._by_path or len(self._by_name.get(name, [])) == 1


def object_at(uri: str, options: StorageOptions | None = None) -> Video:
    """One object by its path or URI, listed without the rest. Raises ConfigError where it is not there."""
    folder, _, name = uri.rpartition("/")
    storage = open_storage(folder or ("/" if uri.startswith("/") else "."), options=options)
    for o in storage.list(name):
        if o.key == name:
            return Video(storage.uri_of(name), o.size, f"{o.etag}:{o.size}", o.modified_at)
    raise ConfigError(f"There is no {uri}.")


class AnyName(Catalog):
    """Accept every name. For truth and predictions that are both files."""

    def __init__(self) -> None:
        super().__init__("the files", ())

    def find(self, name: str, where: str) -> Video:
        return Video(name, 0, "")
