"""Files under a URI: the local disk and object storage through one small surface.

A URI is a local path or anything that `pyarrow.fs.FileSystem.from_uri` opens: `file://`, `s3://`,
`gs://`, `hdfs://`. Credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and
their like), never from the URI, because URIs are printed and stored. The environment is read when
the first URI of a bucket is opened in this process, and not again.

A name in an `s3://` or `gs://` URI stands as it is: `%` in it means itself. In a `file://` URI,
`%20` is a space.

Source: https://arrow.apache.org/docs/python/filesystems.html
"""

from __future__ import annotations

import functools
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from data_loaders.errors import StorageError, UnreachableError

# A store that refuses connections is reported in about 3 s, one that takes them and then is silent
# in 45 s. Arrow's own settings for URIs take 6 and 100 s, and allow a request no more than 3 s of
# silence, which a store may need to join the parts of a large upload.
S3_CONNECT_TIMEOUT_SECONDS = 3
S3_REQUEST_TIMEOUT_SECONDS = 10
S3_MAX_ATTEMPTS = 4

BUCKET_SCHEMES = ("s3", "gs", "gcs")
SECRET_PARAMETER = re.compile("key|secret|token|password|sig", re.IGNORECASE)


@dataclass(frozen=True)
class Location:
    """A file or a folder: an Arrow filesystem, the path on it, and the URI to show to people."""

    filesystem: pafs.FileSystem
    path: str
    uri: str

    def child(self, name: str) -> Location:
        """The file or folder `name` (may hold `/`) below this folder; keeps the URI's `?query`."""
        is_path = "://" not in self.uri
        base, mark, query = (self.uri, "", "") if is_path else self.uri.partition("?")
        shown = quote(name) if base.startswith("file:") else name
        return Location(
            filesystem=self.filesystem,
            path=f"{self.path.rstrip('/')}/{name}",
            uri=f"{base.rstrip('/')}/{shown}{mark}{query}",
        )

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine."""
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> Location:
        """The folder that this file or folder lies in; what lies at the top is its own."""
        path = self.path.rstrip("/").rpartition("/")[0]
        base, mark, query = self.uri.partition("?") if "://" in self.uri else (self.uri, "", "")
        shown = base.rstrip("/").rpartition("/")[0]
        if not path:
            return self
        return Location(filesystem=self.filesystem, path=path, uri=f"{shown}{mark}{query}")

    def exists(self) -> bool:
        return self._info().type != pafs.FileType.NotFound

    def children(self) -> list[Location]:
        """Files and folders directly below, by name; none if the folder does not exist."""
        selector = pafs.FileSelector(self.path, allow_not_found=True)
        with self.reporting("listed"):
            infos = self.filesystem.get_file_info(selector)
        return [self.child(name) for name in sorted(info.base_name for info in infos)]

    def num_bytes(self) -> int:
        """Size of this file.

        Raises:
            StorageError: there is no such file.
        """
        return self.version()[0]

    def version(self) -> tuple[int, int | None]:
        """Size of this file in bytes, and when it was written, in ns; None where that is unknown.

        Raises:
            StorageError: there is no such file.
        """
        info = self._info()
        if info.type != pafs.FileType.File:
            raise StorageError(f"{self.uri}: no such file")
        return int(info.size), info.mtime_ns

    def read_text(self) -> str:
        """The whole file, decoded from UTF-8.

        Raises:
            StorageError: there is no such file, it cannot be read, or it is not UTF-8.
        """
        with self.reporting("read"):
            return self.read_bytes().decode()

    def read_bytes(self) -> bytes:
        """The whole file.

        Raises:
            StorageError: there is no such file, or it cannot be read.
        """
        with self.reporting("read"), self.filesystem.open_input_stream(self.path) as stream:
            return bytes(stream.read())

    def write_text(self, text: str) -> None:
        """Writes the whole file at once: a reader sees the old text or the new one, never a part.

        Raises:
            StorageError: it cannot be written.
        """
        self.write_bytes(text.encode())

    def write_bytes(self, content: bytes) -> None:
        """As `write_text`."""
        # An object store publishes on close; a local file needs a rename for the same promise.
        target = f"{self.path}.{uuid.uuid4().hex}.tmp" if self.is_local else self.path
        with self.reporting("written"):
            self.parent_folder()
            with self.filesystem.open_output_stream(target) as stream:
                stream.write(content)
            if self.is_local:
                self.filesystem.move(target, self.path)

    def parent_folder(self) -> None:
        """Makes the folder that this file lies in, where the filesystem has folders."""
        if self.is_local:
            self.filesystem.create_dir(self.path.rpartition("/")[0], recursive=True)

    def delete(self) -> None:
        """Deletes this file, or this folder with all below it; nothing if there is none.

        The folder that held it stays, also on object storage, where Arrow leaves an empty object
        in its place.
        """
        kind = self._info().type
        with self.reporting("deleted"):
            if kind == pafs.FileType.Directory:
                self.filesystem.delete_dir(self.path)
            elif kind == pafs.FileType.File:
                self.filesystem.delete_file(self.path)

    @contextmanager
    def reporting(self, action: str) -> Iterator[None]:
        """Makes Arrow's errors a StorageError of one line: this URI cannot be `action`, and why."""
        try:
            yield
        except FileNotFoundError as error:
            raise StorageError(f"{self.uri}: no such file") from error
        except UnicodeDecodeError as error:
            raise StorageError(f"{self.uri}: is not UTF-8 text") from error
        except OSError as error:
            remedy = "; check the bucket's name and the AWS_ variables of the environment"
            kind = UnreachableError if is_of_store(error) else StorageError
            raise kind(
                f"{self.uri}: cannot be {action}: {first_line(error)}"
                f"{remedy if self.filesystem.type_name == 's3' else ''}"
            ) from error

    def _info(self) -> pafs.FileInfo:
        with self.reporting("reached"):
            return self.filesystem.get_file_info(self.path)


def locate(uri: str) -> Location:
    """The location that a URI or a local path names; nothing is read yet.

    Raises:
        StorageError: the scheme is unknown, or the URI carries credentials.
    """
    if "://" not in uri:
        path = os.path.abspath(os.path.expanduser(uri))
        return Location(filesystem=pafs.LocalFileSystem(), path=path, uri=path)
    parts = urlsplit(uri, allow_fragments=False)
    if _has_credentials(parts):
        raise StorageError(
            f"{parts.scheme}://...: credentials do not belong in a URI; set them in the environment"
        )
    if parts.scheme == "file":
        if parts.netloc:
            raise StorageError(f"{uri}: a local file's URI has three slashes: file:///folder/file")
        path = unquote(parts.path).rstrip("/")
        return Location(filesystem=pafs.LocalFileSystem(), path=path or "/", uri=uri)
    try:
        filesystem = _filesystem(parts.scheme, parts.netloc, parts.query)
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        raise StorageError(f"{uri}: cannot be opened: {first_line(error)}") from error
    path = f"{parts.netloc}{parts.path}" if parts.scheme in BUCKET_SCHEMES else parts.path
    return Location(filesystem=filesystem, path=path.rstrip("/"), uri=uri)


def _has_credentials(parts: SplitResult) -> bool:
    # Secrets may hold slashes, and then the part before the first one has no `@`; but a bucket's
    # name holds no colon, so the colon of `s3://KEY:SECRET@bucket` is enough to know it.
    is_pair = parts.scheme in BUCKET_SCHEMES and ":" in parts.netloc
    is_parameter = any(SECRET_PARAMETER.search(name) for name, _ in parse_qsl(parts.query))
    return "@" in parts.netloc or is_pair or is_parameter


@functools.cache
def _filesystem(scheme: str, authority: str, query: str) -> pafs.FileSystem:
    """The filesystem of a bucket: opening it may ask the store for the bucket's region."""
    mark = "?" if query else ""
    filesystem, _ = pafs.FileSystem.from_uri(f"{scheme}://{authority}/{mark}{query}")
    if filesystem.type_name != "s3":
        return filesystem
    # from_uri honours AWS_ENDPOINT_URL and takes no time limits; the constructor takes time limits
    # and ignores AWS_ENDPOINT_URL. What pickle would hand to the constructor joins the two.
    _, (options,) = filesystem.__reduce__()
    options |= {
        "connect_timeout": S3_CONNECT_TIMEOUT_SECONDS,
        "request_timeout": S3_REQUEST_TIMEOUT_SECONDS,
        "retry_strategy": pafs.AwsStandardS3RetryStrategy(max_attempts=S3_MAX_ATTEMPTS),
        "allow_delayed_open": True,  # a small file in one request instead of three
    }
    return pafs.S3FileSystem(**options)


def is_of_store(error: BaseException) -> bool:
    """Whether an object store is at fault, and not the content of a file."""
    return "AWS Error" in str(error)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for a message of one line."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(" :.")
